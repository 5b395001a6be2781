"""Crashes with overlap, kills without a flush, a clock that goes back: every step stands in TensorBoard once."""

import json
import re
import signal
import subprocess
import time
import urllib.parse
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path

import pytest
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from torch.utils.tensorboard import SummaryWriter

from genlab.commands.board import BoardSettings, tensorboard_command
from genlab.training.loggers import tensorboard
from genlab.training.loggers.tensorboard import TensorBoard
from genlab.training.logging import RunLog
from tests.faults import hooks
from tests.faults.harness import TINY, checkpoint_of, environment, fork, resume
from tests.faults.tally import Tally

pytestmark = pytest.mark.slow
FAULT = "12 TensorBoard"
DAY = 86400.0
Curves = dict[str, list[tuple[int, float]]]


def in_metrics(folder: Path) -> Curves:
    """The truth."""
    curves: Curves = {}
    for line in (folder / "metrics.jsonl").read_text().splitlines():
        record = json.loads(line)
        for tag, value in record.items():
            if "/" in tag:
                curves.setdefault(tag, []).append((record["step"], pytest.approx(value, rel=1e-6)))
    return curves


def in_accumulator(folder: Path) -> Curves:
    accumulator = EventAccumulator(str(folder), size_guidance={"scalars": 0})
    accumulator.Reload()
    tags = accumulator.Tags()["scalars"]
    return {tag: [(event.step, event.value) for event in accumulator.Scalars(tag)] for tag in tags}


@contextmanager
def board(folder: Path, *, load_fast: bool) -> Iterator[str]:
    """The address of a TensorBoard started as `genlab board` starts it, on a free port, with one of its loaders."""
    command = tensorboard_command(BoardSettings(folder=str(folder), port=None))
    assert command[command.index("--host") + 1] == "localhost"
    process = subprocess.Popen(
        [*command, "--port=0", f"--load_fast={str(load_fast).lower()}"],
        stderr=subprocess.PIPE,
        text=True,
        env=environment(),
    )
    try:
        assert process.stderr is not None
        found = next(match for line in process.stderr if (match := re.search(r"http://localhost:\d+", line)))
        yield found.group()
    finally:
        process.terminate()
        process.communicate()


def in_web(folder: Path, *, load_fast: bool, expected: Curves) -> Curves:
    """Return the curves of the page, once it has as many curves and points as expected, or no more come."""

    def fetch(path: str, **query: str) -> object:
        address = f"{root}/data/plugin/scalars/{path}?{urllib.parse.urlencode(query)}"
        with urllib.request.urlopen(address) as answer:
            return json.load(answer)

    with board(folder, load_fast=load_fast) as root:
        shown: Curves = {}
        for _ in range(120):
            (run,) = fetch("tags").items() or [("", {})]  # type: ignore[attr-defined]
            shown = {tag: [(s, v) for _, s, v in fetch("scalars", run=run[0], tag=tag)] for tag in run[1]}  # type: ignore[attr-defined]
            if shown == expected:
                break
            time.sleep(0.5)
        return shown


def crashed_thrice(folder: Path, *, clock: tuple[float, ...]) -> None:
    """A run whose processes die amid what they have not saved; the clock is so many seconds behind in each."""
    words = (*TINY["draw"], "trainer.log_interval=1")
    for step, behind in zip((13, 24, 38, None), clock, strict=True):
        shift = partial(hooks.in_the_past, behind)
        kill = () if step is None else (partial(hooks.signalled_at, step, signal.SIGKILL),)
        hook = partial(hooks.together, shift, *kill)
        ended = (resume(folder, hook=hook) if folder.exists() else fork(*words, folder=folder, hook=hook)).wait()
        assert ended.returncode == (0 if step is None else -signal.SIGKILL), ended.stderr
        steps = [step for step, _ in in_accumulator(folder)["train/model/gradient_norm"]]
        assert steps[: checkpoint_of(folder)["step"]] == list(range(1, checkpoint_of(folder)["step"] + 1))
        if behind == max(clock) > 0:
            assert "the clock went back" in ended.stdout
    assert len(list(folder.glob("events.out.tfevents.*"))) == 4


@pytest.fixture(scope="module")
def crashed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("crashed") / "run"
    crashed_thrice(folder, clock=(0, 0, DAY, DAY / 2))
    return folder


def test_every_step_stands_once(crashed: Path, tally: Tally) -> None:
    with tally.trying(FAULT, "crashes read by EventAccumulator, the clock a day back", count=3):
        truth = in_metrics(crashed)
        assert {tag: [step for step, _ in points] for tag, points in truth.items() if tag.startswith("train/")} == {
            tag: list(range(1, 41)) for tag in truth if tag.startswith("train/")
        }
        assert [step for step, _ in truth["validation/nll_upper_bound_nats"]] == [20, 40]
        assert in_accumulator(crashed) == truth


@pytest.mark.parametrize("load_fast", [True, False])
def test_every_step_stands_once_on_the_page(crashed: Path, tally: Tally, load_fast: bool) -> None:
    with tally.trying(FAULT, f"crashes on the page, load_fast={str(load_fast).lower()}", count=3):
        truth = in_metrics(crashed)
        assert in_web(crashed, load_fast=load_fast, expected=truth) == truth


def test_a_run_that_was_finished_measures_its_test_again_and_shows_it_once(tmp_path: Path, tally: Tally) -> None:
    folder = tmp_path / "run"
    with tally.trying(FAULT, "resumptions of a finished run"):
        words = (*TINY["draw"], "trainer.num_steps=2", "trainer.test_at_end=true")
        assert fork(*words, folder=folder).wait().returncode == 0
        resume(folder).succeed()
        truth = in_metrics(folder)
        assert [step for step, _ in truth["test/nll_upper_bound_nats"]] == [2]
        assert in_accumulator(folder) == truth


def logged_with_overlap(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Ten steps, then twelve from step 6 on by a clock that is a day behind, without a process for each."""
    folder.mkdir()
    now = time.time
    for start, stop, behind in ((0, 10, 0.0), (6, 12, DAY)):
        with monkeypatch.context() as patch:
            patch.setattr(time, "time", lambda behind=behind: now() - behind)
            loggers = {"tensorboard": TensorBoard()}
            log = RunLog(folder, start_step=start, hyperparameters={"model": "tiny"}, loggers=loggers)
            for step in range(start + 1, stop + 1):
                log.scalars({"train/only/nll_nats": float(step)}, step=step, images_seen=step, seconds=0.5)
            log.close(succeeded=True)


def test_wrong_variants_would_be_noticed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, tally: Tally) -> None:
    logged_with_overlap(tmp_path / "right", monkeypatch)
    assert in_accumulator(tmp_path / "right") == in_metrics(tmp_path / "right")
    with monkeypatch.context() as patch:
        patch.setattr(tensorboard, "_let_sort_before_now", lambda folder: None)
        logged_with_overlap(tmp_path / "by clock", monkeypatch)
    assert in_accumulator(tmp_path / "by clock") != in_metrics(tmp_path / "by clock")
    tally.wrong_variant_noticed(FAULT, "event files in the order of the clock")
    with monkeypatch.context() as patch:
        patch.setattr(tensorboard, "SummaryWriter", lambda log_dir, purge_step: SummaryWriter(log_dir))
        logged_with_overlap(tmp_path / "no purge", monkeypatch)
    assert in_accumulator(tmp_path / "no purge") != in_metrics(tmp_path / "no purge")
    tally.wrong_variant_noticed(FAULT, "no purge_step")
