"""Fixtures of all tests: the command line in this process, and no GPU test without a GPU."""

import logging
import os
import signal
from collections.abc import Callable, Iterator
from contextlib import chdir
from dataclasses import dataclass
from pathlib import Path

import pytest
import torch
from _pytest.terminal import TerminalReporter
from hypothesis import HealthCheck, settings

from genlab.cli import main
from tests.faults.tally import table
from tests.pair import Pair, pair_of_processes

signal.signal(signal.SIGINT, signal.default_int_handler)  # a shell's background jobs start with it ignored
os.environ.pop("XDG_CACHE_HOME", None)  # tests that set HOME look for caches below it
# Properties are not timed: a busy machine fails no test.
settings.register_profile("untimed", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("untimed")


def pytest_runtest_setup(item: pytest.Item) -> None:
    if item.get_closest_marker("gpu") and not torch.cuda.is_available():
        pytest.skip("needs a CUDA device")


def pytest_terminal_summary(terminalreporter: TerminalReporter) -> None:
    reports = [report for outcome in ("passed", "failed") for report in terminalreporter.stats.get(outcome, [])]
    lines = table(entry for report in reports for entry in report.user_properties)
    if lines:
        terminalreporter.section("faults: tried and survived")
        for line in lines:
            terminalreporter.write_line(line)


@pytest.fixture(autouse=True)
def same_start_in_any_order_of_the_tests() -> None:
    torch.manual_seed(0)
    torch.set_flush_denormal(False)  # hypothesis refuses a process that a command has told to flush


@pytest.fixture(scope="session")
def pair() -> Iterator[Pair]:
    """Return two processes that run functions together."""
    with pair_of_processes() as processes:
        yield processes


def train_in(folder: Path, *arguments: str) -> Path:
    """Train in this process, with the run folder in the working directory, and return the run folder."""
    with chdir(folder.parent):
        assert main(["train", *arguments, f"hydra.run.dir={folder}"]) == 0
    return folder


@pytest.fixture
def hangups_count() -> Iterator[None]:
    """Let SIGHUP count even if these tests run under nohup."""
    previous = signal.signal(signal.SIGHUP, signal.SIG_DFL)
    yield
    signal.signal(signal.SIGHUP, previous)


@dataclass(frozen=True)
class Outcome:
    code: int
    output: str
    errors: str

    def assert_error(self, code: int, text: str) -> None:
        """Assert that the command has failed with this code, and with one line that holds a text."""
        assert (self.code, self.errors.count("\n")) == (code, 1), self.errors
        assert text in self.errors

    def checked(self) -> "Outcome":
        """Return the outcome of a command that has succeeded, and assert that it has."""
        assert self.code == 0, self.errors
        return self


Genlab = Callable[..., Outcome]
"""The type of the fixture `genlab`."""


@pytest.fixture
def genlab(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]) -> Iterator[Genlab]:
    """Return a function that runs ``genlab ARGUMENTS`` with an empty folder as the working directory."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("GENLAB_DEBUG", raising=False)
    monkeypatch.delenv("GENLAB_ALLOW", raising=False)
    handlers = list(logging.getLogger().handlers)

    def run(*arguments: str) -> Outcome:
        capfd.readouterr()
        code = main(arguments)
        captured = capfd.readouterr()
        return Outcome(code, captured.out, captured.err)

    yield run
    root = logging.getLogger()
    for handler in list(root.handlers):
        if handler not in handlers:
            root.removeHandler(handler)
            handler.close()
