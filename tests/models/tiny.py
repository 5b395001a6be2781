"""Models small enough to be measured by brute force, and that of their gradients by finite differences."""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

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
def randomize(model: nn.Module, scale: float) -> None:
    """Give every parameter, zeros too, a value that matters."""
    for parameter in model.parameters():
        parameter.add_(scale * torch.randn_like(parameter))


def num_parameters(module: nn.Module) -> int:
    return sum(parameter.numel() for parameter in module.parameters())


def assert_slope(
    compute: Callable[[], Tensor],
    name: str,
    parameter: Tensor,
    *,
    step: float = 1e-6,
    rtol: float = 1e-5,
    atol: float = 1e-8,
) -> Tensor:
    """Compare the gradient of a parameter with finite differences along a random direction; return their slope."""
    assert parameter.grad is not None, name
    direction, values = torch.randn_like(parameter), []
    for sign in (1, -2):
        with torch.no_grad():
            parameter += sign * step * direction
        values.append(compute().detach())
    with torch.no_grad():
        parameter += step * direction
    slope = (values[0] - values[1]) / (2 * step)
    torch.testing.assert_close((parameter.grad * direction).sum(), slope, rtol=rtol, atol=atol, msg=name)
    return slope
