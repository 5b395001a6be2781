"""The layers: PyTorch's own in shapes, initial weights, state_dict and training, to the gradient penalty."""

import copy

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from genlab.nn.convolution.layers import (
    ConvolutionLayers,
    ReferenceAvgPool2d,
    ReferenceConv2d,
    ReferenceConvTranspose2d,
    ReferenceMaxPool2d,
    builtin_layers,
    reference_layers,
)

CHOICES = {
    "conv2d": [
        ((3, 5, 3), {}),
        ((2, 4, (3, 2)), {"stride": (2, 1), "padding": (1, 0)}),
        ((2, 4, 4), {"stride": 2, "padding": 1, "bias": False}),
        ((2, 4, 3), {"stride": 3}),
    ],
    "conv_transpose2d": [
        ((3, 5, 3), {}),
        ((2, 4, 4), {"stride": 2, "padding": 1, "bias": False}),
        ((2, 4, (3, 2)), {"stride": (3, 2), "padding": (0, 1), "output_padding": (2, 1)}),
    ],
    "max_pool2d": [((2,), {}), ((3,), {"stride": 2, "padding": 1}), (((2, 3), (3, 1), (1, 0)), {})],
    "avg_pool2d": [((2,), {}), ((3,), {"stride": 2, "padding": 1}), (((2, 3), (3, 1), (1, 0)), {})],
}
CASES = [(kind, arguments, options) for kind, choices in CHOICES.items() for arguments, options in choices]


def pair_of_layers(kind: str, arguments, options) -> list[nn.Module]:
    layers = []
    for family in (builtin_layers(), reference_layers()):
        torch.manual_seed(3)
        layers.append(getattr(family, kind)(*arguments, **options))
        # What is drawn next shows that both took the same from the generator.
        layers[-1].next_draw = torch.rand(4)
    return layers


