"""A configuration and weights that do not belong together, or were made to fill the memory."""

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import nn

from genlab.errors import CheckpointError
from genlab.models.base import Model
from genlab.training.fitting import MAX_PARTS, blueprint, require_fitting


class Layers(Model):
    """Linear layers, one after the other."""

    def __init__(self, *, width: int = 8, num_layers: int = 2, make: Callable[..., nn.Module] = nn.Linear) -> None:
        super().__init__()
        self.layers = nn.Sequential()
        for index in range(num_layers):
            self.layers.append(make(width, width) if index else nn.Linear(4, width))

    def phases(self) -> Any: ...

    def evaluate(self, batch: Any) -> Any: ...


def num_bytes(model: nn.Module) -> int:
    return sum(value.numel() * value.element_size() for value in model.state_dict().values())


def test_a_blueprint_has_the_names_and_shapes_and_none_of_the_memory() -> None:
    model = Layers()
    draft = blueprint(Layers, num_bytes=num_bytes(model))
    assert all(parameter.is_meta for parameter in draft.parameters())
    require_fitting(model.state_dict(), draft)
    assert next(Layers().parameters()).device.type == "cpu"  # outside, models are made as ever


@pytest.mark.parametrize(
    ("sizes", "message"),
    [
        ({"width": 10**5}, r"at weight it has \d+ parts and 40,002,000,000 bytes, more than the checkpoint can hold"),
        ({"width": 10**19}, "cannot be one of 448 bytes"),
        ({"num_layers": 10**9}, f"it has {MAX_PARTS + 1:,} parts"),
        ({"num_layers": 10**9, "make": lambda *_: nn.ReLU()}, f"it has {MAX_PARTS + 1:,} parts"),
    ],
    ids=["wide", "wider than torch can count", "deep", "deep without weights"],
)
def test_a_model_that_the_weights_cannot_be_of_is_refused_before_it_takes_memory(
    sizes: dict[str, Any], message: str
) -> None:
    with pytest.raises(CheckpointError, match=message):
        blueprint(lambda: Layers(**sizes), num_bytes=num_bytes(Layers()))
    assert Layers().layers[0].weight.shape == (8, 4)  # nothing is counted any more


def test_the_first_differences_are_named() -> None:
    weights = Layers(width=16, num_layers=3).state_dict()
    with pytest.raises(CheckpointError) as caught:
        require_fitting(weights, Layers())
    assert str(caught.value) == (
        "the checkpoint belongs to another model: layers.0.weight (float32 [16x4] in the checkpoint, float32 [8x4] in "
        "the model), layers.0.bias (float32 [16] in the checkpoint, float32 [8] in the model), layers.1.weight "
        "(float32 [16x16] in the checkpoint, float32 [8x8] in the model) and 3 more"
    )
    with pytest.raises(CheckpointError, match=r"layers\.1\.weight \(nothing in the checkpoint"):
        require_fitting(Layers(num_layers=1).state_dict(), Layers())
    with pytest.raises(CheckpointError, match=r"float64 \[8x4\] in the checkpoint"):
        require_fitting(Layers().to(torch.float64).state_dict(), Layers())
