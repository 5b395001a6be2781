"""A worker knows its rank, reports failures when it should, and leaves records for restarted workers."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from genlab.errors import (
    ConfigurationError,
    GenlabError,
    MemoryExhaustedError,
    NonFiniteError,
    ProcessLostError,
    StoppedBySignal,
)
from genlab.launch.worker import ERROR_FILE_VARIABLE, LAUNCHER_VARIABLE, Worker, this_worker


def worker(notes: Path, rank: int = 0, *, attempt: int = 0) -> Worker:
    folder = notes / f"attempt_{attempt}" / str(rank)
    folder.mkdir(parents=True, exist_ok=True)
    return Worker(rank=rank, num_workers=2, error_file=folder / "error.json")


def test_a_process_knows_its_place_only_from_a_launcher(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("RANK", "WORLD_SIZE", "LOCAL_RANK", "MASTER_ADDR", "MASTER_PORT", ERROR_FILE_VARIABLE):
        monkeypatch.delenv(name, raising=False)
    place = {"WORLD_SIZE": "4", "RANK": "3", "MASTER_ADDR": "x", "MASTER_PORT": "1", "LOCAL_RANK": "1"}
    for name, value in place.items():
        assert this_worker() is None  # some schedulers set a part of them
        monkeypatch.setenv(name, value)
    assert this_worker() == Worker(rank=3, num_workers=4, error_file=None)
    error_file = tmp_path / "attempt_0" / "1" / "error.json"
    monkeypatch.setenv(ERROR_FILE_VARIABLE, str(error_file))
    found = this_worker()
    assert found is not None
    assert found.error_file is None, "the launcher that named it is gone"
    error_file.parent.mkdir(parents=True)
    found = this_worker()
    assert found is not None
    assert (found.error_file, found.is_first) == (error_file, False)


def test_those_started_again_know_the_run_folder(tmp_path: Path) -> None:
    assert worker(tmp_path).remembered() is None
    worker(tmp_path).remember(tmp_path / "run")
    for rank in (0, 1):
        assert worker(tmp_path, rank, attempt=1).remembered() == tmp_path / "run"
    nowhere = Worker(rank=0, num_workers=2, error_file=None)
    nowhere.remember(tmp_path / "run")
    assert nowhere.remembered() is None


SECOND_REPORTS: list[tuple[GenlabError | RuntimeError, bool]] = [
    (ConfigurationError("x"), False),
    (NonFiniteError("x"), False),
    (StoppedBySignal("x", 15), False),
    (ProcessLostError("x"), False),
    (MemoryExhaustedError("x"), True),
    (RuntimeError("a bug"), True),
]


@pytest.mark.parametrize(("error", "second_reports"), SECOND_REPORTS)
def test_one_line_for_what_all_meet_alike(
    tmp_path: Path, error: Exception, second_reports: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv(LAUNCHER_VARIABLE, raising=False)
    assert worker(tmp_path, 0).reports(error)
    assert worker(tmp_path, 1).reports(error) == second_reports
    monkeypatch.setenv(LAUNCHER_VARIABLE, "1")
    assert not worker(tmp_path, 0).reports(error)


def test_an_error_report_is_what_the_elastic_agent_reads(tmp_path: Path) -> None:
    from torch.distributed.elastic.multiprocessing.errors import ChildFailedError, ProcessFailure

    first = worker(tmp_path)
    first.write_report(ConfigurationError("x"), "model.x must be 1, got 2", 2)
    failure = ProcessFailure(local_rank=0, pid=1, exitcode=2, error_file=str(first.error_file))
    assert "model.x must be 1, got 2" in ChildFailedError("genlab", {0: failure}).format_msg()
    assert failure.error_file_data["message"]["errorCode"] == 2


def test_a_failure_that_would_come_again_ends_the_next_attempt_before_it_begins(tmp_path: Path) -> None:
    worker(tmp_path).write_report(MemoryExhaustedError("x"), "out of memory", 6)
    assert "final" not in worker(tmp_path)._recorded()  # another process may have had the memory
    worker(tmp_path).write_report(NonFiniteError("x"), "step 3: not finite", 5)
    again = worker(tmp_path, 1, attempt=1)
    with pytest.raises(SystemExit) as stop:
        again.enter()
    assert stop.value.code == 5
    assert again.error_file is not None
    assert json.loads(again.error_file.read_text())["message"]["message"] == "step 3: not finite"
    assert (again.error_file.parent / "pid").read_text() == str(os.getpid())


def test_a_slower_process_of_the_same_attempt_reports_the_failure_itself(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("genlab.launch.worker._leave_with", lambda launcher: None)
    monkeypatch.setattr("genlab.launch.worker._REPORTING_SECONDS", 0.0)
    worker(tmp_path, 1).write_report(ConfigurationError("x"), "x", 2)
    worker(tmp_path, 0).enter()
    with pytest.raises(SystemExit):
        worker(tmp_path, 0, attempt=1).enter()


def test_a_second_process_lets_the_first_speak(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The agent ends all processes when one has ended; rank 0, which reports to the user, may be slower."""
    waits: list[float] = []

    def sleep(seconds: float) -> None:
        waits.append(seconds)
        if len(waits) == 3:
            worker(tmp_path, 0).write_report(ConfigurationError("x"), "x", 2)

    monkeypatch.setattr(time, "sleep", sleep)
    worker(tmp_path, 1).write_report(ConfigurationError("x"), "x", 2)
    assert len(waits) == 3
    worker(tmp_path / "b", 1).write_report(RuntimeError("x"), "x", 1)  # its own: nothing to wait for
    assert len(waits) == 3


CHILD = """
import os, signal, sys, time
from pathlib import Path
from genlab.launch.worker import Worker
stopped = []
signal.signal(signal.SIGTERM, lambda number, frame: stopped.append(number))
Worker(rank=0, num_workers=2, error_file=None).enter()
print(os.getpid(), flush=True)
while not stopped:
    time.sleep(0.02)
Path(sys.argv[1]).write_text("saved")
"""


@pytest.mark.slow
def test_a_process_does_not_outlive_a_killed_launcher(tmp_path: Path) -> None:
    saved = tmp_path / "saved"
    parent = "import subprocess, sys; subprocess.run([sys.executable, '-c', *sys.argv[1:]])"
    launcher = subprocess.Popen([sys.executable, "-c", parent, CHILD, str(saved)], stdout=subprocess.PIPE, text=True)
    with launcher:
        assert launcher.stdout is not None
        child = int(launcher.stdout.readline())
        launcher.kill()
    deadline = time.monotonic() + 60
    while not saved.exists():
        assert time.monotonic() < deadline, "the process goes on without its launcher"
        time.sleep(0.02)
    while Path(f"/proc/{child}").exists() and time.monotonic() < deadline:
        time.sleep(0.02)
    with pytest.raises(ProcessLookupError):
        os.kill(child, signal.SIGKILL)
