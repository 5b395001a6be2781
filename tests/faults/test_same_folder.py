"""Processes that start together never share a run folder, and a killed owner leaves no lock."""

import os
import signal
import socket
import time
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from multiprocessing.connection import wait
from pathlib import Path

import pytest
from filelock import FileLock

from genlab.errors import FolderInUseError
from genlab.run import folder as run_folder
from genlab.run.folder import locked, make_new
from tests.faults.harness import TINY, Forked, checkpoint_of, fork, resume, seconds_since
from tests.faults.hooks import note_time
from tests.faults.tally import Tally

pytestmark = pytest.mark.slow
FAULT = "11 same folder"
NUM_STARTS = 6
LIMIT_SECONDS = 5 * 3
"""From a start to its refusal: five for one that has a core for itself, and here six share two."""
SHORT = (*TINY["gated_pixelcnn"], "trainer.num_steps=2", "trainer.checkpoint_interval=1")
ENDLESS = (*TINY["gated_pixelcnn"], "trainer.num_steps=1000000")


@contextmanager
def ended(started: list[Forked]) -> Iterator[None]:
    """Kill whatever a test leaves running."""
    try:
        yield
    finally:
        for process in started:
            process.send(signal.SIGKILL)
            process.process.join()


def start_together(place: Path) -> list[Forked]:
    hook = partial(os.chdir, place)
    return [fork(*SHORT, folder=place / str(number), hook=hook, names_folder=False) for number in range(NUM_STARTS)]


def test_starts_at_the_same_instant_have_a_folder_and_a_number_each(tmp_path: Path, tally: Tally) -> None:
    started = start_together(tmp_path)
    with ended(started), tally.trying(FAULT, "starts at the same instant", count=NUM_STARTS):
        assert [process.wait().returncode for process in started] == [0] * NUM_STARTS
        folders = sorted((tmp_path / "outputs" / "digits-gated_pixelcnn").iterdir())
        assert [int(folder.name[:4]) for folder in folders] == list(range(1, NUM_STARTS + 1))
        assert [checkpoint_of(folder)["step"] for folder in folders] == [2] * NUM_STARTS


def test_the_wrong_variant_of_the_name_is_noticed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, tally: Tally
) -> None:
    """Two that look for the highest number at the same time: without a second look, they share the next."""
    (tmp_path / "0001-first").mkdir()
    monkeypatch.setattr(run_folder, "_numbers_in", lambda folder: iter((0,)))
    assert make_new(tmp_path / "NNNN-second")[0].name == "0001-second"
    tally.wrong_variant_noticed(FAULT, "a number looked up and not taken")


def test_one_of_many_gets_a_folder_and_its_death_frees_it(tmp_path: Path, tally: Tally) -> None:
    folder = tmp_path / "run"
    words = (*ENDLESS, f"hydra.run.dir={folder}")
    notes = [tmp_path / f"{number}.started" for number in range(NUM_STARTS)]
    started = [
        fork(*words, folder=note.with_suffix(""), hook=partial(note_time, note), names_folder=False) for note in notes
    ]
    with ended(started):
        with tally.trying(FAULT, "starts on one folder", count=NUM_STARTS):
            running = dict(zip(started, notes, strict=True))
            while len(running) > 1:
                assert wait([process.process.sentinel for process in running], timeout=300)
                for process in [process for process in running if process.process.exitcode is not None]:
                    assert seconds_since(running.pop(process)) < LIMIT_SECONDS
            (owner,) = running
            for refused in [process for process in started if process is not owner]:
                result = refused.wait()
                assert result.returncode == 8, result.stderr
                (line,) = result.stderr.splitlines()
                assert f"{folder} is in use by PID {owner.pid} on {socket.gethostname()}; " in line
        with tally.trying(FAULT, "restarts after the owner's kill -9"):
            while not (folder / "checkpoints" / "last.safetensors").exists():
                assert owner.process.exitcode is None
                time.sleep(0.02)
            owner.send(signal.SIGKILL)
            owner.process.join()
            num_steps = int(str(checkpoint_of(folder)["step"])) + 5
            resume(folder, f"trainer.num_steps={num_steps}").succeed()
            assert checkpoint_of(folder)["step"] == num_steps


def test_the_wrong_variant_of_the_lock_is_noticed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, tally: Tally
) -> None:
    with locked(tmp_path, is_resumed=True), pytest.raises(FolderInUseError), locked(tmp_path, is_resumed=True):
        pass
    monkeypatch.setattr(run_folder, "_acquired", lambda folder, **_: FileLock(folder / "never acquired"))
    with locked(tmp_path, is_resumed=True), locked(tmp_path, is_resumed=True):
        tally.wrong_variant_noticed(FAULT, "no lock: two hold one folder")
