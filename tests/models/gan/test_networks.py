"""Properties of all networks: initial values, sizes, counts of parameters, outputs without bounds."""

import functools
from collections.abc import Callable

import pytest
import torch
from torch import nn

from genlab.models.gan.acgan import ACGANDiscriminator, ACGANGenerator
from genlab.models.gan.cgan import CGANDiscriminator, CGANGenerator, Maxout
from genlab.models.gan.dcgan import DCGANDiscriminator, DCGANGenerator
from genlab.models.gan.dcgan_assignment import AssignmentDiscriminator, AssignmentGenerator
from genlab.models.gan.mlp import MLPDiscriminator, MLPGenerator
from genlab.models.gan.networks import (
    BatchNorm1d,
    BatchNorm1dWithoutGain,
    BatchNorm2d,
    DiscriminatorNetwork,
    GaussianNoiseLayer,
    GeneratorNetwork,
    flattened,
    initialize_normal,
    initialize_xavier,
    num_halvings,
    with_planes,
)
from genlab.models.gan.r3gan import R3GANDiscriminator, R3GANGenerator
from genlab.models.gan.resnet import ResNetDiscriminator, ResNetGenerator
from genlab.types import ImageSpec
from tests.models.gan.tiny import make_discriminator
from tests.models.tiny import make_spec, num_parameters
from tests.thinning import thinned

GENERATORS: dict[str, Callable[..., GeneratorNetwork]] = {
    "mlp": functools.partial(
        MLPGenerator, hidden=[8], activation=nn.ReLU, normalization=BatchNorm1d, normalizes_output_weights=True
    ),
    "dcgan": functools.partial(DCGANGenerator, channels=2, normalization=BatchNorm2d),
    "plain dcgan": functools.partial(DCGANGenerator, channels=2, normalization=None),
    "assignment": functools.partial(AssignmentGenerator, channels=4, weight_std=0.02),
    "acgan": functools.partial(ACGANGenerator, channels=2, normalization=BatchNorm2d),
    "resnet": functools.partial(
        ResNetGenerator, channels=2, normalization=BatchNorm2d, class_conditional=False, attention_side=None
    ),
    "r3gan": functools.partial(R3GANGenerator, channels=2, group_size=2, blocks_per_stage=1),
    "cgan": functools.partial(CGANGenerator, noise_units=4, class_units=5, joint_units=6, dropout=0.5),
}
DISCRIMINATORS: dict[str, Callable[..., DiscriminatorNetwork]] = {
    "mlp": functools.partial(MLPDiscriminator, hidden=[8, 6], leak=0.01, input_noise=0.1, hidden_noise=0.2),
    "dcgan": functools.partial(DCGANDiscriminator, channels=2, num_hidden=None, normalization=BatchNorm2d, leak=0.2),
    "plain dcgan": functools.partial(DCGANDiscriminator, channels=2, num_hidden=5, normalization=None, leak=0.2),
    "assignment": functools.partial(AssignmentDiscriminator, leak=0.01),
    "acgan": functools.partial(ACGANDiscriminator, channels=8, normalization=None, leak=0.2, dropout=0.5),
    "resnet": functools.partial(
        ResNetDiscriminator,
        channels=6,
        num_plain_blocks=1,
        sums_positions=True,
        normalization=None,
        attention_side=None,
    ),
    "r3gan": functools.partial(R3GANDiscriminator, channels=6, group_size=3, blocks_per_stage=1),
    "cgan": functools.partial(CGANDiscriminator, image_units=4, class_units=3, joint_units=6, dropout=0.5),
}
PLAIN = {"normalization": None, "normalizes_output_weights": False}
SIZES = [(12, 8), (4, 4), (8, 8), (8, 32), (16, 16), (28, 28), (32, 32), (64, 64)]
SHAPES = [(channels, *size) for channels in (3, 1) for size in SIZES]


def mnist(**changes: int) -> ImageSpec:
    return make_spec(height=28, width=28, **changes)


def make_assignment_generator() -> AssignmentGenerator:
    return AssignmentGenerator(spec=mnist(), num_inputs=4, channels=64, weight_std=None)


def test_the_assignments_counts_of_parameters() -> None:
    """CS231n's own checks: noise of 4, images of 28x28."""
    mlp = DISCRIMINATORS["mlp"](spec=mnist(), num_conditions=0, hidden=[256, 256])
    assert num_parameters(make_discriminator(mlp)) == 267_009
    wide = GENERATORS["mlp"](spec=mnist(), num_inputs=4, hidden=[1024, 1024], **PLAIN)
    assert num_parameters(wide) == 1_858_320
    convolutional = DISCRIMINATORS["assignment"](spec=mnist(), num_conditions=0)
    assert num_parameters(make_discriminator(convolutional)) == 1_102_721
    assert num_parameters(make_assignment_generator()) == 6_580_801


