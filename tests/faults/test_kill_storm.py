"""SIGKILL again and again over one run, at any moment and in the middle of saving: nothing that was saved is lost."""

import json
import random
import shutil
import signal
import subprocess
import sys
import time
from functools import partial
from itertools import pairwise
from pathlib import Path

import pytest

from genlab.comparison.runs import read_run
from tests.faults import hooks
from tests.faults.harness import TINY, Forked, assert_runs_equal, environment, fork, resume, strays_of
from tests.faults.tally import Tally

FAULT = "2 kill -9"
INTERVAL = 5
POINTS_OF_A_SAVE = 15  # at least; a save of the best checkpoint as well has more
WORDS = (*TINY["draw"], "trainer.validation_interval=10")


def words_for(num_steps: int) -> tuple[str, ...]:
    return (*WORDS, f"trainer.num_steps={num_steps}", f"trainer.checkpoint_interval={INTERVAL}")


def steps_computed(folder: Path) -> list[int]:
    record = folder.with_name("batches")
    return [json.loads(line)[0] for line in record.read_text().splitlines()] if record.exists() else []


def start(folder: Path, num_steps: int, *more_hooks: hooks.Hook) -> Forked:
    hook = partial(hooks.together, partial(hooks.witnessed, folder.with_name("batches")), *more_hooks)
    return resume(folder, hook=hook) if folder.exists() else fork(*words_for(num_steps), folder=folder, hook=hook)


def killed_inside_a_save(folder: Path, num_steps: int, draw: random.Random, *more_hooks: hooks.Hook) -> Forked:
    """By its own hand, at an instant of the first two saves that no clock decides."""
    point = draw.randint(1, 2 * POINTS_OF_A_SAVE)
    return start(folder, num_steps, *more_hooks, partial(hooks.killed_in_saving, point))


def killed_at_any_time(folder: Path, num_steps: int, draw: random.Random, *more_hooks: hooks.Hook) -> Forked:
    """From outside: while it starts, or some time after it has begun to train."""
    before = len(steps_computed(folder))
    started = start(folder, num_steps, *more_hooks, partial(hooks.stalled_after, INTERVAL + 2))
    if draw.random() < 0.5:
        while len(steps_computed(folder)) == before and started.process.is_alive():
            time.sleep(0.01)
        time.sleep(draw.uniform(0, 0.3))
    else:
        time.sleep(draw.uniform(0, 2))
    started.send(signal.SIGKILL)
    return started


def storm(folder: Path, *more_hooks: hooks.Hook, num_steps: int, inside: int, anywhere: int, tally: Tally) -> None:
    """A run to its end, with kills."""
    draw = random.Random(5)
    after_a_save = partial(hooks.signalled_at, INTERVAL + 2, signal.SIGKILL)
    assert start(folder, num_steps, *more_hooks, after_a_save).wait().returncode == -signal.SIGKILL
    assert read_run(folder, name="run").status == "killed"
    kinds = [(killed_inside_a_save, "kills inside a save")] * inside + [
        (killed_at_any_time, "kills at any time")
    ] * anywhere
    draw.shuffle(kinds)
    for kill, name in kinds:
        with tally.trying(FAULT, name):
            ended = kill(folder, num_steps, draw, *more_hooks).wait()
            assert ended.returncode == -signal.SIGKILL, ended.stderr  # it found a checkpoint, and went on
    ended = start(folder, num_steps, *more_hooks).wait()
    assert ended.returncode == 0, ended.stderr


def steps_lost(steps: list[int]) -> list[int]:
    """Return the number of steps that were repeated after each resume."""
    return [before + 1 - after for before, after in pairwise(steps) if after <= before]


@pytest.mark.parametrize(
    ("num_steps", "inside", "anywhere"),
    [pytest.param(30, 1, 1, marks=pytest.mark.slow), pytest.param(500, 30, 25, marks=pytest.mark.slow)],
)
def test_a_storm_of_kills_costs_time_only(
    tmp_path: Path, tally: Tally, num_steps: int, inside: int, anywhere: int
) -> None:
    whole, folder = tmp_path / "whole", tmp_path / "run"
    undisturbed = fork(*words_for(num_steps), folder=whole)
    while not (whole / "summary.json").exists():
        assert undisturbed.process.is_alive()
        time.sleep(0.05)
    assert read_run(whole, name="run").status in ("running", "finished")
    storm(folder, num_steps=num_steps, inside=inside, anywhere=anywhere, tally=tally)
    assert undisturbed.wait().returncode == 0
    steps = steps_computed(folder)
    assert sorted(set(steps)) == list(range(num_steps))
    assert 0 < max(steps_lost(steps)) <= INTERVAL
    assert_runs_equal(whole, folder)
    assert strays_of(folder) == []


