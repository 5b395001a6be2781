"""A stand-in for CUDA graphs on the CPU, so that what is recorded and replayed can be tested without a GPU.

As on the device, a recording changes nothing: what it writes to is put back. As there, a replay runs the operations of
the recording over the same memory, whatever Python would do by then; and a recording fails where the host reads a value
or where a shape depends on one.
"""

from collections.abc import Callable, Mapping, Sequence
from typing import Any, TypeVar

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from genlab.graphs import CudaGraphs

_T = TypeVar("_T")
_Call = Callable[[], None]


class RecordedGraphs(CudaGraphs):
    """Records operations, and repeats them."""

    def __init__(self) -> None:
        self.num_recorded = 0
        self.num_replays = 0

    def warm_up(self, work: Callable[[], _T]) -> _T:
        return work()

    def find_wait(self, work: Callable[[], _T]) -> tuple[_T, str | None]:
        with _Recording(is_strict=False) as recording:
            result = work()
        return result, recording.first_wait

    def record(self, work: Callable[[], _T]) -> tuple[_T, Callable[[], None]]:
        random_state = torch.get_rng_state()
        with _Recording(is_strict=True) as recording:
            result = work()
        recording.put_back()
        torch.set_rng_state(random_state)
        self.num_recorded += 1

        def replay() -> None:
            self.num_replays += 1
            with torch.no_grad():
                for call in recording.calls:
                    call()

        return result, replay


class _Recording(TorchDispatchMode):
    def __init__(self, *, is_strict: bool) -> None:
        super().__init__()
        self.calls: list[_Call] = []
        self.first_wait: str | None = None
        self._is_strict = is_strict
        self._own: dict[int, Tensor] = {}  # storages made in the recording; held, so that no address comes twice
        self._before: dict[int, tuple[Tensor, Tensor]] = {}

    def put_back(self) -> None:
        """Undo what was written to memory from outside of the recording."""
        with torch.no_grad():
            for whole, before in self._before.values():
                whole.copy_(before)

    def __torch_dispatch__(
        self, func: Any, types: Any, args: Sequence[Any] = (), kwargs: Mapping[str, Any] | None = None
    ) -> Any:
        kwargs = kwargs or {}
        if _waits(func, args):
            self.first_wait = self.first_wait or f"{func} waits for the device"
            if self._is_strict:
                raise RuntimeError(f"{func} waits for the device")
        if not self._is_strict:
            return func(*args, **kwargs)
        for tensor in _written(func, args, kwargs):
            self._keep(tensor)
        result = func(*args, **kwargs)
        is_alias = any(value.alias_info is not None for value in func._schema.returns)
        fresh = [] if is_alias else _tensors(result)
        for tensor in fresh:
            self._own[_address(tensor)] = tensor
        is_view = is_alias and not func._schema.is_mutable
        if not is_view and not func.__name__.startswith(("empty", "new_empty", "empty_like")):
            self.calls.append(_call(func, args, kwargs, fresh))
        return result

    def _keep(self, tensor: Tensor) -> None:
        address = _address(tensor)
        if address in self._own or address in self._before:
            return
        storage = tensor.untyped_storage()
        whole = torch.empty(0, dtype=torch.uint8).set_(storage, 0, (storage.nbytes(),))  # type: ignore[call-overload]
        self._before[address] = (whole, whole.clone())


def _call(func: Any, args: Sequence[Any], kwargs: Mapping[str, Any], fresh: list[Tensor]) -> _Call:
    args = tuple(list(argument) if isinstance(argument, list) else argument for argument in args)
    overwritten = tuple(fresh or _written(func, args, kwargs))

    def call() -> None:
        with torch.autograd._unsafe_preserve_version_counter(overwritten):  # autograd sees no replay
            result = func(*args, **kwargs)
            for tensor, value in zip(fresh, _tensors(result), strict=bool(fresh)):
                tensor.copy_(value)

    return call


def _waits(func: Any, args: Sequence[Any]) -> bool:
    name = func.__name__.partition(".")[0]
    # lift_fresh is torch.tensor(...): on a device, a copy that the host waits for.
    if name in ("_local_scalar_dense", "nonzero", "masked_select", "equal", "is_nonzero", "_unique2", "lift_fresh"):
        return True
    indices = args[1] if name in ("index", "index_put_") else ()
    return any(isinstance(index, Tensor) and index.dtype == torch.bool for index in indices)


def _written(func: Any, args: Sequence[Any], kwargs: Mapping[str, Any]) -> list[Tensor]:
    written: list[Any] = []
    for position, argument in enumerate(func._schema.arguments):
        value = args[position] if position < len(args) else kwargs.get(argument.name)
        is_statistic = "batch_norm" in func.__name__ and argument.name in ("running_mean", "running_var")
        if is_statistic or (argument.alias_info is not None and argument.alias_info.is_write):
            written += tree_leaves(value)
    return _tensors(written)


def _tensors(tree: Any) -> list[Tensor]:
    return [leaf for leaf in tree_leaves(tree) if isinstance(leaf, Tensor)]


def _address(tensor: Tensor) -> int:
    return tensor.untyped_storage()._cdata