def test_the_conditional_gans_counts_of_parameters() -> None:
    """Of the sizes in section 4.1 of arXiv:1411.1784: noise of 100, ten classes, images of 28x28, maxout units of five,
    five and four pieces, a sigmoid behind the last 240."""
    generator = CGANGenerator(
        spec=mnist(num_classes=10), num_inputs=110, noise_units=200, class_units=1000, joint_units=1200, dropout=0.5
    )
    assert num_parameters(generator) == 101 * 200 + 11 * 1000 + 1201 * 1200 + 1201 * 784
    discriminator = CGANDiscriminator(
        spec=mnist(), num_conditions=10, image_units=240, class_units=50, joint_units=240, dropout=0.5
    )
    counted = 785 * 240 * 5 + 11 * 50 * 5 + 291 * 240 * 4 + 241
    assert num_parameters(make_discriminator(discriminator)) == counted


def test_a_maxout_unit_is_the_largest_of_its_own_pieces() -> None:
    layer, x = Maxout(3, 2, 4), torch.randn(5, 3)
    pieces = layer.linear(x)
    expected = torch.stack([pieces[:, :4].max(1).values, pieces[:, 4:].max(1).values], 1)
    torch.testing.assert_close(layer(x), expected)


def test_the_conditional_gans_networks_give_noise_image_and_class_layers_of_their_own() -> None:
    """Without the class's layer, the class changes nothing; without the other, nothing else does."""
    generator = GENERATORS["cgan"](spec=make_spec(num_classes=2, height=8, width=8), num_inputs=5).eval()
    discriminator = DISCRIMINATORS["cgan"](spec=make_spec(height=8, width=8), num_conditions=2).eval()
    noise, classes, images = torch.randn(4, 3), torch.eye(2).repeat(2, 1), torch.randn(4, 1, 8, 8)
    for network, inputs in (
        (generator, lambda of_class: (torch.cat((noise, of_class), 1),)),
        (discriminator, lambda of_class: (images, of_class)),
    ):
        seen = network(*inputs(classes))
        assert not torch.equal(seen, network(*inputs(classes.flip(1))))
        for parameter in network.get_submodule("of_class").parameters():
            torch.nn.init.zeros_(parameter)
        assert torch.equal(network(*inputs(classes)), network(*inputs(classes.flip(1))))


def test_the_assignments_second_linear_layer_has_batch_norm_of_one_dimension_and_its_relu() -> None:
    project = make_assignment_generator().project
    assert [type(layer) for layer in project] == [nn.Linear, nn.BatchNorm1d, nn.ReLU] * 2
    outputs = project(torch.randn(16, 4))
    assert outputs.min() == 0
    assert 0.3 < (outputs == 0).float().mean() < 0.7


@pytest.mark.parametrize(("channels", "height", "width"), thinned(SHAPES, len(SHAPES)))
@pytest.mark.parametrize("name", GENERATORS)
def test_every_generator_fits_every_size_and_batch(name: str, channels: int, height: int, width: int) -> None:
    network = GENERATORS[name](spec=make_spec(channels=channels, height=height, width=width), num_inputs=3)
    for num in (2, 3):  # nothing remembers a batch size
        images = network(torch.randn(num, 3))
        assert images.shape == (num, channels, height, width)
        assert torch.isfinite(images).all()
    assert network.eval()(torch.randn(1, 3)).shape == (1, channels, height, width)


@pytest.mark.parametrize(("channels", "height", "width"), thinned(SHAPES, len(SHAPES)))
@pytest.mark.parametrize("name", DISCRIMINATORS)
def test_every_discriminator_fits_every_size_and_batch(name: str, channels: int, height: int, width: int) -> None:
    spec = make_spec(channels=channels, height=height, width=width)
    network = DISCRIMINATORS[name](spec=spec, num_conditions=2)
    for num in (2, 3):
        features = network(torch.randn(num, channels, height, width), torch.randn(num, 2))
        assert features.shape == (num, network.num_features)
    one = network.eval()(torch.randn(1, channels, height, width), torch.randn(1, 2))
    assert one.shape == (1, network.num_features)