@pytest.mark.parametrize(("kind", "arguments", "options"), CASES)
def test_layers_equal_those_of_torch(kind, arguments, options):
    builtin, reference = pair_of_layers(kind, arguments, options)
    assert isinstance(reference, type(builtin))
    assert type(reference) is not type(builtin)
    assert torch.equal(builtin.next_draw, reference.next_draw)
    assert list(builtin.state_dict()) == list(reference.state_dict())
    for theirs, ours in zip(builtin.parameters(), reference.parameters(), strict=True):
        assert torch.equal(theirs, ours)
    channels = arguments[0] if "conv" in kind else 2
    results = []
    for layer in (builtin, reference):
        torch.manual_seed(4)
        x = torch.randn(2, channels, 7, 6, requires_grad=True)
        z = layer(x)
        z.backward(torch.randn_like(z))
        results.append([z.detach(), x.grad, *(parameter.grad for parameter in layer.parameters())])
    for theirs, ours in zip(*results, strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("kind", CHOICES)
def test_weights_move_between_the_families(kind):
    builtin, reference = pair_of_layers(kind, *CHOICES[kind][1])
    for parameter in builtin.parameters():
        nn.init.normal_(parameter)
    reference.load_state_dict(builtin.state_dict())
    x = torch.randn(1, 2, 6, 6)
    torch.testing.assert_close(reference(x), builtin(x))


@pytest.mark.parametrize(
    ("layer", "arguments", "options", "message"),
    [
        (ReferenceConv2d, (2, 2, 3), {"dilation": 2}, r"dilation of a reference layer must be \(1, 1\), got \(2, 2\)"),
        (ReferenceConv2d, (2, 2, 3), {"groups": 2}, "groups of a reference layer must be 1, got 2"),
        (ReferenceConv2d, (2, 2, 3), {"padding_mode": "reflect", "padding": 1}, "padding_mode .* must be 'zeros'"),
        (ReferenceConv2d, (2, 2, 3), {"padding": "same"}, "padding .* must be a number of pixels, got 'same'"),
        (ReferenceConvTranspose2d, (2, 2, 3), {"dilation": 2}, "dilation"),
        (ReferenceConvTranspose2d, (2, 2, 3), {"groups": 2}, "groups"),
        (ReferenceMaxPool2d, (3,), {"dilation": 2}, "dilation"),
        (ReferenceMaxPool2d, (3,), {"ceil_mode": True}, "ceil_mode"),
        (ReferenceMaxPool2d, (3,), {"return_indices": True}, "return_indices"),
        (ReferenceMaxPool2d, (3,), {"padding": 2}, r"padding .* must be at most half of kernel_size \(3, 3\)"),
        (ReferenceAvgPool2d, (3,), {"ceil_mode": True}, "ceil_mode"),
        (ReferenceAvgPool2d, (3,), {"count_include_pad": False}, "count_include_pad"),
        (ReferenceAvgPool2d, (3,), {"divisor_override": 5}, "divisor_override .* torch.nn.AvgPool2d supports more"),
    ],
)
def test_what_is_not_derived_is_refused(layer, arguments, options, message):
    with pytest.raises(ValueError, match=message):
        layer(*arguments, **options)


def test_an_output_size_is_refused():
    with pytest.raises(ValueError, match="output_size"):
        ReferenceConvTranspose2d(1, 1, 2, stride=2)(torch.zeros(1, 1, 2, 2), output_size=[5, 5])


# --- Networks.


def generator(layers: ConvolutionLayers) -> nn.Module:
    """A small DCGAN generator: (B, 8, 1, 1) to (B, 1, 8, 8)."""
    return nn.Sequential(
        layers.conv_transpose2d(8, 16, 2, bias=False),
        nn.BatchNorm2d(16),
        nn.ReLU(),
        layers.conv_transpose2d(16, 8, 4, stride=2, padding=1, bias=False),
        nn.BatchNorm2d(8),
        nn.ReLU(),
        layers.conv_transpose2d(8, 1, 4, stride=2, padding=1),
        nn.Tanh(),
    )


def critic(layers: ConvolutionLayers) -> nn.Module:
    """All layers with a gradient of the second order: (B, 1, 8, 8) to (B, 1)."""
    return nn.Sequential(
        layers.conv2d(1, 8, 4, stride=2, padding=1),
        nn.Tanh(),
        layers.conv_transpose2d(8, 8, 3),
        nn.Tanh(),
        layers.max_pool2d(2),
        layers.avg_pool2d(3, stride=1, padding=1),
        layers.conv2d(8, 1, 3),
        nn.Flatten(),
    )


def gradient_penalty(network: nn.Module, x: torch.Tensor) -> torch.Tensor:
    x = x.requires_grad_()
    (gradient,) = torch.autograd.grad(network(x).sum(), x, create_graph=True)
    return (gradient.flatten(1).norm(dim=1) - 1).square().mean()


def test_the_gradient_penalty_trains_the_same():
    builtin = critic(builtin_layers()).double()
    reference = critic(reference_layers()).double()
    reference.load_state_dict(builtin.state_dict())
    x = torch.randn(4, 1, 8, 8, dtype=torch.float64)
    penalties = [gradient_penalty(network, x.clone()) for network in (builtin, reference)]
    torch.testing.assert_close(penalties[1], penalties[0])
    for penalty in penalties:
        penalty.backward()
    for theirs, ours in zip(builtin.parameters(), reference.parameters(), strict=True):
        assert (theirs.grad is None) == (ours.grad is None)
        if theirs.grad is not None:
            torch.testing.assert_close(ours.grad, theirs.grad)


def train_wgan_gp(layers: ConvolutionLayers, num_steps: int) -> list[float]:
    torch.manual_seed(0)
    networks = generator(layers), critic(layers)
    optimizers = [torch.optim.Adam(network.parameters(), lr=2e-4, betas=(0.5, 0.9)) for network in networks]
    generate, judge = networks
    losses = []
    for _ in range(num_steps):
        real = torch.rand(8, 1, 8, 8) * 2 - 1
        fake = generate(torch.randn(8, 8, 1, 1))
        between = torch.lerp(real, fake.detach(), torch.rand(8, 1, 1, 1))
        loss = judge(fake.detach()).mean() - judge(real).mean() + 10 * gradient_penalty(judge, between)
        optimizers[1].zero_grad()
        loss.backward()
        optimizers[1].step()
        generator_loss = -judge(fake).mean()
        optimizers[0].zero_grad()
        generator_loss.backward()
        optimizers[0].step()
        losses += [loss.item(), generator_loss.item()]
    return losses


def test_twenty_steps_of_a_wgan_gp_follow_the_builtin_layers():
    theirs, ours = (train_wgan_gp(layers(), num_steps=20) for layers in (builtin_layers, reference_layers))
    assert len(set(theirs)) == 40
    assert ours == pytest.approx(theirs, rel=1e-4, abs=1e-6)


def test_spectral_norm_wraps_the_layers():
    builtin, reference = pair_of_layers("conv2d", *CHOICES["conv2d"][0])
    wrapped = []
    for layer in (builtin, reference):
        torch.manual_seed(0)
        wrapped.append(nn.utils.parametrizations.spectral_norm(layer))
    x = torch.randn(1, 3, 5, 5)
    torch.testing.assert_close(wrapped[1](x), wrapped[0](x))


@pytest.mark.parametrize("family", [builtin_layers(), reference_layers()], ids=["builtin", "reference"])
def test_bfloat16_autocast(family):
    """As PyTorch's layers: bfloat16 inside, gradients of the weights in their own precision."""
    network = critic(family)
    x = torch.rand(4, 1, 8, 8)
    exact = network(x)
    with torch.autocast("cpu", torch.bfloat16):
        judged = network(x)
        penalty = gradient_penalty(network, x.clone())
    assert judged.dtype == torch.bfloat16
    torch.testing.assert_close(judged.float(), exact, rtol=0.05, atol=0.02)
    (judged.float().sum() + penalty).backward()
    for parameter in network.parameters():
        assert parameter.grad.dtype == torch.float32
        assert parameter.grad.isfinite().all()


def test_autocast_leaves_double_precision_alone():
    layer = ReferenceConv2d(1, 2, 3).double()
    with torch.autocast("cpu", torch.bfloat16):
        assert layer(torch.rand(1, 1, 4, 4, dtype=torch.float64)).dtype == torch.float64


def test_channels_last():
    network = critic(reference_layers())
    x = torch.rand(2, 1, 8, 8)
    last = copy.deepcopy(network).to(memory_format=torch.channels_last)
    theirs, ours = network(x), last(x.to(memory_format=torch.channels_last))
    torch.testing.assert_close(ours, theirs)
    ours.sum().backward()
    theirs.sum().backward()
    for a, b in zip(last.parameters(), network.parameters(), strict=True):
        torch.testing.assert_close(a.grad, b.grad)
    image = torch.rand(2, 3, 6, 6)
    for layer, builtin in ((ReferenceMaxPool2d(2), F.max_pool2d), (ReferenceAvgPool2d(2), F.avg_pool2d)):
        torch.testing.assert_close(layer(image.to(memory_format=torch.channels_last)), builtin(image, 2))


@pytest.mark.gpu
def test_on_a_gpu():
    builtin = critic(builtin_layers()).double()
    reference = critic(reference_layers()).double()
    reference.load_state_dict(builtin.state_dict())
    builtin, reference = builtin.cuda(), reference.cuda()
    x = torch.randn(4, 1, 8, 8, dtype=torch.float64, device="cuda")
    for network in (builtin, reference):
        (gradient_penalty(network, x.clone()) + network(x).sum()).backward()
    for theirs, ours in zip(builtin.parameters(), reference.parameters(), strict=True):
        torch.testing.assert_close(ours.grad, theirs.grad)
    ties = torch.ones(2, 3, 4, 4, device="cuda", requires_grad=True)
    ReferenceMaxPool2d(2)(ties).sum().backward()
    expected = torch.zeros_like(ties)
    expected[:, :, ::2, ::2] = 1
    assert torch.equal(ties.grad, expected)


def test_exchanged_layers_keep_parameters_keys_and_numbers():
    network = critic(builtin_layers()).double()
    images = torch.rand(2, 1, 16, 16, dtype=torch.float64)
    before, weights = network(images), dict(network.named_parameters())
    reference_layers().exchange_in(network)
    assert any(isinstance(layer, ReferenceConv2d) for layer in network.modules())
    assert not any(type(layer) in builtin_layers() for layer in network.modules())
    assert all(parameter is weights[name] for name, parameter in network.named_parameters())
    torch.testing.assert_close(network(images), before)


def test_what_cannot_be_exchanged_is_refused_before_anything_changes():
    covered = nn.Conv2d(1, 1, 3)
    network = nn.Sequential(covered, nn.Conv2d(1, 1, 3, dilation=2))
    with pytest.raises(ValueError, match="dilation of a reference layer"):
        reference_layers().exchange_in(network)
    assert network[0] is covered
    with pytest.raises(ValueError, match="no effect on Sequential, which has no convolution"):
        reference_layers().exchange_in(nn.Sequential(nn.Linear(1, 1)))
