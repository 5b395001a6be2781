"""Weights that are not those of a model."""

from typing import Any

import pytest
import torch
from torch import nn

from genlab.errors import CheckpointError
from genlab.models.base import Model
from genlab.training.compatibility import require_compatible


class Layers(Model):
    """Linear layers, one after the other."""

    def __init__(self, *, width: int = 8, num_layers: int = 2) -> None:
        super().__init__()
        self.layers = nn.Sequential()
        for index in range(num_layers):
            self.layers.append(nn.Linear(width if index else 4, width))

    def phases(self) -> Any: ...

    def evaluate(self, batch: Any) -> Any: ...


def test_the_first_differences_are_named() -> None:
    weights = Layers(width=16, num_layers=3).state_dict()
    with pytest.raises(CheckpointError) as caught:
        require_compatible(weights, Layers())
    assert str(caught.value) == (
        "the checkpoint belongs to another model: layers.0.weight (float32 [16x4] in the checkpoint, float32 [8x4] in "
        "the model), layers.0.bias (float32 [16] in the checkpoint, float32 [8] in the model), layers.1.weight "
        "(float32 [16x16] in the checkpoint, float32 [8x8] in the model) and 3 more"
    )
    with pytest.raises(CheckpointError, match=r"layers\.1\.weight \(nothing in the checkpoint"):
        require_compatible(Layers(num_layers=1).state_dict(), Layers())
    with pytest.raises(CheckpointError, match=r"float64 \[8x4\] in the checkpoint"):
        require_compatible(Layers().to(torch.float64).state_dict(), Layers())
