"""Real processes of genlab on tiny runs, to be killed, starved and lied to."""

import contextlib
import json
import multiprocessing
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import Any

import safetensors
import safetensors.torch
import torch

from genlab.checks.training import differences, scalars
from genlab.run.checkpoint import LAST, CheckpointFolder

_COMMON = (
    *("dataset.size=8", "device=cpu", "num_threads=1", "trainer.batch_size=16", "trainer.test_at_end=false"),
    *("trainer.num_steps=40", "trainer.log_interval=5", "trainer.checkpoint_interval=5", "trainer.sample_interval=0"),
    *("trainer.validation_interval=20", "trainer.validation_images=32", "trainer.ema_decay=0.9", "schedule=linear"),
    "trainer.compile=false",  # runs without an end would earn it back
)
TINY = {
    "draw": (
        *("model=draw", "model.num_glimpses=2", "model.num_units=16", "dataset=digits_grey"),
        *("dataset.binarization=stochastic", "trainer.gradient_accumulation=2", *_COMMON),
    ),
    "gan": (*("model=dcgan", "technique=[virtual_batch_norm,historical_averaging,spectral_normalization]", *_COMMON),),
    "gated_pixelcnn": ("model=gated_pixelcnn", *_COMMON),
}
"""The words of ``genlab train`` for a run of seconds of each family: 40 steps, 16 images of 8x8 each."""


def environment(**variables: str) -> dict[str, str]:
    """This process's environment, one thread, with some variables set."""
    return {**os.environ, "OMP_NUM_THREADS": "1", **variables}


def start(*words: str, folder: Path | None = None, **variables: str) -> subprocess.Popen[str]:
    """Start ``genlab WORDS`` in a process group of its own.

    Args:
        words: The line after the program's name.
        folder: The run folder of ``train``.
        variables: Set in the environment of the process.
    """
    place = [] if folder is None else [f"hydra.run.dir={folder}"]
    return subprocess.Popen(
        [sys.executable, "-m", "genlab", *words, *place],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
        env=environment(**variables),
    )


def run(
    *words: str, folder: Path | None = None, timeout: float = 120, **variables: str
) -> subprocess.CompletedProcess[str]:
    """Run ``genlab WORDS`` to its end, as `start` starts it."""
    process = start(*words, folder=folder, **variables)
    try:
        output, errors = process.communicate(timeout=timeout)
    except subprocess.TimeoutExpired:
        process.kill()
        raise
    return subprocess.CompletedProcess(process.args, process.returncode, output, errors)


_SERVER = multiprocessing.get_context("forkserver")
_SERVER.set_forkserver_preload(["genlab.train", "hydra.main", "sklearn.datasets", "torch.utils.tensorboard"])


@dataclass(frozen=True)
class Forked:
    """A process of genlab and what it says."""

    process: BaseProcess
    output: Path
    errors: Path

    @property
    def pid(self) -> int:
        assert self.process.pid is not None
        return self.process.pid

    def send(self, number: int) -> None:
        """Send a signal to the process; one that has ended gets none."""
        with contextlib.suppress(ProcessLookupError):
            os.kill(self.pid, number)

    def wait(self, timeout: float = 300) -> subprocess.CompletedProcess[str]:
        """Wait for the end; a process that does not come to one is killed."""
        self.process.join(timeout)
        if self.process.exitcode is None:
            self.send(signal.SIGKILL)
            raise subprocess.TimeoutExpired("genlab", timeout)
        code = self.process.exitcode
        return subprocess.CompletedProcess("genlab", code, self.output.read_text(), self.errors.read_text())

    def succeed(self) -> subprocess.CompletedProcess[str]:
        """Wait for the end, and assert that it is a success."""
        ended = self.wait()
        assert ended.returncode == 0, ended.stderr
        return ended


