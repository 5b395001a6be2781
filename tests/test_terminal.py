"""What stands on a terminal: colour where it is wanted, and little under ``-q``."""

import io
import logging
from collections.abc import Iterator
from pathlib import Path

import pytest

from genlab.cli import COMMANDS
from genlab.launch import sweep_job as jobs
from genlab.launch.sweep_job import QUIET, tell
from genlab.launch.syntax import expanded
from genlab.terminal import RESULTS, ConsoleFormatter, hide_progress, painted, shows_progress
from genlab.training.progress import Progress
from tests.conftest import Genlab

TINY = ("trainer=smoke", "trainer.num_steps=2", "dataset.size=8", "model.num_glimpses=2", "model.num_units=16")
TINY += ("trainer.sample_interval=0",)


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


@pytest.fixture(autouse=True)
def progress_is_shown(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.delenv("NO_COLOR", raising=False)
    monkeypatch.setenv("TERM", "xterm")
    yield
    hide_progress(False)


def test_colour_stands_on_a_terminal_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    assert painted("text", "red", is_terminal=True) == "\x1b[31mtext\x1b[0m"
    assert painted("text", "red", is_terminal=False) == "text"
    for variable, value in {"NO_COLOR": "1", "TERM": "dumb"}.items():
        with monkeypatch.context() as patch:
            patch.setenv(variable, value)
            assert painted("text", "red", is_terminal=True) == "text"
    monkeypatch.setenv("NO_COLOR", "")  # as no-color.org has it: empty is not set
    assert painted("text", "red", is_terminal=True) != "text"


@pytest.mark.parametrize(
    ("name", "level", "code"),
    [("genlab.x", logging.INFO, ""), ("genlab.x", 30, "33"), ("genlab.x", 40, "31"), (RESULTS, logging.INFO, "1")],
)
def test_warnings_and_results_stand_out(monkeypatch: pytest.MonkeyPatch, name: str, level: int, code: str) -> None:
    monkeypatch.setattr("sys.stdout", Terminal())
    shown = ConsoleFormatter("%(message)s").format(logging.LogRecord(name, level, "", 0, "text", None, None))
    assert shown == (f"\x1b[{code}mtext\x1b[0m" if code else "text")


def test_q_leaves_the_last_lines_on_the_terminal_and_all_in_the_log(genlab: Genlab, tmp_path: Path) -> None:
    outcome = genlab("train", "-q", *TINY, "name=run", "trainer.on_collapse=warn")
    best, folder = outcome.output.splitlines()
    assert (outcome.code, outcome.errors) == (0, "")
    assert best.startswith("best checkpoint: step 2, validation/nll_upper_bound_nats ")
    assert folder.startswith("finished in ")
    assert folder.endswith(": outputs/digits-draw/run")
    log = (tmp_path / "outputs/digits-draw/run/train.log").read_text()
    assert all(text in log for text in ("device    cpu", "step 2, validation: ", best, folder, "genlab evaluate run="))
    assert not shows_progress()
    assert len(genlab("train", "resume=run").output.splitlines()) > 5
    assert shows_progress()


def test_q_is_about_the_terminal_of_a_start_and_no_part_of_a_sweep_or_its_jobs() -> None:
    assert expanded(["-q", "--verbose", "-m"], COMMANDS["train"][1]) == [QUIET, "hydra.verbose=genlab", "-m"]
    assert QUIET.startswith(jobs._OF_SWEEP)  # not handed to the jobs, whose output.log has all lines


def test_q_hides_displays_and_the_progress_of_a_sweep(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("genlab.training.progress._is_terminal", lambda: True)
    for hidden in (False, True):
        hide_progress(hidden)
        tell("job 0: finished", is_progress=True)
        tell("job 1: failed")
        with Progress(total=2, start=0, steps_per_epoch=1.0) as progress:
            assert progress._is_live is not hidden
    assert capsys.readouterr().out.splitlines() == ["job 0: finished", "job 1: failed", "job 1: failed"]
