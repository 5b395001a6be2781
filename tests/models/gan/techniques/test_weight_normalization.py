"""Weights as lengths and directions."""

import functools

import torch
from torch import nn

from genlab.checks.phases import training_step
from genlab.models.gan.dcgan import DCGANDiscriminator
from genlab.models.gan.techniques.weight_normalization import WeightNormalization
from tests.models.gan.tiny import make_gan, make_updates
from tests.models.tiny import make_batch

DCGAN = functools.partial(DCGANDiscriminator, channels=3, normalization=None, leak=0.2)


def test_every_row_is_its_length_times_a_unit_vector() -> None:
    model = make_gan(None, WeightNormalization(), discriminator=DCGAN)
    updates = make_updates(model)
    for _ in range(3):
        training_step(model, updates, make_batch(model.spec, 4))
    layers = [m for m in model.discriminator.modules() if isinstance(m, nn.Linear | nn.Conv2d)]
    assert len(layers) == 3
    for layer in layers:
        length, direction = (p.detach() for p in layer.parametrizations.weight.parameters())
        assert length.numel() == len(layer.weight)
        expected = length.view(-1, 1) * direction.flatten(1) / direction.flatten(1).norm(dim=1, keepdim=True)
        torch.testing.assert_close(layer.weight.detach().flatten(1), expected)


def test_it_changes_nothing_before_training_and_leaves_the_generator_alone() -> None:
    models = []
    for techniques in ((), (WeightNormalization(),)):
        torch.manual_seed(0)
        models.append(make_gan(None, *techniques, discriminator=DCGAN))
    images, empty = torch.randn(4, 1, 4, 4), torch.empty(4, 0)
    plain, normalized = (model.discriminator(images, empty).outputs for model in models)
    torch.testing.assert_close(normalized, plain)
    assert models[0].generator.state_dict().keys() == models[1].generator.state_dict().keys()
