"""What the processes of one run do together; in a single process every function here is free and changes nothing.

Several processes train as one: with the same batch over all of them, the same noise for each of its images and the
same statistics of it, a step gives the weights that one process would get, to the rounding of sums. Process r of W
holds the rows r, r + W, r + 2 W, ... of a batch, so that the labelled images at the head of one are spread over all.

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
from jaxtyping import Float, Int, Num
from torch import Generator, Tensor

from genlab.errors import ProcessHungError, ProcessLostError


class Process:
    """The place of this process in its run, and what it is doing together with the others."""

    def __init__(self) -> None:
        self.is_one_batch = False
        self.is_shared_work = False
        self.is_alone = False
        self.same_draws: Mapping[torch.device, Generator] = {}
        """By device: generators that are in the same state on all ranks, beside the default ones of each rank."""
        self.is_drawing_same = False

    def num_processes(self) -> int:
        """W; 1 outside of a run of several processes."""
        return dist.get_world_size() if dist.is_initialized() else 1

    def rank(self) -> int:
        """The number of this process, from 0."""
        return dist.get_rank() if dist.is_initialized() else 0

    def sum_in_place(self, values: Tensor) -> None:
        """Sum a contiguous tensor over the processes."""
        with told_of_lost_processes():
            dist.all_reduce(values)


_here = Process()


def set_process(process: Process) -> Process:
    """Let this thread of control stand for another process of a run, where several are simulated in one.

    Returns:
        What it stood for before.
    """
    global _here
    before, _here = _here, process
    return before


def num_processes() -> int:
    """W; 1 outside of a run of several processes."""
    return 1 if _here.is_alone else _here.num_processes()


def rank() -> int:
    """Which of them this one is, from 0."""
    return 0 if num_processes() == 1 else _here.rank()


def is_first() -> bool:
    """Whether this is the process that writes files and speaks for all."""
    return rank() == 0


@contextmanager
def alone() -> Iterator[None]:
    """Let this process act as if there were no others, as for a training of its own within a run."""
    before, _here.is_alone = _here.is_alone, True
    try:
        yield
    finally:
        _here.is_alone = before


@contextmanager
def one_batch() -> Iterator[None]:
    """Let the rows that the processes hold count as one batch; all of them must come here, and in the same order."""
    before, _here.is_one_batch = _here.is_one_batch, num_processes() > 1
    try:
        yield
    finally:
        _here.is_one_batch = before


def is_one_batch() -> bool:
    """Whether the rows of other processes belong to the batch now."""
    return _here.is_one_batch


def seed_same_draws(seed: int, devices: Iterable[torch.device]) -> None:
    """Seed the generators of :func:`same_draws`, with the same seed on all ranks."""
    _here.same_draws = {device: Generator(device).manual_seed(seed) for device in devices}


@contextmanager
def same_draws() -> Iterator[None]:
    """Let the default generators draw the same numbers on all ranks of a training step.

    Outside of this context each rank draws numbers of its own. All ranks must come here equally often, and draw
    equally much. In a single process, and outside of a training step, nothing changes.
    """
    if not _here.is_one_batch or _here.is_drawing_same:
        yield
        return
    own = {device: generator.get_state() for device, generator in _default_generators(_here.same_draws)}
    for device, generator in _default_generators(_here.same_draws):
        generator.set_state(_here.same_draws[device].get_state())
    _here.is_drawing_same = True
    try:
        yield
    finally:
        _here.is_drawing_same = False
        for device, generator in _default_generators(_here.same_draws):
            _here.same_draws[device].set_state(generator.get_state())
            generator.set_state(own[device])


def is_drawing_same() -> bool:
    """Whether the default generators draw the same numbers on all ranks now."""
    return _here.is_drawing_same


def _default_generators(devices: Iterable[torch.device]) -> Iterator[tuple[torch.device, Generator]]:
    for device in devices:
        is_cuda = device.type == "cuda"
        yield device, torch.cuda.default_generators[device.index] if is_cuda else torch.default_generator


def draw_rows(draw: Callable[[int], Tensor], num_rows: int, *, dim: int = 0) -> Tensor:
    """Noise for the rows of this process: every process draws that of the whole batch and keeps its own part.

    A batch has then the noise that it has in one process, at the cost of drawing W times as much.

    Args:
        draw: Gives the noise of so many rows.
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
    """The average of the processes' values, the same in all of them; differentiable, twice."""
    if not _here.is_one_batch:
        return values
    mean: Tensor = _Sum.apply(values) / num_processes()
    return mean


def gather_rows(values: Float[Tensor, "B ..."]) -> Float[Tensor, "rows ..."]:
    """The rows of all processes, W B of them, those of process 0 first; differentiable, twice."""
    if not _here.is_one_batch:
        return values
    before, after = (num * len(values) for num in (rank(), num_processes() - 1 - rank()))
    padding = [values.new_zeros(num, *values.shape[1:]) for num in (before, after)]
    # Zeros for the rows of others, then a sum: one way through the network, and through its derivatives, for all.
    gathered: Tensor = _Sum.apply(torch.cat((padding[0], values, padding[1])))
    return gathered


@contextmanager
def shared_work() -> Iterator[None]:
    """Let the processes divide what all of them compute alike; all must come here, with the same inputs and noise."""
    before, _here.is_shared_work = _here.is_shared_work, num_processes() > 1
    try:
        yield
    finally:
        _here.is_shared_work = before


def share_rows(compute: Callable[[slice], Num[Tensor, "B ..."]], num_rows: int) -> Num[Tensor, "N ..."]:
    """What is computed of rows that do not depend on one another; without a derivative.

    Args:
        compute: Gives the results of some of the rows.
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


def is_same_everywhere(number: Int[Tensor, ""]) -> bool:
    """Whether the processes agree on a number; a read on the host."""
    if not _here.is_one_batch:
        return True
    moments = torch.stack((number, number * number)).double()
    sum_in_place(moments)
    return bool(moments[0].square() == num_processes() * moments[1])


class _Sum(torch.autograd.Function):
    """Sum over processes. Each process's result depends on all inputs alike, hence so does each input's gradient."""

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
def told_of_lost_processes() -> Iterator[None]:
    """Give the many errors of a broken connection one name.

    Raises:
        ProcessHungError: Another process did not answer in time.
        ProcessLostError: Another process died.
    """
    try:
        yield
    except (RuntimeError, ValueError) as error:
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        if re.search("timed? ?out", reason, re.IGNORECASE):
            raise ProcessHungError(f"another process of the run did not answer in time ({reason})") from error
        raise ProcessLostError(f"another process of the run is gone ({reason})") from error
