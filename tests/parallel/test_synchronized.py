"""Batch normalisation on two simulated ranks against PyTorch's on the whole batch."""

import copy

import pytest
import torch
from torch import Tensor, nn

from genlab.checks.ranks import SimulatedRanks
from genlab.parallel.collectives import one_batch
from genlab.parallel.synchronized import synchronize_layers

State = dict[str, Tensor]


@pytest.mark.parametrize("momentum", [0.3, None])
def test_ranks_normalise_their_rows_as_those_of_one_batch(momentum: float | None) -> None:
    """Ranks whose rows differ in the mean, a large epsilon, few values: every term is seen."""
    whole = torch.randn(4, 3, 2, 1) + torch.tensor([0.0, 2.0]).repeat(2).view(-1, 1, 1, 1)
    layer = nn.BatchNorm2d(3, momentum=momentum, eps=0.1)
    nn.init.uniform_(layer.weight)
    nn.init.uniform_(layer.bias)

    def task(rank: int) -> tuple[list[Tensor], State]:
        own = copy.deepcopy(layer)
        synchronize_layers(own)
        with one_batch():
            return [own(images[rank::2]) for images in (whole, 3 * whole)], own.state_dict()

    found = SimulatedRanks[tuple[list[Tensor], State]](2).run(task)
    expected = [layer(images) for images in (whole, 3 * whole)]
    for rank, (outputs, state) in enumerate(found):
        torch.testing.assert_close(outputs, [images[rank::2] for images in expected])
        torch.testing.assert_close(state, dict(layer.state_dict()))
