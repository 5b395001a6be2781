"""Collectives over the processes of one run; in a single process they cost nothing and change nothing.

Several processes train as one: with the same batch over all of them, the same noise for each of its images and the
same statistics of it, a step gives the weights that one process would get, to the rounding of sums. Process r of W
has the rows r, r + W, r + 2 W, ... of a batch, so that the labelled images at the head of one are spread over all.

A model that treats each image by itself, with noise from torch's default generators, needs nothing of this module: each
process draws numbers of its own. One whose noise shall be that of one process with the whole batch takes
:func:`draw_rows`; one that draws what must be equal on all ranks, such as a permutation of the pixels, does so in
:func:`same_draws`; one whose loss is more than a mean over all rows takes :func:`mean_over_processes` or
:func:`gather_rows`. These act together while a training step runs (:func:`one_batch`) and each process for itself
elsewhere. All processes hold equally many rows.

One that draws images takes :func:`share_rows` for what it computes of their noise: where all processes draw the same
images (:func:`shared_work`), each draws some of them.

Dimensions: W processes, B rows of this process, N rows of all.
"""

import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import torch
import torch.distributed as dist
from jaxtyping import Float, Num
from torch import Generator, Tensor

from genlab.errors import ProcessHungError, ProcessLostError


class Process:
    """The rank of this process in its run, and the state of its collective contexts."""

    def __init__(self) -> None:
        self.is_one_batch = False
        self.is_shared_work = False
        self.is_alone = False
        self.same_draws: Mapping[torch.device, Generator] = {}
        """By device: generators that are in the same state on all ranks, beside the default ones of each rank."""
        self.is_drawing_same = False

    def num_processes(self) -> int:
        """Return the number W of processes; 1 outside of a distributed run."""
        return dist.get_world_size() if dist.is_initialized() else 1

    def rank(self) -> int:
        """Return the rank of this process, from 0."""
        return dist.get_rank() if dist.is_initialized() else 0

    def sum_in_place(self, values: Tensor) -> None:
        """Sum a contiguous tensor over the processes."""
        with lost_process_errors():
            dist.all_reduce(values)


_here = Process()


def set_process(process: Process) -> Process:
    """Set the process for which this thread acts, where several are simulated in one.

    Returns:
        The previous one.
    """
    global _here
    before, _here = _here, process
    return before


def num_processes() -> int:
    """Return the number W of processes; 1 outside of a distributed run."""
    return 1 if _here.is_alone else _here.num_processes()


def rank() -> int:
    """Return the rank of this process, from 0."""
    return 0 if num_processes() == 1 else _here.rank()


def is_first() -> bool:
    """Return True if this is rank 0, which writes files and reports to the user."""
    return rank() == 0


@contextmanager
def alone() -> Iterator[None]:
    """Run the block as if there were no other processes, for example to train a classifier within a run."""
    before, _here.is_alone = _here.is_alone, True
    try:
        yield
    finally:
        _here.is_alone = before


@contextmanager
def one_batch() -> Iterator[None]:
    """Treat the rows of all processes as one batch; all ranks must enter this context, in the same order."""
    before, _here.is_one_batch = _here.is_one_batch, num_processes() > 1
    try:
        yield
    finally:
        _here.is_one_batch = before


def is_one_batch() -> bool:
    """Return True if the rows of other processes belong to the current batch."""
    return _here.is_one_batch


def seed_same_draws(seed: int, devices: Iterable[torch.device]) -> None:
    """Seed the generators of :func:`same_draws`, with the same seed on all ranks."""
    _here.same_draws = {device: Generator(device).manual_seed(seed) for device in devices}


@contextmanager
def same_draws() -> Iterator[None]:
    """Let the default generators draw the same numbers on all ranks of a training step.

    Outside of this context each rank draws numbers of its own. All ranks must enter it equally often, and draw
    equally much. In a single process, and outside of a training step, nothing changes.
    """
    if not _here.is_one_batch or _here.is_drawing_same:
        yield
        return
    pairs = [(_default_generator(device), same) for device, same in _here.same_draws.items()]
    own_states = [default.get_state() for default, _ in pairs]
    for default, same in pairs:
        default.set_state(same.get_state())
    _here.is_drawing_same = True
    try:
        yield
    finally:
        _here.is_drawing_same = False
        for (default, same), own_state in zip(pairs, own_states, strict=True):
            same.set_state(default.get_state())
            default.set_state(own_state)