def fork(
    *words: str,
    folder: Path,
    hook: Callable[[], object] | None = None,
    names_folder: bool = True,
    **variables: str,
) -> Forked:
    """Start ``genlab train WORDS`` as `start` does, from a server that has imported everything and done nothing.

    The import is most of what a tiny run costs, and one server pays it for all processes.

    Args:
        words: The line after ``train``.
        folder: The run folder; with ``resume=`` among the words, that of the run.
        hook: Called in the process before genlab; one of :mod:`tests.faults.hooks`, for it is sent there.
        names_folder: True if the command line names the run folder; else genlab does; `folder` names the outputs.
        variables: Set in the environment of the process.
    """
    is_new = names_folder and not any(word.startswith("resume=") for word in words)
    place = [f"hydra.run.dir={folder}"] if is_new else []
    output, errors = folder.with_name(f"{folder.name}.stdout"), folder.with_name(f"{folder.name}.stderr")
    arguments = (("train", *words, *place), hook, output, errors, {"OMP_NUM_THREADS": "1", **variables})
    process = _SERVER.Process(target=_run_forked, args=arguments, daemon=True)
    process.start()
    return Forked(process, output, errors)


def _run_forked(
    words: Sequence[str], hook: Callable[[], object] | None, output: Path, errors: Path, variables: dict[str, str]
) -> None:
    os.setsid()
    signal.signal(signal.SIGHUP, signal.SIG_DFL)  # under nohup it would be ignored
    os.environ.update(variables)
    for number, path in ((1, output), (2, errors)):
        with path.open("wb") as file:
            os.dup2(file.fileno(), number)
    if hook is not None:
        hook()
    from genlab.cli import main

    raise SystemExit(main(words))


def resume(folder: Path, *words: str, hook: Callable[[], object] | None = None, **variables: str) -> Forked:
    """Start ``genlab train resume=FOLDER WORDS`` as `fork` does."""
    return fork(f"resume={folder}", *words, folder=folder, hook=hook, **variables)


def assert_runs_equal(ours: Path, theirs: Path) -> None:
    """Weights, average, optimisers, schedule, logged scalars and summary equal to the last bit, times aside."""
    kept = {path.name for folder in (ours, theirs) for path in (folder / "checkpoints").glob("*.safetensors")}
    for name in kept - {"previous.safetensors"}:  # of the step before a stop in one run, of the interval in the other
        assert differences(checkpoint_of(ours, name), checkpoint_of(theirs, name)) == []
    assert scalars(ours) == scalars(theirs)
    first, second = (json.loads((folder / "summary.json").read_text(encoding="utf-8")) for folder in (ours, theirs))
    for summary in (first, second):
        del summary["seconds"]
    assert first == second


def seconds_since(note: Path) -> float:
    """Time since a process wrote it down (:func:`tests.faults.hooks.note_time`)."""
    return time.monotonic() - float(note.read_text(encoding="utf-8"))


def strays_of(folder: Path) -> list[Path]:
    """Temporary files that a run has left."""
    return sorted(path for path in folder.rglob("*") if path.name.endswith((".tmp", ".part")))


def checkpoint_of(folder: Path, name: str = LAST) -> dict[str, Any]:
    """A checkpoint of a run, read without genlab: its tensors by their names, and the values of its metadata."""
    path = folder / "checkpoints" / name
    with safetensors.safe_open(path, framework="pt") as file:
        values = {key: json.loads(value) for key, value in file.metadata().items() if key not in ("format", "sha256")}
    return {**values, **safetensors.torch.load_file(path)}


def rewrite_checkpoints(folder: Path, change: Callable[[dict[str, Any]], dict[str, Any]]) -> None:
    """Change the state in every checkpoint of a run, and seal it anew."""
    for path in (folder / "checkpoints").glob("*.safetensors"):
        state = change(CheckpointFolder(path.parent).load(path.name, device=torch.device("cpu")))
        with tempfile.TemporaryDirectory() as scratch:
            CheckpointFolder(Path(scratch)).save_last(state, step=state["step"])
            shutil.copy(Path(scratch, LAST), path)


def summary_of(run: Path) -> dict[str, object]:
    return dict(json.loads((run / "summary.json").read_text(encoding="utf-8")))
