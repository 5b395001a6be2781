"""A weight as a length times a direction, and its start from the data."""

import pytest
import torch
from torch import nn

from genlab.nn.weight_norm import data_dependent_initialization, normalize_weight, scale_of


@pytest.mark.parametrize("learns_scale", [False, True])
@pytest.mark.parametrize("is_convolution", [False, True])
def test_a_fixed_length_is_kept_by_training_and_a_learned_one_is_not(is_convolution: bool, learns_scale: bool) -> None:
    layer, images = (nn.Linear(5, 4), torch.randn(6, 5))
    if is_convolution:
        layer, images = nn.Conv2d(2, 3, 3), torch.randn(6, 2, 4, 4)
    normalize_weight(layer, learns_scale=learns_scale)
    optimizer = torch.optim.SGD(layer.parameters(), lr=0.5)
    for _ in range(3):
        optimizer.zero_grad()
        layer(images).square().mean().backward()
        optimizer.step()
    lengths = layer.weight.detach().flatten(1).norm(dim=1)
    torch.testing.assert_close(lengths, scale_of(layer).detach().abs())
    assert torch.allclose(lengths, torch.ones(len(lengths))) != learns_scale


@pytest.mark.parametrize("bias", [False, True])
def test_the_start_normalises_every_layer_on_the_data(bias: bool) -> None:
    network = nn.Sequential(nn.Linear(5, 7, bias=bias), nn.ReLU(), nn.Linear(7, 3, bias=bias))
    layers = [network[0], network[2]]
    for layer in layers:
        normalize_weight(layer, learns_scale=False, direction_std=3.0)
    x = 2 * torch.randn(40, 5) + 1
    before = network[0](x)
    targets = [(layer, scale_of(layer), std) for layer, std in zip(layers, (1.0, 0.1), strict=True)]
    with data_dependent_initialization(targets):
        network(x)
    hidden = network[0](x)
    outputs = network[2](hidden.relu())
    for values, std in ((hidden, 1.0), (outputs, 0.1)):
        torch.testing.assert_close(values.std(0), torch.full_like(values[0], std))
        assert torch.allclose(values.mean(0), torch.zeros_like(values[0]), atol=1e-5) == bias
    if not bias:
        torch.testing.assert_close(hidden, before / before.std(0))
