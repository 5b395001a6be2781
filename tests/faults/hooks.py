"""Hooks that run in a process of genlab before it starts: faults at a chosen instant, and records of events.

Each is called in the process itself (:func:`tests.faults.harness.fork`), several by way of `together`.
"""

import hashlib
import json
import os
import signal
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from types import TracebackType
from typing import Any

from genlab.data.dataset import BatchStream
from genlab.launch import resumption
from genlab.models.draw.draw import DRAW
from genlab.run import checkpoint
from genlab.run.checkpoint import CheckpointFolder
from genlab.training import run, trainer
from genlab.training.signals import StopRequest
from genlab.types import Batch

Hook = Callable[[], object]


def together(*hooks: Hook) -> None:
    """All of them, in order."""
    for hook in hooks:
        hook()


def without_reader() -> int:
    """Open a pipe that nobody reads."""
    reading, writing = os.pipe()
    os.close(reading)
    return writing


def vanished_terminal() -> int:
    """Open a terminal that is gone."""
    controller, side = os.openpty()
    os.close(controller)
    return side


def full_disk() -> int:
    """Open a file that takes nothing."""
    return os.open("/dev/full", os.O_WRONLY)


def output_to(opened: Callable[[], int]) -> None:
    """Write the standard output and error there."""
    for number in (1, 2):
        os.dup2(opened(), number)


def before_step(step: int, act: Callable[[], object]) -> None:
    """Act once, before the training step of this number is computed, when so many are done."""
    batch = BatchStream.batch_from
    is_done = False

    def watched(self: BatchStream, start: int) -> Batch:
        nonlocal is_done
        index = start // self.batch_size
        if index == step and not is_done:
            is_done = True
            act()
        return batch(self, start)

    BatchStream.batch_from = watched  # type: ignore[method-assign]


def before_evaluation(act: Callable[[], object]) -> None:
    """Act before each pass over a split."""
    average = run.averages_of_split

    def watched(*arguments: Any, **settings: Any) -> Any:
        act()
        return average(*arguments, **settings)

    run.averages_of_split = watched


def before_pictures(act: Callable[[], object]) -> None:
    """Act before the pictures of training are drawn."""
    visualize = DRAW.visualize

    def watched(*arguments: Any, **settings: Any) -> Any:
        act()
        return visualize(*arguments, **settings)

    DRAW.visualize = watched  # type: ignore[method-assign]


def note_time(path: Path) -> None:
    """Write down the reading of a clock that all processes of the machine share."""
    path.write_text(repr(time.monotonic()), encoding="utf-8")


def signalled_at(step: int, number: int, *, to_group: bool = False, note: Path | None = None) -> None:
    """Get a signal in the middle of a step, after which so many steps are done; its time may be noted."""
    before_step(step - 1, lambda: _signal(number, to_group=to_group, note=note))


def _signal(number: int, *, to_group: bool, note: Path | None) -> None:
    if note is not None:
        note_time(note)
    (os.killpg if to_group else os.kill)(os.getpid(), number)


def witnessed(record: Path) -> None:
    """Note the index, the images chosen and the content of every training batch, in the order of delivery."""
    batch = BatchStream.batch_from
    file = record.open("a", encoding="utf-8", buffering=1)  # a line at a time, for a kill must not lose one

    def watched(self: BatchStream, start: int) -> Batch:
        index = start // self.batch_size
        delivered = batch(self, start)
        digest = hashlib.sha256(delivered.images.numpy().tobytes() + delivered.labels.numpy().tobytes()).hexdigest()
        file.write(json.dumps([index, self._indices(start).tolist(), digest]) + "\n")
        return delivered

    BatchStream.batch_from = watched  # type: ignore[method-assign]


def stalled_after(num_steps: int) -> None:
    """Stand still after so many steps of this process, until it is killed."""
    batch = BatchStream.batch_from
    first: int | None = None

    def watched(self: BatchStream, start: int) -> Batch:
        nonlocal first
        index = start // self.batch_size
        first = index if first is None else first
        while index >= first + num_steps:
            time.sleep(60)
        return batch(self, start)

    BatchStream.batch_from = watched  # type: ignore[method-assign]


