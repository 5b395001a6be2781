"""The largest singular value of every weight matrix is one."""

import functools

import pytest
import torch
from torch import nn

from genlab.checks.phases import training_step
from genlab.models.gan.dcgan import DCGANDiscriminator
from genlab.models.gan.techniques.minibatch_discrimination import MinibatchDiscrimination
from genlab.models.gan.techniques.spectral_normalization import SpectralNormalization
from genlab.models.gan.techniques.weight_normalization import WeightNormalization
from tests.models.gan.tiny import make_gan, make_updates
from tests.models.tiny import make_batch

DCGAN = functools.partial(DCGANDiscriminator, channels=4, num_hidden=None, normalization=None, leak=0.1)


def largest_singular_values(discriminator: nn.Module) -> list[float]:
    layers = [module for module in discriminator.modules() if isinstance(module, nn.Linear | nn.Conv2d)]
    return [torch.linalg.svdvals(layer.weight.detach().flatten(1))[0].item() for layer in layers]


def test_the_largest_singular_value_converges_to_one() -> None:
    techniques = SpectralNormalization(num_power_iterations=1), MinibatchDiscrimination(num_kernels=3, kernel_size=2)
    model = make_gan(None, *techniques, discriminator=DCGAN)
    with torch.no_grad():
        for parameter in model.discriminator.parameters():
            parameter.mul_(50)
    for _ in range(200):
        model.discriminator(torch.randn(2, 1, 4, 4), torch.empty(2, 0))
    model.eval()
    values = largest_singular_values(model.discriminator)
    assert values == pytest.approx([1.0] * 4, abs=1e-3)


def test_it_follows_the_weights_through_training() -> None:
    model = make_gan(None, SpectralNormalization(num_power_iterations=1), discriminator=DCGAN)
    updates = make_updates(model)
    for _ in range(30):
        training_step(model, updates, make_batch(model.spec, 4))
    assert largest_singular_values(model.eval().discriminator) == pytest.approx([1.0] * 3, abs=0.1)


def test_the_singular_vectors_are_in_the_checkpoint_and_only_training_moves_them() -> None:
    model = make_gan(None, SpectralNormalization(num_power_iterations=1))
    names = [name for name in model.state_dict() if name.endswith((".0._u", ".0._v"))]
    assert len(names) == 2 * 3
    before = {name: model.state_dict()[name].clone() for name in names}
    model.sample(2)
    model.evaluate(make_batch(model.spec, 3))
    assert all(torch.equal(model.state_dict()[name], kept) for name, kept in before.items())
    model.train()
    model.discriminator(torch.randn(2, 1, 4, 4), torch.empty(2, 0))
    assert not all(torch.equal(model.state_dict()[name], kept) for name, kept in before.items())


def test_the_generator_is_left_alone() -> None:
    model = make_gan(None, SpectralNormalization(num_power_iterations=1))
    assert not any("parametrizations" in name for name, _ in model.generator.named_parameters())


def test_a_second_parametrisation_is_refused_in_either_order() -> None:
    pair = SpectralNormalization(num_power_iterations=1), WeightNormalization(direction_std=0.05, learns_scale=True)
    for techniques in (pair, pair[::-1]):
        with pytest.raises(ValueError, match=r"exclude each other, because .*: set one to null"):
            make_gan(None, *techniques)


def test_a_number_out_of_range_is_refused() -> None:
    with pytest.raises(ValueError, match=r"num_power_iterations must be an integer of at least 1"):
        SpectralNormalization(num_power_iterations=0)
