"""The compatibility check of a checkpoint: are its weights of this model, and the rest of its state of this run?"""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager

import torch
from torch import Tensor, nn

from genlab.errors import CheckpointError
from genlab.models.base import Model

_MAX_NAMED = 3


def require_compatible(weights: Mapping[str, Tensor], model: nn.Module) -> None:
    """Compare names, shapes and types.

    Raises:
        CheckpointError: They are of another model; the first differences are named.
    """
    saved, own = _described(weights), _described(model.state_dict())
    differing = [name for name in {**own, **saved} if saved.get(name) != own.get(name)]
    if differing:
        named = [
            f"{name} ({saved.get(name, 'nothing')} in the checkpoint, {own.get(name, 'nothing')} in the model)"
            for name in differing[:_MAX_NAMED]
        ]
        more = f" and {len(differing) - _MAX_NAMED} more" if len(differing) > _MAX_NAMED else ""
        raise CheckpointError(f"the checkpoint belongs to another model: {', '.join(named)}{more}")


def compatible_part(weights: Mapping[str, Tensor], model: Model) -> tuple[dict[str, Tensor], list[str]]:
    """Return the weights of another training that fit a model, and what does not fit, or is not there, by name.

    What counts the steps of that training (:attr:`Model.training_counts`) is left out of both.
    """
    saved, own = _described(weights), _described(model.state_dict())
    names = [name for name in {**own, **saved} if not name.startswith(model.training_counts)]
    fitting = {name: weights[name] for name in names if saved.get(name) == own.get(name)}
    others = [f"{name} ({saved.get(name, 'nothing')} there, {own.get(name, 'nothing')} here)" for name in names]
    return fitting, [line for name, line in zip(names, others, strict=True) if name not in fitting]


@contextmanager
def incompatible_refused() -> Iterator[None]:
    """Take over what a checkpoint keeps; whatever its reader stumbles over is the checkpoint's fault.

    Raises:
        CheckpointError: Something is missing, or of another kind or shape than in this run.
    """
    try:
        yield
    except (CheckpointError, torch.OutOfMemoryError):
        raise
    except (KeyError, ValueError, TypeError, AttributeError, IndexError, RuntimeError, OverflowError) as error:
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise CheckpointError(f"the checkpoint does not fit this run: {reason}") from error


def _described(state: Mapping[str, Tensor]) -> dict[str, str]:
    return {
        name: f"{str(value.dtype).removeprefix('torch.')} {list(value.shape)}".replace(", ", "x")
        for name, value in state.items()
    }
