"""R3GAN's networks against the order of operations of the authors' program, and their start."""

import functools

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from genlab.models.gan.r3gan import R3GANBlock, R3GANDiscriminator, R3GANGenerator, Resampling
from tests.models.tiny import make_spec

SIZES = {"channels": 4, "group_size": 2, "blocks_per_stage": 2}
SPEC = make_spec(channels=3, height=32, width=32)
ROW = torch.tensor([1.0, 3.0, 3.0, 1.0]) / 8


def resampled(x: Tensor, *, doubles: bool) -> Tensor:
    """Zeros between the pixels, or every second pixel, of each channel on its own, with the filter [1, 3, 3, 1]."""
    kernel = torch.outer(ROW, ROW)[None, None]
    maps = x.flatten(0, 1).unsqueeze(1)
    if doubles:
        spread = torch.zeros(len(maps), 1, 2 * x.shape[2], 2 * x.shape[3])
        spread[:, :, ::2, ::2] = maps
        y = F.conv2d(F.pad(spread, (2, 1, 2, 1)), 4 * kernel)
    else:
        y = F.conv2d(F.pad(maps, (1, 1, 1, 1)), kernel)[:, :, ::2, ::2]
    return y.view(*x.shape[:2], *y.shape[2:])


def through(block: R3GANBlock, x: Tensor) -> Tensor:
    y = F.leaky_relu(F.conv2d(x, block.widen.weight) + block.widen.bias[:, None, None], 0.2)
    y = F.conv2d(y, block.mix.weight, padding=1, groups=4) + block.mix.bias[:, None, None]
    return x + F.conv2d(F.leaky_relu(y, 0.2), block.narrow.weight)


def stir(network: torch.nn.Module) -> None:
    """Let nothing be zero."""
    for parameter in network.parameters():
        torch.nn.init.normal_(parameter, std=0.3)


@pytest.mark.parametrize("doubles", [True, False])
def test_resampling_is_the_filter_of_the_program(doubles: bool) -> None:
    x = torch.randn(2, 3, 6, 4)
    torch.testing.assert_close(Resampling(doubles=doubles)(x), resampled(x, doubles=doubles))


def test_the_generator_is_that_of_the_program() -> None:
    network = R3GANGenerator(spec=SPEC, num_inputs=5, **SIZES)
    stir(network)
    inputs = torch.randn(2, 5)
    x = network.basis[None] * F.linear(inputs, network.scale.weight)[:, :, None, None]
    assert x.shape == (2, 4, 4, 4)
    blocks = [module for module in network.modules() if isinstance(module, R3GANBlock)]
    assert len(blocks) == 8
    for index, block in enumerate(blocks):
        x = through(block, resampled(x, doubles=True) if index in (2, 4, 6) else x)
    torch.testing.assert_close(network(inputs), F.conv2d(x, network.output.weight), rtol=1e-4, atol=1e-4)


def test_the_discriminator_is_that_of_the_program() -> None:
    network = R3GANDiscriminator(spec=SPEC, num_conditions=0, **SIZES)
    stir(network)
    images = torch.randn(2, 3, 32, 32)
    x = F.conv2d(images, network.extract.weight)
    blocks = [module for module in network.modules() if isinstance(module, R3GANBlock)]
    for index, block in enumerate(blocks):
        x = through(block, x)
        if index in (1, 3, 5):
            x = resampled(x, doubles=False)
    assert x.shape == (2, 4, 4, 4)
    expected = (x * network.basis.weight[:, 0]).sum((2, 3))
    torch.testing.assert_close(network(images, torch.empty(2, 0)), expected, rtol=1e-4, atol=1e-4)


def test_blocks_start_as_identities_and_their_inner_maps_with_the_scale_of_the_program() -> None:
    block = R3GANBlock(256, group_size=16, num_blocks=8)
    x = torch.randn(4, 256, 8, 8)
    assert torch.equal(block(x), x)
    gain = (2 / 1.04) ** 0.5 * 8**-0.25
    for layer, num_inputs in ((block.widen, 256), (block.mix, 16 * 9)):
        assert layer.weight.std().item() == pytest.approx(gain / num_inputs**0.5, rel=0.02)


def test_slopes_of_slopes_pass_through() -> None:
    """R1 differentiates the gradient of the score once more."""
    network = R3GANDiscriminator(
        spec=make_spec(channels=1, height=4, width=4), num_conditions=0, channels=2, group_size=2, blocks_per_stage=1
    ).double()
    stir(network)
    score = functools.partial(network, conditions=torch.empty(1, 0, dtype=torch.float64))
    images = torch.randn(1, 1, 4, 4, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradgradcheck(score, images)


def test_groups_that_do_not_divide_the_channels_are_refused() -> None:
    with pytest.raises(ValueError, match=r"model.generator.group_size must divide twice the channels, 8, got 3"):
        R3GANGenerator(spec=SPEC, num_inputs=5, channels=4, group_size=3, blocks_per_stage=1)
