"""The compatibility check of a checkpoint: of its weights with the model, and of its other state with the run."""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager

import torch
from torch import Tensor, nn

from genlab.errors import CheckpointError
from genlab.models.base import Model
from genlab.training.phases import some_of


def require_compatible(weights: Mapping[str, Tensor], model: nn.Module) -> None:
    """Require that weights have the names, shapes and types of a model.

    Raises:
        CheckpointError: The weights belong to another model; the first differences are named.
    """
    saved, own = _described(weights), _described(model.state_dict())
    differing = [
        f"{name} ({saved.get(name, 'nothing')} in the checkpoint, {own.get(name, 'nothing')} in the model)"
        for name in {**own, **saved}
        if saved.get(name) != own.get(name)
    ]
    if differing:
        raise CheckpointError(f"the checkpoint belongs to another model: {some_of(differing)}")


def compatible_part(weights: Mapping[str, Tensor], model: Model) -> tuple[dict[str, Tensor], list[str]]:
    """Return the weights of another training that are compatible with a model, and a line for each other name.

    Buffers that count the steps of that training (:attr:`Model.training_counts`) are left out of both.
    """
    saved, own = _described(weights), _described(model.state_dict())
    names = [name for name in {**own, **saved} if not name.startswith(model.training_counts)]
    compatible = {name: weights[name] for name in names if saved.get(name) == own.get(name)}
    others = [
        f"{name} ({saved.get(name, 'nothing')} there, {own.get(name, 'nothing')} here)"
        for name in names
        if name not in compatible
    ]
    return compatible, others


@contextmanager
def incompatible_refused() -> Iterator[None]:
    """Turn errors while a checkpoint is restored into a :class:`CheckpointError`.

    Raises:
        CheckpointError: An entry is missing, or has another type or shape than in this run.
    """
    try:
        yield
    except (CheckpointError, torch.OutOfMemoryError):
        raise
    except (KeyError, ValueError, TypeError, AttributeError, IndexError, RuntimeError, OverflowError) as error:
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise CheckpointError(f"the checkpoint is incompatible with this run: {reason}") from error


def _described(state: Mapping[str, Tensor]) -> dict[str, str]:
    return {
        name: f"{str(value.dtype).removeprefix('torch.')} {list(value.shape)}".replace(", ", "x")
        for name, value in state.items()
    }