def is_drawing_same() -> bool:
    """Return True if the default generators currently draw the same numbers on all ranks."""
    return _here.is_drawing_same


def _default_generator(device: torch.device) -> Generator:
    return torch.cuda.default_generators[device.index] if device.type == "cuda" else torch.default_generator


def draw_rows(draw: Callable[[int], Tensor], num_rows: int, *, dim: int = 0) -> Tensor:
    """Return noise for the rows of this process: every process draws that of the whole batch and keeps its own part.

    A batch then has the noise that it has in a single process, at the cost of drawing W times as much.

    Args:
        draw: Returns the noise of a number of rows.
        num_rows: B.
        dim: Of the result, along which the rows lie.
    """
    if not _here.is_one_batch:
        return draw(num_rows)
    with same_draws():
        noise = draw(num_rows * num_processes())
    own = torch.arange(rank(), num_rows * num_processes(), num_processes(), device=noise.device)
    return noise.index_select(dim, own)


def mean_over_processes(values: Num[Tensor, "*shape"]) -> Num[Tensor, "*shape"]:
    """Return the average of a value over processes, the same on all ranks; twice differentiable."""
    if not _here.is_one_batch:
        return values
    mean: Tensor = _Sum.apply(values) / num_processes()
    return mean


def gather_rows(values: Float[Tensor, "B ..."]) -> Float[Tensor, "rows ..."]:
    """Return the W B rows of all processes, those of rank 0 first; twice differentiable."""
    if not _here.is_one_batch:
        return values
    before, after = (num * len(values) for num in (rank(), num_processes() - 1 - rank()))
    padding = [values.new_zeros(num, *values.shape[1:]) for num in (before, after)]
    # Zeros for the rows of others, then a sum: one way through the network, and through its derivatives, for all.
    gathered: Tensor = _Sum.apply(torch.cat((padding[0], values, padding[1])))
    return gathered


@contextmanager
def shared_work() -> Iterator[None]:
    """Divide work that all processes compute alike; all ranks must enter, with the same inputs and noise."""
    before, _here.is_shared_work = _here.is_shared_work, num_processes() > 1
    try:
        yield
    finally:
        _here.is_shared_work = before


def share_rows(compute: Callable[[slice], Num[Tensor, "B ..."]], num_rows: int) -> Num[Tensor, "N ..."]:
    """Return the results of a computation on independent rows, divided among processes; without a derivative.

    Args:
        compute: Returns the results of some of the rows.
        num_rows: N.

    Raises:
        ProcessLostError: Another process died, or did not answer in time.
    """
    num = num_processes()
    if not _here.is_shared_work or num_rows < num:
        return compute(slice(num_rows))
    first, last = (process * num_rows // num for process in (rank(), rank() + 1))
    own = compute(slice(first, last))
    rows = own.new_zeros(num_rows, *own.shape[1:])
    rows[first:last] = own
    sum_in_place(rows)
    return rows


class _Sum(torch.autograd.Function):
    """Sum over processes. The gradient of each input is the sum of the gradients of all results."""

    @staticmethod
    def forward(ctx: Any, values: Tensor) -> Tensor:
        del ctx
        copy = values.clone(memory_format=torch.contiguous_format)
        sum_in_place(copy)
        return copy

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> Tensor:
        del ctx
        summed: Tensor = _Sum.apply(gradients[0])
        return summed


def sum_in_place(values: Tensor) -> None:
    """Sum a contiguous tensor over the processes; without a derivative.

    Raises:
        ProcessLostError: Another process died, or did not answer in time.
    """
    _here.sum_in_place(values)


@contextmanager
def lost_process_errors() -> Iterator[None]:
    """Convert the errors of a broken connection to one type.

    Raises:
        ProcessHungError: Another process did not answer in time.
        ProcessLostError: Another process died.
    """
    try:
        yield
    except (RuntimeError, ValueError) as error:
        first = str(error).splitlines()[0] if str(error) else type(error).__name__
        reason = re.sub(r"^\[\S+\] ", "", first).partition(". ")[0]  # without gloo's line of code and its advice
        if re.search("timed? ?out", reason, re.IGNORECASE):
            raise ProcessHungError(f"another process of the run did not answer in time ({reason})") from error
        raise ProcessLostError(f"another process of the run is gone ({reason})") from error
