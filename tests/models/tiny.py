"""DRAW models small enough to be measured by brute force."""

from typing import Any

import torch

from genlab.models.draw.attention import AttentionBias
from genlab.models.draw.draw import DRAW
from genlab.types import UNLABELLED, Batch, ImageSpec


def make_spec(**changes: int) -> ImageSpec:
    facts = {"channels": 1, "height": 4, "width": 4, "num_levels": 2, "num_classes": 0}
    return ImageSpec(**(facts | changes))


def make_draw(spec: ImageSpec | None = None, *, kind: type[DRAW] = DRAW, **changes: Any) -> DRAW:
    settings = {
        "num_glimpses": 3,
        "num_units": 5,
        "latent_size": 2,
        "read_size": 2,
        "write_size": 3,
        "read_bias": AttentionBias(0.0, 0.0, 0.0),
        "write_bias": AttentionBias(0.0, 0.0, -0.5),
        "forget_bias": 1.0,
        "learned_states": True,
        "initial_canvas": "learned",
        "observation": None,
    }
    return kind(spec or make_spec(), **(settings | changes))


def make_batch(spec: ImageSpec, size: int, *, dtype: torch.dtype = torch.float32) -> Batch:
    levels = torch.randint(spec.num_levels, (size, spec.channels, spec.height, spec.width))
    labels = torch.randint(spec.num_classes, (size,)) if spec.num_classes else torch.full((size,), UNLABELLED)
    return Batch(images=levels.to(dtype) / (spec.num_levels - 1), labels=labels)


@torch.no_grad()
def randomize(model: torch.nn.Module, scale: float) -> None:
    """Give every parameter, zeros too, a value that matters."""
    for parameter in model.parameters():
        parameter.add_(scale * torch.randn_like(parameter))