@pytest.mark.parametrize("name", ["dcgan", "assignment", "acgan", "resnet", "r3gan"])
def test_a_size_that_is_not_divisible_by_four_is_refused(name: str) -> None:
    spec = make_spec(height=30, width=32)
    for make in (
        lambda: GENERATORS[name](spec=spec, num_inputs=3),
        lambda: DISCRIMINATORS[name](spec=spec, num_conditions=0),
    ):
        with pytest.raises(ValueError, match=r"divisible by 4, got 30x32: resize or pad the data, or use model=gan"):
            make()


def test_a_fully_connected_network_takes_any_size() -> None:
    spec = make_spec(height=5, width=3)
    images = GENERATORS["mlp"](spec=spec, num_inputs=3)(torch.randn(2, 3))
    assert DISCRIMINATORS["mlp"](spec=spec, num_conditions=0)(images, torch.empty(2, 0)).shape == (2, 6)


@pytest.mark.parametrize("name", DISCRIMINATORS)
def test_no_discriminator_ends_in_a_sigmoid(name: str) -> None:
    """An output is linear in the last layer: doubled weights double it, without bound."""
    discriminator = make_discriminator(DISCRIMINATORS[name](spec=make_spec(), num_conditions=0)).eval()
    images = torch.randn(5, 1, 4, 4)
    outputs = discriminator(images, torch.empty(5, 0)).outputs
    with torch.no_grad():
        discriminator.output.weight.mul_(1e9)
    larger = discriminator(images, torch.empty(5, 0)).outputs
    torch.testing.assert_close(larger, 1e9 * outputs, rtol=1e-4, atol=1e-2)
    assert larger.abs().max() > 100
    assert not any(isinstance(module, nn.Sigmoid) for module in discriminator.modules())


def test_halvings_end_at_a_small_or_an_odd_side() -> None:
    sides = {(8, 8): 2, (12, 8): 2, (28, 28): 2, (32, 32): 3, (64, 64): 4, (64, 128): 4, (48, 48): 4, (4, 4): 2}
    for (height, width), expected in sides.items():
        assert num_halvings(make_spec(height=height, width=width)) == expected, (height, width)
    for side, expected in {8: 2, 16: 2, 28: 2, 32: 2, 48: 3, 64: 3, 128: 4}.items():
        assert num_halvings(make_spec(height=side, width=side), smallest=8) == expected, side


def test_dcgans_channels_grow_to_eight_times_as_in_the_paper_and_no_further() -> None:
    spec = make_spec(height=256, width=256, channels=3)
    generator = GENERATORS["dcgan"](spec=spec, num_inputs=2)
    discriminator = DISCRIMINATORS["dcgan"](spec=spec, num_conditions=0)
    assert generator.shape == (16, 4, 4)
    assert [m.out_channels for m in generator.layers if isinstance(m, nn.ConvTranspose2d)] == [16, 16, 8, 4, 2, 3]
    assert [m.out_channels for m in discriminator.layers if isinstance(m, nn.Conv2d)] == [2, 4, 8, 16, 16, 16]


def test_dcgans_five_rules() -> None:
    """Radford et al. 2015, section 3: strides, not pooling; no hidden linear layer; batch norm and ReLUs."""
    spec = make_spec(height=64, width=64, channels=3)
    generator = GENERATORS["dcgan"](spec=spec, num_inputs=100, channels=128)
    discriminator = DISCRIMINATORS["dcgan"](spec=spec, num_conditions=0, channels=128)
    modules = [*generator.modules(), *discriminator.modules()]
    assert not any(isinstance(module, nn.MaxPool2d | nn.AvgPool2d) for module in modules)
    assert not any(isinstance(module, nn.Linear) for module in discriminator.modules())
    assert [m.out_channels for m in generator.layers if isinstance(m, nn.ConvTranspose2d)] == [512, 256, 128, 3]
    assert generator.shape == (1024, 4, 4)
    assert [m.out_channels for m in discriminator.layers if isinstance(m, nn.Conv2d)] == [128, 256, 512, 1024]
    block = [nn.Conv2d, BatchNorm2d, nn.LeakyReLU]
    assert [type(m) for m in discriminator.layers] == [nn.Conv2d, nn.LeakyReLU, *block * 3]
    assert isinstance(generator.layers[-1], nn.ConvTranspose2d)
    assert isinstance(generator.project_norm, BatchNorm2d)


