"""Real signals: a run saves the step that it is in, its exit code says what stopped it, and it resumes bit by bit.

There are no data-loading workers, whose death would reach the main thread: the group of a run is its one process.
"""

import itertools
import json
import signal
import time
from functools import partial
from pathlib import Path

import pytest

from genlab.comparison.runs import read_run
from genlab.run.folder import resume_command
from genlab.signals import signal_text
from tests.faults import hooks
from tests.faults.harness import (
    TINY,
    assert_runs_equal,
    checkpoint_of,
    fork,
    resume,
    seconds_since,
    start,
    strays_of,
)
from tests.faults.tally import Tally

pytestmark = pytest.mark.slow
FAULT = "6 signals"
WORDS = TINY["draw"]
POINTS_OF_THE_FIRST_SAVE = 16
CODES = {signal.SIGTERM: 143, signal.SIGINT: 130, signal.SIGHUP: 129}
LIMIT_SECONDS = 10
"""From a signal to the end of the process: no speed, but what a system grants before it kills; here it takes one."""


def note_of(folder: Path) -> Path:
    """Return the file in which the process of a run notes when it got its signal."""
    return folder.with_name(f"{folder.name}.signalled")


def assert_saved_and_resumable(
    folder: Path, whole: Path, *, code: int, hook: hooks.Hook, steps: tuple[int, ...]
) -> None:
    """After a signal, at one of these steps."""
    ended = fork(*WORDS, folder=folder, hook=hook).wait()
    assert ended.returncode == code, ended.stderr
    assert seconds_since(note_of(folder)) < LIMIT_SECONDS
    summary = json.loads((folder / "summary.json").read_text())
    assert summary["status"] == "interrupted"
    step = summary["step"]
    assert step in steps
    way_on = f"saved; to resume: {resume_command(folder)}"
    assert ended.stderr == f"genlab: stopped by {signal_text(code - 128)} after step {step}; {way_on}\n"
    assert checkpoint_of(folder)["step"] == step
    assert strays_of(folder) == []
    resume(folder).succeed()
    assert_runs_equal(whole, folder)


WHOM = ("process", "group")


@pytest.mark.parametrize(("number", "whom", "step"), [*itertools.product(CODES, WHOM, (13, 29, 38))])
def test_a_signal_within_a_step(
    tmp_path: Path, whole: Path, tally: Tally, number: signal.Signals, whom: str, step: int
) -> None:
    with tally.trying(FAULT, f"{number.name} to the {whom} within a step"):
        folder = tmp_path / "run"
        hook = partial(hooks.signalled_at, step, number, to_group=whom == "group", note=note_of(folder))
        assert_saved_and_resumable(folder, whole, code=CODES[number], hook=hook, steps=(step,))


# In the header of the checkpoint of step 5, in its digest, and in its tensors.
@pytest.mark.parametrize(("number", "whom", "point"), [*itertools.product(CODES, WHOM, (1, 7, 12))])
def test_a_signal_within_a_save(
    tmp_path: Path, whole: Path, tally: Tally, number: signal.Signals, whom: str, point: int
) -> None:
    with tally.trying(FAULT, f"{number.name} to the {whom} within a save"):
        folder = tmp_path / "run"
        hook = partial(hooks.signalled_in_saving, point, number, to_group=whom == "group", note=note_of(folder))
        assert_saved_and_resumable(folder, whole, code=CODES[number], hook=hook, steps=(5, 6))


@pytest.mark.parametrize("point", [7, 1, 11, 14])
def test_a_second_interruption_leaves_at_once_and_loses_nothing_saved(
    tmp_path: Path, whole: Path, tally: Tally, point: int
) -> None:
    folder = tmp_path / "run"
    # A first save that is whole, then one within which the two signals come.
    signals = (signal.SIGINT, signal.SIGINT)
    hook = partial(hooks.signalled_in_saving, POINTS_OF_THE_FIRST_SAVE + point, *signals, note=note_of(folder))
    with tally.trying(FAULT, "double Ctrl-C within a save"):
        ended = fork(*WORDS, folder=folder, hook=hook).wait()
        way_on = f"genlab: to resume from the last checkpoint: {resume_command(folder)}\n"
        assert (ended.returncode, ended.stderr) == (130, way_on)
        assert seconds_since(note_of(folder)) < LIMIT_SECONDS
        assert read_run(folder, name="run").status == "killed"
        resume(folder).succeed()
        assert_runs_equal(whole, folder)
        assert strays_of(folder) == []


