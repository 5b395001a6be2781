"""Whether what was saved is of this model and this run; of weights, told before the model takes memory."""

from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager

import torch
from torch import Tensor, nn
from torch.nn.modules import module as registry

from genlab.errors import CheckpointError
from genlab.models.base import Model

MAX_PARTS = 20_000
"""Modules, parameters and buffers of a model: far more than any has, and little memory for their names."""
_SLACK_BYTES = 2**26
_MAX_NAMED = 3


def blueprint(build: Callable[[], Model], *, num_bytes: int) -> Model:
    """A model without values: it takes no memory, whatever its sizes.

    A configuration that asks for a billion units, or for a billion layers, is stopped where it exceeds what the saved
    weights can hold.

    Args:
        build: Makes the model.
        num_bytes: Size of the weights that it is going to be given.

    Raises:
        CheckpointError: It is larger than these weights, or too large for torch.
    """
    # Masks are as large as what they mask, and a weight that is split in two is registered whole before that.
    limit = 4 * num_bytes + _SLACK_BYTES
    try:
        with _counted(limit), torch.device("meta"):
            return build()
    except (RuntimeError, OverflowError, TypeError) as error:  # what torch says of sizes that it cannot count
        if isinstance(error, CheckpointError):
            raise
        reason = str(error).splitlines()[0]
        raise CheckpointError(f"the configuration's model cannot be one of {num_bytes:,} bytes: {reason}") from error


def require_fitting(weights: Mapping[str, Tensor], model: nn.Module) -> None:
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


@contextmanager
def misfit_refused() -> Iterator[None]:
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


@contextmanager
def _counted(limit: int) -> Iterator[None]:
    """Stop the building of a model when its parts are too many or too large."""
    num_bytes = num_parts = 0

    def count(_: nn.Module, name: str, part: object) -> None:
        nonlocal num_bytes, num_parts
        num_parts += 1
        if isinstance(part, Tensor):
            num_bytes += part.numel() * part.element_size()
        if num_bytes > limit or num_parts > MAX_PARTS:
            raise CheckpointError(
                f"the configuration's model is not that of the checkpoint: at {name} it has {num_parts:,} parts and "
                f"{num_bytes:,} bytes, more than the checkpoint can hold"
            )

    with ExitStack() as hooks:
        for register in (
            registry.register_module_parameter_registration_hook,
            registry.register_module_buffer_registration_hook,
            registry.register_module_module_registration_hook,
        ):
            hooks.callback(register(count).remove)
        yield