def test_the_auxiliary_classifiers_networks_are_those_of_the_paper() -> None:
    """Odena et al. 2016, appendix A, for 32x32: strides of 2 and 1 in turn, and weights of deviation 0.02."""
    spec = make_spec(height=32, width=32, channels=3)
    arguments = {"num_conditions": 0, "channels": 16, "normalization": BatchNorm2d, "leak": 0.2, "dropout": 0.5}
    discriminator = ACGANDiscriminator(spec=spec, **arguments)
    convolutions = [layer for layer in discriminator.layers if isinstance(layer, nn.Conv2d)]
    assert [layer.out_channels for layer in convolutions] == [16, 32, 64, 128, 256, 512]
    assert [layer.stride[0] for layer in convolutions] == [2, 1, 2, 1, 2, 1]
    assert convolutions[-1].weight.std().item() == pytest.approx(0.02, rel=0.03)
    larger = ACGANDiscriminator(spec=make_spec(height=64, width=64, channels=3), **(arguments | {"channels": 2}))
    widths = [layer.out_channels for layer in larger.layers if isinstance(layer, nn.Conv2d)]
    assert widths[-3:] == [64, 64, 64], "32 times the first, and no further"
    generator = ACGANGenerator(spec=spec, num_inputs=110, channels=96, normalization=BatchNorm2d)
    assert generator.shape == (384, 4, 4)
    assert [m.out_channels for m in generator.layers if isinstance(m, nn.ConvTranspose2d)] == [192, 96, 3]
    assert generator.layers[0].weight.std().item() == pytest.approx(0.02, rel=0.03)


@pytest.mark.parametrize(
    "layer",
    [nn.Linear(200, 300), nn.Conv2d(30, 40, 5), nn.ConvTranspose2d(30, 40, 4)],
    ids=lambda layer: type(layer).__name__,
)
def test_initial_values(layer: nn.Module) -> None:
    initialize_normal(nn.Sequential(layer), std=0.02)
    assert layer.weight.std().item() == pytest.approx(0.02, rel=0.03)
    assert torch.equal(layer.bias, torch.zeros_like(layer.bias))
    initialize_xavier(nn.Sequential(layer))
    receptive = layer.weight[0, 0].numel()
    bound = (6 / (receptive * (layer.weight.shape[0] + layer.weight.shape[1]))) ** 0.5
    assert layer.weight.abs().max().item() == pytest.approx(bound, rel=0.01)
    assert layer.weight.std().item() == pytest.approx(bound / 3**0.5, rel=0.03)
    assert torch.equal(layer.bias, torch.zeros_like(layer.bias))


def test_xavier_values_reach_the_fully_connected_networks() -> None:
    for network in (
        GENERATORS["mlp"](spec=mnist(), num_inputs=96, hidden=[300, 200], **PLAIN),
        DISCRIMINATORS["mlp"](spec=mnist(), num_conditions=0, hidden=[300, 200]),
    ):
        for layer in network.modules():
            if isinstance(layer, nn.Linear):
                bound = (6 / (layer.in_features + layer.out_features)) ** 0.5
                assert layer.weight.abs().max().item() == pytest.approx(bound, rel=0.01)
                assert not layer.bias.any()


def test_batch_norm_without_gain_shifts_and_never_scales() -> None:
    layer = BatchNorm1dWithoutGain(3)
    assert [name for name, _ in layer.named_parameters()] == ["bias"]
    x = 4 * torch.randn(50, 3) + 2
    with torch.no_grad():
        layer.bias.copy_(torch.tensor([0.0, 1.0, -2.0]))
    expected = (x - x.mean(0)) / x.std(0, correction=0) + layer.bias
    torch.testing.assert_close(layer(x), expected, rtol=1e-4, atol=1e-4)


def test_a_hidden_layer_of_dcgan_is_normalised_per_unit() -> None:
    make = functools.partial(DISCRIMINATORS["dcgan"], num_hidden=5, leak=0.0)
    network = make(spec=make_spec(), num_conditions=0)
    seen: list[torch.Tensor] = []
    network.layers[-2].register_forward_hook(lambda _, __, output: seen.append(output.flatten(1)))
    features = network(torch.randn(40, 1, 4, 4), torch.empty(40, 0))
    assert network.num_features == 5
    torch.testing.assert_close(features.flatten(1), seen[0].relu())
    torch.testing.assert_close(seen[0].mean(0), torch.zeros(5), atol=1e-5, rtol=0)
    assert seen[0].std(0).min() > 0.5
    assert seen[0].std(0).max() < 1.1


def test_conditions_become_constant_channels() -> None:
    images = torch.rand(2, 3, 4, 5).contiguous(memory_format=torch.channels_last)
    conditions = torch.tensor([[1.0, 0.0], [0.5, 2.0]])
    joined = with_planes(images, conditions)
    assert joined.is_contiguous(memory_format=torch.channels_last)
    assert torch.equal(joined[:, :3], images)
    assert torch.equal(joined[1, 4], torch.full((4, 5), 2.0))
    assert joined.shape == (2, 5, 4, 5)
    assert with_planes(images, torch.empty(2, 0)) is images


