"""The compiler of torch, whose import takes two seconds and 150 MB, and which only compiled runs need."""

import functools
import sys
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from typing import Any

import torch
from torch.optim import Optimizer

_EXCLUDED = ("add_param_group", "load_state_dict", "state_dict", "zero_grad")
"""Methods of an optimiser that torch excludes from compilation, importing the compiler at their first call."""
_BREAKING = "_use_grad"
"""The wrapper of an optimiser's step that imports the compiler to break a graph in two."""


def is_imported() -> bool:
    """Return True if anything in this process may be compiled."""
    return "torch._dynamo" in sys.modules


def uncompiled() -> AbstractContextManager[object]:
    """Run compiled modules eagerly in the context."""
    if not is_imported():
        return nullcontext()
    stance: AbstractContextManager[object] = torch.compiler.set_stance("force_eager")
    return stance


def keep_out_of_optimizers(kind: type[Optimizer]) -> None:
    """Let optimisers be made and stepped without the import of the compiler; what they compute does not change.

    It replaces wrappers of torch's that matter to a compiled optimiser. In a version of torch that has others, the
    import merely happens.
    """
    if is_imported():
        return
    for name in _EXCLUDED:
        method = getattr(getattr(Optimizer, name), "__wrapped__", None)
        if method is not None:
            method.__dict__.setdefault("__dynamo_disable", method)
    for owner in kind.__mro__:
        step: Any = owner.__dict__.get("step")
        if getattr(step, "hooked", False):  # an optimiser of this kind was made before; torch hooks it again
            step = step.__wrapped__
        if getattr(getattr(step, "__code__", None), "co_name", None) == _BREAKING:
            owner.step = _without_gradients(step.__wrapped__)  # type: ignore[attr-defined]


def _without_gradients(step: Callable[..., Any]) -> Callable[..., Any]:
    @functools.wraps(step)
    def stepped(optimizer: Optimizer, *arguments: Any, **named: Any) -> Any:
        with torch.set_grad_enabled(optimizer.defaults["differentiable"]):
            return step(optimizer, *arguments, **named)

    return stepped
