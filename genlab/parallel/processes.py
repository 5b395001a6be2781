"""The process group of one run, as torchrun starts it: initialisation, host collectives, and shutdown.

torch.distributed is the engine, over gloo between CPUs and NCCL between CUDA devices. Models are not wrapped: the names
of their state do not change.
"""

import os
import signal
import sys
import threading
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from datetime import timedelta
from itertools import islice
from typing import Any, TypeVar

import torch
import torch.distributed as dist
from torch import Tensor

from genlab.errors import ConfigurationError, ProcessLostError
from genlab.numerics import make_explicit
from genlab.parallel.collectives import alone, is_first, lost_process_errors, num_processes, rank, sum_in_place
from genlab.parallel.place import TO_RUN_ALONE, Place, this_place
from genlab.signals import handling

_Item = TypeVar("_Item")
_Result = TypeVar("_Result")

TIMEOUT_VARIABLE = "GENLAB_TIMEOUT_SECONDS"
_TIMEOUT_SECONDS = 600.0
"""Seconds after which a process that others wait for counts as hung."""
_PATIENCE = timedelta(days=7)
"""Time limit for work that one rank does before the others, such as a download."""
_SECONDS_BEFORE_TELLING = 10.0
_hosts: Any = None
"""Process group over host memory, whose messages do not synchronise the accelerator."""
_waiting_room: Any = None


@contextmanager
def joined(device: torch.device, *, is_patient: bool = False) -> Iterator[None]:
    """Join the process group that torchrun has started; do nothing in a single process.

    Args:
        device: Of the run, and of this process if a machine has several.
        is_patient: True if one rank's share of the work may take hours, which never happens in training.

    Raises:
        ConfigurationError: The device does not support several processes, or the time limit is invalid.
        ProcessLostError: The other processes did not join.
    """
    if _place() is None or dist.is_initialized():
        yield
        return
    if device.type not in ("cpu", "cuda"):
        raise ConfigurationError(f"device must be cpu or cuda for several processes, got {device.type}")
    global _hosts, _waiting_room
    timeout = _PATIENCE if is_patient else _timeout()
    if device.type == "cuda":
        torch.cuda.set_device(device)
    with _meeting(), lost_process_errors():
        dist.init_process_group("nccl" if device.type == "cuda" else "gloo", timeout=timeout)
        _hosts = dist.new_group(backend="gloo", timeout=timeout)
        _waiting_room = dist.new_group(backend="gloo", timeout=_PATIENCE)
    try:
        yield
    finally:
        _hosts = _waiting_room = None
        dist.destroy_process_group()


@contextmanager
def _meeting() -> Iterator[None]:
    """Let signals end this process while it waits for the others: torch ignores them there.

    Variables that no launcher of torch's has set may be stale, so a message names the processes that it waits for.

    Raises:
        ConfigurationError: No process joined with such variables.
    """
    place = _place()
    assert place is not None
    where = f"{os.environ['MASTER_ADDR']}:{os.environ['MASTER_PORT']}"
    account = f"RANK={place.rank} and WORLD_SIZE={place.num_processes} announce other processes at {where}"
    is_of_torch = "TORCHELASTIC_RUN_ID" in os.environ
    # In the background of a shell an interruption is ignored.
    stopping = [n for n in (signal.SIGINT, signal.SIGTERM) if signal.getsignal(n) is not signal.SIG_IGN]

    def tell() -> None:
        if not is_of_torch:
            print(f"genlab: {account}: waiting for them; {TO_RUN_ALONE}", file=sys.__stderr__, flush=True)

    telling = threading.Timer(_SECONDS_BEFORE_TELLING, tell)
    telling.daemon = True
    telling.start()
    try:
        with handling({number: signal.SIG_DFL for number in stopping}):
            yield
    except ProcessLostError as error:
        if is_of_torch:
            raise
        raise ConfigurationError(f"{account}, which did not connect; {TO_RUN_ALONE}") from error
    finally:
        telling.cancel()


