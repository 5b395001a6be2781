"""Residual networks against the order of operations of the papers' programs, and their conditional normalisation."""

import functools

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from genlab.models.gan.conditioning import ClassProjection
from genlab.models.gan.networks import BatchNorm2d, ConditionalBatchNorm2d
from genlab.models.gan.objectives import Wasserstein
from genlab.models.gan.resnet import DiscriminatorBlock, GeneratorBlock, ResNetDiscriminator, ResNetGenerator
from genlab.models.gan.techniques.gradient_penalty import GradientPenalty
from genlab.nn.self_attention import SelfAttention
from tests.models.gan.tiny import make_gan
from tests.models.tiny import make_batch, make_spec

CRITIC = functools.partial(
    ResNetDiscriminator,
    channels=8,
    num_plain_blocks=2,
    sums_positions=True,
    normalization=None,
    attention_side=None,
)
GENERATOR = functools.partial(
    ResNetGenerator, channels=8, normalization=BatchNorm2d, class_conditional=False, attention_side=None
)


def repeated(x: Tensor) -> Tensor:
    """Each pixel as 2x2, one after the other."""
    return x.repeat_interleave(2, 2).repeat_interleave(2, 3)


def mean_pooled(x: Tensor) -> Tensor:
    return (x[:, :, ::2, ::2] + x[:, :, 1::2, ::2] + x[:, :, ::2, 1::2] + x[:, :, 1::2, 1::2]) / 4