def at_point_of_saving(number: int, act: Callable[[], object]) -> None:
    """Act once, at a point of the writing of checkpoints, counted from 1 over the life of the process.

    There is a point after every quarter of a file's bytes has reached the operating system, before every rename and
    every fsync, and after the last of them.
    """
    is_of_checkpoints: dict[int, bool] = {}  # by file descriptor
    left = number

    def pass_point() -> None:
        nonlocal left
        left -= 1
        if left == 0:
            act()

    class Piecewise:
        def __init__(self, file: Any) -> None:
            self._file = file
            is_of_checkpoints[file.fileno()] = True

        def write(self, content: Any) -> int:
            view = memoryview(content)
            size = max(len(view) // 4, 1)
            for start in range(0, len(view), size):
                self._file.write(view[start : start + size])
                self._file.flush()
                pass_point()
            return len(view)

        def __getattr__(self, name: str) -> Any:
            return getattr(self._file, name)

        def __enter__(self) -> "Piecewise":
            return self

        def __exit__(self, *_: type[BaseException] | BaseException | TracebackType | None) -> None:
            is_of_checkpoints.pop(self._file.fileno(), None)
            self._file.close()

    open_path, replace, fsync = Path.open, Path.replace, os.fsync

    def open_piecewise(self: Path, mode: str = "r", *arguments: Any, **options: Any) -> Any:
        file = open_path(self, mode, *arguments, **options)
        return Piecewise(file) if mode == "wb" and self.parent.name == "checkpoints" else file

    def replace_watched(self: Path, target: Path) -> Path:
        if self.parent.name == "checkpoints":
            pass_point()
        moved = replace(self, target)
        if self.parent.name == "checkpoints":
            pass_point()
        return moved

    def fsync_watched(descriptor: int) -> None:
        if is_of_checkpoints.get(descriptor):
            pass_point()
        fsync(descriptor)

    Path.open, Path.replace, os.fsync = open_piecewise, replace_watched, fsync_watched  # type: ignore[assignment,method-assign]


def signalled_in_saving(point: int, *numbers: int, to_group: bool = False, note: Path | None = None) -> None:
    """Get signals, one after the other, at a point of the writing of checkpoints; the last one's time may be noted."""

    def signal_all() -> None:
        for number in numbers:
            _signal(number, to_group=to_group, note=note)
            time.sleep(0.1)  # for its handler to run, before the next is sent

    at_point_of_saving(point, signal_all)


def killed_in_saving(number: int) -> None:
    """Get SIGKILL at a point of the writing of checkpoints."""
    at_point_of_saving(number, lambda: os.kill(os.getpid(), signal.SIGKILL))


def saving_plainly() -> None:
    """Overwrite the only checkpoint in place, as many trainers do: a control that must fail."""

    def write(path: Path, *parts: bytes | memoryview, previous: Path | None = None) -> None:
        with path.open("wb") as file:
            for part in parts:
                file.write(part)

    checkpoint.replace_atomically = write  # type: ignore[attr-defined]


def saving_slowly(seconds: float) -> None:
    """Every save takes its time, wrong here: who has sent a signal may not wait so long before killing."""
    save_last = CheckpointFolder.save_last

    def save_late(self: CheckpointFolder, *arguments: Any, **settings: Any) -> None:
        time.sleep(seconds)
        save_last(self, *arguments, **settings)

    CheckpointFolder.save_last = save_late  # type: ignore[method-assign]


def listening_to_nothing() -> None:
    """Signals as Python has them, wrong here: SIGTERM ends a process at once, and an interruption at any line."""

    @contextmanager
    def listen() -> Iterator[StopRequest]:
        yield StopRequest(lambda: "")

    trainer.listen_for_signals = listen


def believing_every_checkpoint() -> None:
    """A checkpoint is taken for whole when safetensors reads it, wrong here: it does not notice a flipped bit."""
    checkpoint.is_intact = lambda _: True  # type: ignore[attr-defined]


def in_the_past(seconds: float) -> None:
    """The clock has been put back."""
    now = time.time
    time.time = lambda: now() - seconds


def seeded_once() -> None:
    """The usual loop, wrong here: randomness runs on from the start of the process, not from the step's number."""
    trainer.seed_training_step = lambda *_: None


def beginning_anew_in_any_case() -> None:
    """A resumption without a checkpoint is a fresh start, wrong here: what became of the checkpoints is not asked."""
    resumption.never_saved = lambda _: True
