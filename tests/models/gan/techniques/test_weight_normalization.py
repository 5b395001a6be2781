"""Weights as lengths and directions."""

import functools

import pytest
import torch
from torch import nn

from genlab.checks.phases import training_step
from genlab.models.gan.conditioning import ClassProjection
from genlab.models.gan.dcgan import DCGANDiscriminator
from genlab.models.gan.techniques.weight_normalization import WeightNormalization
from genlab.nn.weight_norm import scale_of
from tests.models.gan.tiny import make_gan, make_updates
from tests.models.tiny import make_batch, make_spec

DCGAN = functools.partial(DCGANDiscriminator, channels=3, num_hidden=None, normalization=None, leak=0.2)


@pytest.mark.parametrize("learns_scale", [False, True])
def test_the_data_set_the_lengths_and_training_changes_the_learned_ones(learns_scale: bool) -> None:
    technique = WeightNormalization(direction_std=0.1, learns_scale=learns_scale)
    model = make_gan(None, technique, discriminator=DCGAN)
    batch = make_batch(model.spec, 50)
    model.initialize(batch)
    outputs = model.discriminator(2 * batch.images - 1, torch.empty(50, 0)).outputs
    torch.testing.assert_close(outputs.std(), torch.tensor(1.0))
    torch.testing.assert_close(outputs.mean(), torch.tensor(0.0), atol=1e-5, rtol=0)
    layers = [m for m in model.discriminator.modules() if isinstance(m, nn.Linear | nn.Conv2d)]
    before = [scale_of(layer).detach().clone() for layer in layers]
    updates = make_updates(model)
    for _ in range(3):
        training_step(model, updates, batch)
    assert len(layers) == 3
    for layer, start in zip(layers, before, strict=True):
        lengths = layer.weight.detach().flatten(1).norm(dim=1)
        torch.testing.assert_close(lengths, scale_of(layer).detach().abs())
        is_learned = learns_scale or layer is model.discriminator.output
        assert torch.allclose(lengths, start) != is_learned


def test_the_class_has_as_large_a_share_of_the_score_as_the_image() -> None:
    technique = WeightNormalization(direction_std=0.1, learns_scale=False)
    spec = make_spec(num_classes=3)
    model = make_gan(spec, technique, discriminator=DCGAN, conditioning=ClassProjection())
    batch = make_batch(spec, 300)
    model.initialize(batch)
    real = 2 * batch.images - 1
    scores = model.discriminator(real, model._conditions(batch.labels)).outputs
    assert 0.7 < scores.std() < 2.1  # of two terms with a deviation of 1
    before = scale_of(model.discriminator.embedding).detach().clone()
    training_step(model, make_updates(model), batch)
    assert not torch.equal(scale_of(model.discriminator.embedding), before)


def test_it_leaves_the_generator_alone() -> None:
    technique = WeightNormalization(direction_std=0.1, learns_scale=True)
    names = [make_gan(None, *parts).generator.state_dict().keys() for parts in ((), (technique,))]
    assert names[0] == names[1]
