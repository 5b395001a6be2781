"""Weight normalisation, its initialisation from data, and what shifted convolutions see."""

import pytest
import torch
from torch import nn

from genlab.nn.shifted import WeightNormConv2d, WeightNormUpsample2d, data_dependent_initialization


@pytest.mark.parametrize(
    "layer", [WeightNormConv2d(3, 5, (2, 3), padding=(1, 1)), WeightNormUpsample2d(3, 5, 3)], ids=["conv", "upsample"]
)
def test_norm_of_the_weight_is_the_gain(layer):
    layer.gain.data.uniform_(0.5, 2)
    per_output = layer.weight() if isinstance(layer, WeightNormConv2d) else layer.weight().transpose(0, 1)
    torch.testing.assert_close(per_output.flatten(1).norm(dim=1), layer.gain.detach())


@pytest.mark.parametrize("kind", [WeightNormConv2d, WeightNormUpsample2d])
def test_directions_begin_with_the_deviation_of_the_papers_program(kind):
    """The weight does not depend on their length; how far a step of the optimiser turns them does."""
    layer = kind(40, 50, (2, 3) if kind is WeightNormConv2d else 3)
    assert layer.direction.std().item() == pytest.approx(0.05, rel=0.05)


def test_initialization_normalises_every_layer_on_the_given_batch():
    network = nn.Sequential(
        WeightNormConv2d(2, 6, (2, 3), padding=(1, 1)),
        nn.ELU(),
        WeightNormUpsample2d(6, 5, 2),
        nn.ELU(),
        WeightNormConv2d(5, 4, initial_scale=0.1),
    )
    x = 3 + 2 * torch.randn(8, 2, 6, 6)
    with data_dependent_initialization(network):
        initialized = network(x)
    for index, scale in ((0, 1.0), (2, 1.0), (4, 0.1)):
        y = network[: index + 1](x)
        assert y.mean((0, 2, 3)).abs().max() < 1e-5
        torch.testing.assert_close(y.std((0, 2, 3)), torch.full((y.shape[1],), scale), atol=1e-5, rtol=1e-4)
    torch.testing.assert_close(initialized, network(x), atol=1e-5, rtol=1e-4)


def test_initialization_leaves_the_scale_of_a_constant_channel():
    """On a grid of one row, the stream that sees the rows above sees padding alone: its layers give their bias."""
    layer = WeightNormConv2d(2, 3, (2, 3), padding=(2, 1), initial_scale=0.5)
    blind = torch.zeros(8, 2, 1, 4)
    with data_dependent_initialization(layer):
        layer(blind)
    assert layer.gain.tolist() == [0.5] * 3
    assert (layer(blind) == 0).all()


@pytest.mark.parametrize(("num_columns", "columns"), [(2, [2, 3]), (3, [1, 2, 3])])
def test_upsampling_reaches_no_row_but_its_two(num_columns, columns):
    layer = WeightNormUpsample2d(1, 1, num_columns)
    x = torch.zeros(1, 1, 3, 3)
    touched = x.clone()
    touched[0, 0, 1, 1] = 1
    reached = (layer(touched) - layer(x))[0, 0].ne(0)
    assert reached.shape == (6, 6)
    assert reached.any(1).nonzero().flatten().tolist() == [2, 3]
    assert reached.any(0).nonzero().flatten().tolist() == columns