def convolved(layer: nn.Module, x: Tensor) -> Tensor:
    return F.conv2d(x, layer.weight, layer.bias, padding=layer.weight.shape[-1] // 2)


def test_the_generator_is_that_of_the_programs() -> None:
    """UpsampleConv on both paths, normalisation and ReLU before each 3x3, tanh left to the output function."""
    network = GENERATOR(spec=make_spec(channels=3, height=32, width=32), num_inputs=5)
    inputs = torch.randn(6, 5)

    def standardized(x: Tensor) -> Tensor:
        mean, variance = x.mean((0, 2, 3), keepdim=True), x.var((0, 2, 3), correction=0, keepdim=True)
        return (x - mean) / (variance + 1e-5).sqrt()

    x = network.project(inputs).view(6, 8, 4, 4)
    assert len(network.blocks) == 3
    for block in network.blocks:
        y = convolved(block.first, repeated(standardized(x).relu()))
        x = convolved(block.shortcut, repeated(x)) + convolved(block.second, standardized(y).relu())
    expected = convolved(network.output, standardized(x).relu())
    torch.testing.assert_close(network(inputs), expected, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("sums_positions", [True, False])
def test_the_discriminator_is_that_of_the_programs(sums_positions: bool) -> None:
    """OptimizedBlock, ConvMeanPool on both paths, two blocks of one size, ReLU, sum or mean over the positions."""
    network = CRITIC(spec=make_spec(channels=3, height=32, width=32), num_conditions=0, sums_positions=sums_positions)
    images = torch.randn(2, 3, 32, 32)
    first, second, *plain = network.blocks
    y = mean_pooled(convolved(first.second, convolved(first.first, images).relu()))
    x = y + convolved(first.shortcut, mean_pooled(images))
    y = mean_pooled(convolved(second.second, convolved(second.first, x.relu()).relu()))
    x = y + mean_pooled(convolved(second.shortcut, x))
    assert len(plain) == 2
    for block in plain:
        x = x + convolved(block.second, convolved(block.first, x.relu()).relu())
    assert x.shape == (2, 8, 8, 8)
    expected = x.relu().sum((2, 3)) / (1 if sums_positions else 64)
    torch.testing.assert_close(network(images, torch.empty(2, 0)), expected, rtol=1e-4, atol=1e-4)


def test_initial_weights_are_glorots_with_a_gain_of_root_two_within_a_block() -> None:
    network = CRITIC(spec=make_spec(channels=3, height=32, width=32), num_conditions=0, channels=64)
    for block in network.blocks:
        for layer, gain in ((block.first, 2**0.5), (block.second, 2**0.5), (block.shortcut, 1.0)):
            if isinstance(layer, nn.Conv2d):
                receptive = layer.kernel_size[0] ** 2
                bound = gain * (6 / (receptive * (layer.in_channels + layer.out_channels))) ** 0.5
                assert layer.weight.abs().max().item() == pytest.approx(bound, rel=0.02)
                assert not layer.bias.any()


@pytest.mark.parametrize(
    ("height", "width", "of_generator", "of_discriminator"),
    [(16, 16, 2, 2), (28, 28, 2, 2), (32, 64, 3, 2), (64, 64, 4, 3), (128, 128, 5, 4)],
)
def test_the_number_of_blocks_follows_the_image(
    height: int, width: int, of_generator: int, of_discriminator: int
) -> None:
    spec = make_spec(height=height, width=width)
    with torch.device("meta"):
        generator, critic = GENERATOR(spec=spec, num_inputs=3), CRITIC(spec=spec, num_conditions=0)
        assert generator(torch.empty(2, 3)).shape == (2, 1, height, width)
        assert critic(torch.empty(2, 1, height, width), torch.empty(2, 0)).shape == (2, 8)
    assert sum(isinstance(block, GeneratorBlock) for block in generator.blocks) == of_generator
    assert sum(isinstance(block.pool, nn.AvgPool2d) for block in critic.blocks) == of_discriminator
    assert all(isinstance(block, DiscriminatorBlock) for block in critic.blocks)


def test_self_attention_stands_behind_the_first_map_of_its_side() -> None:
    spec = make_spec(height=32, width=64)
    generator = GENERATOR(spec=spec, num_inputs=3, attention_side=16)
    assert [isinstance(layer, SelfAttention) for layer in generator.attention] == [False, True, False]
    critic = CRITIC(spec=spec, num_conditions=0, attention_side=8)
    assert [isinstance(layer, SelfAttention) for layer in critic.attention] == [False, True, False, False]
    before = generator.eval()(torch.ones(1, 3))
    with torch.no_grad():
        generator.attention[1].residual_weight.fill_(1.0)
    assert not torch.allclose(generator(torch.ones(1, 3)), before)


def test_conditional_batch_norm_gives_each_class_its_gain_and_shift() -> None:
    layer = ConditionalBatchNorm2d(3, num_classes=2)
    with torch.no_grad():
        layer.excess_gain.copy_(torch.tensor([[0.5, 0.0, -1.0], [1.0, 2.0, 3.0]]))
        layer.shift.copy_(torch.tensor([[0.0, 1.0, 2.0], [-1.0, -2.0, -3.0]]))
    x = 4 * torch.randn(4, 3, 5, 5) + 2
    classes = torch.tensor([[1.0, 0.0], [0.0, 1.0], [0.0, 1.0], [0.0, 0.0]])
    standardized = (x - x.mean((0, 2, 3), keepdim=True)) / x.std((0, 2, 3), correction=0, keepdim=True)
    gains = [[1.5, 1.0, 0.0], [2.0, 3.0, 4.0], [2.0, 3.0, 4.0], [1.0, 1.0, 1.0]]
    shifts = [[0.0, 1.0, 2.0], [-1.0, -2.0, -3.0], [-1.0, -2.0, -3.0], [0.0, 0.0, 0.0]]
    expected = standardized * torch.tensor(gains)[:, :, None, None] + torch.tensor(shifts)[:, :, None, None]
    torch.testing.assert_close(layer(x, classes), expected, rtol=1e-4, atol=1e-4)


def test_classes_reach_the_normalisation_of_the_blocks_and_no_other_layer() -> None:
    spec = make_spec(height=8, width=8, num_classes=3)
    network = GENERATOR(spec=spec, num_inputs=5 + 3, class_conditional=True)
    assert network.project.in_features == 5
    assert sum(isinstance(layer, ConditionalBatchNorm2d) for layer in network.modules()) == 4
    assert isinstance(network.output_norm, BatchNorm2d)
    assert network.output_norm.affine
    noise = torch.randn(1, 5)
    images = [network.eval()(torch.cat((noise, torch.eye(3)[[k]]), 1)) for k in range(3)]
    assert torch.equal(images[0], images[1]), "every class begins alike"
    with torch.no_grad():
        network.blocks[0].second_norm.shift[1].fill_(1.0)
    assert not torch.allclose(network(torch.cat((noise, torch.eye(3)[[1]]), 1)), images[1])
    assert torch.equal(network(torch.cat((noise, torch.eye(3)[[2]]), 1)), images[2])


def test_a_penalty_is_refused_beside_batch_norm_and_exact_beside_attention_and_projection() -> None:
    """Its gradient by one weight of the attention is that of finite differences."""
    spec = make_spec(height=8, width=8, num_classes=3)
    parts = {
        "generator": functools.partial(GENERATOR, class_conditional=True),
        "objective": Wasserstein(),
        "conditioning": ClassProjection(),
    }
    penalty = GradientPenalty(weight=10.0)
    with pytest.raises(ValueError, match="batch normalisation mixes a batch"):
        make_gan(spec, penalty, **parts, discriminator=functools.partial(CRITIC, normalization=BatchNorm2d))
    model = make_gan(spec, penalty, **parts, discriminator=functools.partial(CRITIC, attention_side=4)).double()
    weight = model.discriminator.network.attention[0].residual_weight
    batch = make_batch(spec, 3)

    def loss() -> Tensor:
        torch.manual_seed(1)
        return model.phases()[0].loss(batch).value

    (exact,) = torch.autograd.grad(loss(), weight)
    values = []
    for step in (1e-5, -2e-5):
        with torch.no_grad():
            weight.add_(step)
        values.append(loss().item())
    assert exact.item() == pytest.approx((values[0] - values[1]) / 2e-5, rel=1e-4)