def own_device(device: torch.device) -> torch.device:
    """Return the device of this process and set its arithmetic; each process of a machine takes its own CUDA device.

    Raises:
        ConfigurationError: There are fewer devices than processes, or a device with a number was asked for.
    """
    make_explicit(device)
    place = _place()
    is_alone = dist.is_initialized() and num_processes() == 1  # a training within a run, on the device of the run
    if device.type != "cuda" or place is None or is_alone:
        return device
    if str(device) != "cuda":
        raise ConfigurationError(f"device must be cuda for several processes, each of which takes one, got {device}")
    if place.local_rank >= torch.cuda.device_count():
        raise ConfigurationError(
            "device=cuda needs a CUDA device for each process of this machine, and it has "
            f"{torch.cuda.device_count()}: start fewer processes, or set device=cpu"
        )
    return torch.device("cuda", place.local_rank)


def _place() -> Place | None:
    """Return the rank of this process; None without other processes."""
    place = this_place()
    return None if place is None or place.num_processes == 1 else place


def _timeout() -> timedelta:
    text = os.environ.get(TIMEOUT_VARIABLE, str(_TIMEOUT_SECONDS))
    try:
        seconds = float(text)
    except ValueError:
        seconds = 0.0
    if not 0 < seconds <= _PATIENCE.total_seconds():
        raise ConfigurationError(f"{TIMEOUT_VARIABLE} must be a positive number of seconds, at most a week, got {text}")
    return timedelta(seconds=seconds)


def wait_for_all() -> None:
    """Wait until all ranks have arrived, without a time limit.

    Raises:
        ProcessLostError: Another process died.
    """
    if num_processes() > 1:
        with lost_process_errors():
            dist.barrier(group=_waiting_room)


@contextmanager
def first_before_others() -> Iterator[None]:
    """Run the block on rank 0, then on the others, each as if alone, so that the others find the files of rank 0.

    Raises:
        ProcessLostError: The first process died.
    """
    if not is_first():
        wait_for_all()
    with alone():
        yield
    if is_first():
        wait_for_all()


def average(tensors: Sequence[Tensor]) -> None:
    """Replace tensors by their averages over processes, in one message for each type of numbers.

    Raises:
        ProcessLostError: Another process died, or did not answer in time.
    """
    for dtype in dict.fromkeys(tensor.dtype for tensor in tensors):
        group = [tensor for tensor in tensors if tensor.dtype == dtype]
        message = torch.cat([tensor.reshape(-1) for tensor in group])
        sum_in_place(message)
        message /= num_processes()
        pieces = torch.split(message, [tensor.numel() for tensor in group])
        averages = [piece.view(tensor.shape) for piece, tensor in zip(pieces, group, strict=True)]
        torch._foreach_copy_(group, averages)


def broadcast(tensors: Iterable[Tensor]) -> None:
    """Broadcast the values of rank 0."""
    if num_processes() > 1:
        with torch.no_grad(), lost_process_errors():
            for tensor in tensors:
                message = tensor.contiguous()
                dist.broadcast(message, src=0)
                tensor.copy_(message)


def largest(values: Sequence[int]) -> list[int]:
    """Return the elementwise maximum over all ranks.

    Raises:
        ProcessLostError: Another process died, or did not answer in time.
    """
    if num_processes() == 1:
        return list(values)
    largest_values = torch.tensor(values, dtype=torch.int64)
    with lost_process_errors():
        dist.all_reduce(largest_values, op=dist.ReduceOp.MAX, group=_hosts)
    found: list[int] = largest_values.tolist()
    return found


def gathered(values: object) -> list[Any]:
    """Return the plain value of each process, in the order of ranks.

    Raises:
        ProcessLostError: Another process died, or did not answer in time.
    """
    if num_processes() == 1:
        return [values]
    found: list[Any] = [None] * num_processes()
    with lost_process_errors():
        dist.all_gather_object(found, values, group=_hosts)
    return found


def dealt(items: Iterable[_Item], compute: Callable[[_Item], _Result]) -> list[_Result]:
    """Return the result of each item, computed on the host: ranks take items in turn, and all get all results.

    Args:
        items: The same ones in every process.
        compute: Returns plain data, or tensors on the CPU.

    Raises:
        ProcessLostError: Another process died, or did not answer in time.
    """
    return in_turn(gathered([compute(item) for item in islice(items, rank(), None, num_processes())]))


def in_turn(shares: Sequence[Sequence[_Result]]) -> list[_Result]:
    """Return the results of all ranks in the order of the items."""
    return [share[turn] for turn in range(len(shares[0])) for share in shares if turn < len(share)]
