"""What is done to a process of genlab before it starts: faults that come at a chosen instant, and witnesses.

Each is called in the process itself (:func:`tests.faults.harness.fork`), several by way of `together`.
"""

import hashlib
import json
import os
from collections.abc import Callable
from pathlib import Path

from genlab.data.dataset import BatchStream
from genlab.training import trainer
from genlab.types import Batch

Hook = Callable[[], object]


def together(*hooks: Hook) -> None:
    """All of them, in order."""
    for hook in hooks:
        hook()


def before_step(step: int, act: Callable[[], object]) -> None:
    """Act once, before the training step of this number is computed, when so many are done."""
    batch = BatchStream.batch
    is_done = False

    def watched(self: BatchStream, index: int) -> Batch:
        nonlocal is_done
        if index == step and not is_done:
            is_done = True
            act()
        return batch(self, index)

    BatchStream.batch = watched  # type: ignore[method-assign]


def signalled_at(step: int, number: int) -> None:
    """Get a signal in the middle of a step, after which so many steps are done."""
    before_step(step - 1, lambda: os.kill(os.getpid(), number))


def witnessed(record: Path) -> None:
    """Note the index, the images chosen and the content of every training batch, in the order of delivery."""
    batch = BatchStream.batch
    file = record.open("a", encoding="utf-8", buffering=1)  # a line at a time, for a kill must not lose one

    def watched(self: BatchStream, index: int) -> Batch:
        delivered = batch(self, index)
        digest = hashlib.sha256(delivered.images.numpy().tobytes() + delivered.labels.numpy().tobytes()).hexdigest()
        file.write(json.dumps([index, self._indices(index).tolist(), digest]) + "\n")
        return delivered

    BatchStream.batch = watched  # type: ignore[method-assign]


def seeded_once() -> None:
    """The usual loop, wrong here: randomness runs on from the start of the process, not from the step's number."""
    trainer.seed_default_generators = lambda *_: None