def test_noise_stands_before_every_layer_in_training_alone_and_leaves_the_matched_features_clean() -> None:
    noise = {"input_noise": 0.3, "hidden_noise": 0.5}
    network = DISCRIMINATORS["mlp"](spec=make_spec(), num_conditions=0, hidden=[8, 7, 6], leak=0.0, **noise)
    layers = list(network.layers)
    noisy = [layer.std for layer in layers if isinstance(layer, GaussianNoiseLayer)]
    assert noisy == [0.3, 0.5, 0.5]
    assert isinstance(layers[-1], nn.LeakyReLU)
    images = torch.rand(2, 1, 4, 4)
    empty = torch.empty(2, 0)
    assert not torch.equal(network(images, empty), network(images, empty))
    network.eval()
    assert torch.equal(network(images, empty), network(images, empty))
    assert network.output_noise == 0.5
    added = GaussianNoiseLayer(0.3)(torch.zeros(100_000))
    assert added.std().item() == pytest.approx(0.3, rel=0.02)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: GENERATORS["mlp"](spec=make_spec(), num_inputs=3, hidden=[]), "generator.hidden must list at least"),
        (lambda: GENERATORS["mlp"](spec=make_spec(), num_inputs=3, hidden=[4, 0]), "generator.hidden must be an int"),
        (
            lambda: DISCRIMINATORS["mlp"](spec=make_spec(), num_conditions=0, hidden=[]),
            "discriminator.hidden must list at least one width",
        ),
        (lambda: DISCRIMINATORS["mlp"](spec=make_spec(), num_conditions=0, leak=1.0), "discriminator.leak must be"),
        (
            lambda: DISCRIMINATORS["mlp"](spec=make_spec(), num_conditions=0, input_noise=-1.0),
            "discriminator.input_noise must be",
        ),
        (lambda: GENERATORS["dcgan"](spec=make_spec(), num_inputs=3, channels=0), "generator.channels must be"),
        (lambda: DISCRIMINATORS["dcgan"](spec=make_spec(), num_conditions=0, leak=-0.1), "discriminator.leak must be"),
        (lambda: GENERATORS["resnet"](spec=make_spec(), num_inputs=3, channels=1), "generator.channels must be"),
        (
            lambda: GENERATORS["resnet"](spec=mnist(num_classes=0), num_inputs=3, class_conditional=True),
            "class_conditional must be false for a generator without classes",
        ),
        (
            lambda: GENERATORS["resnet"](
                spec=mnist(num_classes=2), num_inputs=3, class_conditional=True, normalization=None
            ),
            "class_conditional must be false without batch normalisation",
        ),
        (
            lambda: GENERATORS["resnet"](
                spec=mnist(num_classes=2),
                num_inputs=3,
                class_conditional=True,
                normalization=functools.partial(nn.GroupNorm, 1),
            ),
            "class_conditional must be false without batch normalisation",
        ),
        (
            lambda: GENERATORS["resnet"](spec=mnist(), num_inputs=3, attention_side=8),
            r"generator\.attention_side must be null or the smaller side of a map: 14, 28, got 8",
        ),
        (
            lambda: DISCRIMINATORS["resnet"](spec=mnist(), num_conditions=0, num_plain_blocks=-1),
            "num_plain_blocks must be",
        ),
    ],
)
def test_arguments_out_of_range_are_refused(make: Callable[[], object], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        make()


def test_the_gradient_of_flattened_maps_lies_as_the_maps_do() -> None:
    maps = torch.randn(2, 3, 4, 5).contiguous(memory_format=torch.channels_last).requires_grad_()
    orders: list[bool] = []
    inner = maps * 1  # the hook of `flattened` comes first
    vectors = flattened(inner)
    assert torch.equal(vectors, maps.reshape(2, -1))
    inner.register_hook(  # type: ignore[no-untyped-call]
        lambda gradient: orders.append(gradient.is_contiguous(memory_format=torch.channels_last))
    )
    weights = torch.randn(2, 60)
    (gradient,) = torch.autograd.grad((vectors * weights).sum(), maps)
    assert orders == [True]
    assert torch.equal(gradient, weights.view(2, 3, 4, 5))
    assert torch.autograd.gradgradcheck(lambda x: flattened(x * x), maps.detach().double().requires_grad_())
