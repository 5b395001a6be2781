"""Self-attention against loops over positions, and twice differentiable."""

import torch
from torch import Tensor

from genlab.nn.self_attention import SelfAttention


def make() -> tuple[SelfAttention, Tensor]:
    torch.manual_seed(0)
    layer = SelfAttention(16).double()
    return layer, torch.randn(2, 16, 2, 3, dtype=torch.float64)


def test_it_begins_as_the_identity_and_has_the_papers_channels() -> None:
    layer, x = make()
    assert torch.equal(layer(x), x)
    assert [layer.query.out_channels, layer.key.out_channels, layer.value.out_channels] == [2, 2, 8]


def test_each_position_adds_the_weighted_values_of_all() -> None:
    layer, x = make()
    with torch.no_grad():
        layer.residual_weight.fill_(0.7)
    f, g, h = (part(x).flatten(2) for part in (layer.key, layer.query, layer.value))
    attended = torch.zeros(2, 8, 6, dtype=torch.float64)
    for image in range(2):
        for j in range(6):
            energies = [(f[image, :, i] * g[image, :, j]).sum() for i in range(6)]
            total = sum(energy.exp() for energy in energies)
            attended[image, :, j] = sum(energies[i].exp() / total * h[image, :, i] for i in range(6))
    expected = x + 0.7 * layer.output(attended.unflatten(2, (2, 3)))
    torch.testing.assert_close(layer(x), expected)


def test_it_has_exact_second_derivatives() -> None:
    """Gradient penalties differentiate a gradient."""
    layer, x = make()
    with torch.no_grad():
        layer.residual_weight.fill_(0.7)
    assert torch.autograd.gradgradcheck(layer, x[:1, :, :1, :2].clone().requires_grad_(True))