@pytest.mark.slow
@pytest.mark.parametrize(
    "kill",
    [
        pytest.param(partial(hooks.signalled_at, 3, signal.SIGKILL), id="in step 3"),
        *(
            pytest.param(partial(hooks.killed_in_saving, point), id=f"point {point}")
            for point in range(1, POINTS_OF_A_SAVE + 1)
        ),
    ],
)
def test_a_run_killed_before_its_first_checkpoint_begins_anew(
    tmp_path: Path, whole: Path, tally: Tally, kill: hooks.Hook
) -> None:
    folder = tmp_path / "run"
    with tally.trying(FAULT, "kills before there is a checkpoint"):
        assert fork(*TINY["draw"], folder=folder, hook=kill).wait().returncode == -signal.SIGKILL
        has_checkpoint = (folder / "checkpoints" / "last.safetensors").exists()  # at the last points of the save
        stray = folder / "samples" / "of_the_first_attempt.png"
        stray.parent.mkdir(exist_ok=True)
        stray.touch()
        ended = resume(folder).succeed()
        assert ("has no checkpoint yet: it begins anew" in ended.stdout) != has_checkpoint
        assert stray.exists() == has_checkpoint
        assert_runs_equal(whole, folder)
        assert strays_of(folder) == []


def refused_without_its_checkpoints(folder: Path, *more_hooks: hooks.Hook) -> None:
    """A run killed after a save, whose checkpoints somebody removes, stays as it is."""
    after_a_save = partial(hooks.signalled_at, INTERVAL + 2, signal.SIGKILL)
    assert fork(*TINY["draw"], folder=folder, hook=after_a_save).wait().returncode == -signal.SIGKILL
    shutil.rmtree(folder / "checkpoints")
    before = {path.name: path.read_bytes() for path in folder.glob("*.json*")}
    ended = resume(folder, hook=partial(hooks.together, *more_hooks)).wait()
    assert ended.returncode == 4, ended.stderr
    assert ended.stderr.count("\n") == 1
    assert "no usable checkpoint: neither last.safetensors nor previous.safetensors is in" in ended.stderr
    assert {path.name: path.read_bytes() for path in folder.glob("*.json*")} == before


@pytest.mark.slow
def test_a_run_whose_checkpoints_are_gone_is_left_alone(tmp_path: Path, tally: Tally) -> None:
    with tally.trying(FAULT, "resumptions without the checkpoints that were there"):
        refused_without_its_checkpoints(tmp_path / "run")
    with pytest.raises(AssertionError, match="assert 0 == 4"):
        refused_without_its_checkpoints(tmp_path / "naive", hooks.beginning_anew_in_any_case)
    tally.wrong_variant_noticed(FAULT, "a fresh start wherever there is no checkpoint")


@pytest.mark.slow
def test_a_storm_over_plain_saving_would_be_noticed(tmp_path: Path, tally: Tally) -> None:
    with pytest.raises(AssertionError, match="no usable checkpoint"):
        storm(tmp_path / "run", hooks.saving_plainly, num_steps=500, inside=30, anywhere=0, tally=Tally([]))
    tally.wrong_variant_noticed(FAULT, "a plain write")


@pytest.mark.skipif(shutil.which("strace") is None, reason="needs strace")
def test_the_bytes_reach_the_disk_before_the_name_and_the_name_before_the_next_step(
    tmp_path: Path, tally: Tally
) -> None:
    """Against a loss of power, which cannot be tried here: the order of the system calls."""
    with tally.trying(FAULT, "orders of system calls"):
        script = f"from genlab.storage import *; replace_atomically(Path({str(tmp_path / 'file')!r}), b'new')"
        calls = "trace=openat,write,fsync,rename,renameat,renameat2"
        line = ["strace", "-y", "-e", calls, sys.executable, "-c", script]
        traced = subprocess.run(line, capture_output=True, text=True, timeout=300, env=environment())
        if "ptrace" in traced.stderr and traced.returncode != 0:
            pytest.skip("this machine lets nobody trace")
        of_file = [line for line in traced.stderr.splitlines() if str(tmp_path) in line and "= -1" not in line]
        assert [line.partition("(")[0] for line in of_file if "execve" not in line] == [
            *("openat", "write", "fsync", "rename", "openat", "fsync")
        ]
        assert all("/.file." in line for line in of_file[:4])
        assert "/.file." not in of_file[-1]