@pytest.mark.parametrize(("whom", "step"), [*itertools.product(WHOM, (7, 13, 29))])
def test_usr1_saves_and_goes_on(tmp_path: Path, whole: Path, tally: Tally, whom: str, step: int) -> None:
    with tally.trying(FAULT, f"SIGUSR1 to the {whom} within a step"):
        saves = partial(hooks.signalled_at, step, signal.SIGUSR1, to_group=whom == "group")
        assert_saved_on_request(tmp_path / "run", whole, "trainer.checkpoint_interval=0", saves=saves, step=step)


@pytest.mark.parametrize(("whom", "point"), [*itertools.product(WHOM, (1, 7, 12))])
def test_usr1_within_a_save_saves_once_more(tmp_path: Path, whole: Path, tally: Tally, whom: str, point: int) -> None:
    with tally.trying(FAULT, f"SIGUSR1 to the {whom} within a save"):
        saves = partial(hooks.signalled_in_saving, point, signal.SIGUSR1, to_group=whom == "group")
        assert_saved_on_request(tmp_path / "run", whole, saves=saves, step=6)


def assert_saved_on_request(folder: Path, whole: Path, *words: str, saves: hooks.Hook, step: int) -> None:
    """A save at this step, which a kill three steps later leaves the last one."""
    killed = partial(hooks.signalled_at, step + 3, signal.SIGKILL)
    ended = fork(*WORDS, *words, folder=folder, hook=partial(hooks.together, saves, killed)).wait()
    assert ended.returncode == -signal.SIGKILL, ended.stderr
    assert checkpoint_of(folder)["step"] == step
    resume(folder).succeed()
    assert_runs_equal(whole, folder)


def lines_logged(folder: Path) -> int:
    log = folder / "metrics.jsonl"
    return len(log.read_text().splitlines()) if log.exists() else 0


def test_from_outside_on_the_program_as_a_user_starts_it(tmp_path: Path, tally: Tally) -> None:
    folder = tmp_path / "run"
    with tally.trying(FAULT, "SIGTERM from outside to python -m genlab"):
        process = start("train", *WORDS, "trainer.num_steps=100000", folder=folder)
        while lines_logged(folder) < 3:
            assert process.poll() is None
            time.sleep(0.05)
        process.send_signal(signal.SIGTERM)
        _, errors = process.communicate(timeout=LIMIT_SECONDS)
        assert process.returncode == 143, errors
        summary = json.loads((folder / "summary.json").read_text())
        assert summary["status"] == "interrupted"
        assert checkpoint_of(folder)["step"] == summary["step"]
        assert errors.splitlines()[-1].endswith(f"; saved; to resume: {resume_command(folder)}")


def test_a_process_that_takes_its_time_would_be_noticed(tmp_path: Path, whole: Path, tally: Tally) -> None:
    folder = tmp_path / "run"
    signalled = partial(hooks.signalled_at, 3, signal.SIGTERM, note=note_of(folder))
    hook = partial(hooks.together, partial(hooks.saving_slowly, LIMIT_SECONDS + 2), signalled)
    with pytest.raises(AssertionError, match=f"< {LIMIT_SECONDS}"):
        assert_saved_and_resumable(folder, whole, code=143, hook=hook, steps=(3,))
    tally.wrong_variant_noticed(FAULT, "twelve seconds before the save")


def test_a_process_that_does_not_listen_would_be_noticed(tmp_path: Path, whole: Path, tally: Tally) -> None:
    hook = partial(hooks.together, hooks.listening_to_nothing, partial(hooks.signalled_at, 13, signal.SIGTERM))
    with pytest.raises(AssertionError):
        assert_saved_and_resumable(tmp_path / "run", whole, code=143, hook=hook, steps=(13,))
    tally.wrong_variant_noticed(FAULT, "no handler")
