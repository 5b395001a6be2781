"""Launching of several processes, and the message about their failure."""

import json
import os
import signal
from collections.abc import Callable
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import pytest
import torch
from torch.distributed.elastic.multiprocessing import SignalException
from torch.distributed.elastic.multiprocessing.errors import ProcessFailure
from torch.distributed.launcher.api import LaunchConfig

from genlab.errors import ProcessLostError, StoppedBySignal
from genlab.launch import processes as launcher
from genlab.launch import worker
from genlab.launch.outcome import finalise_after_rank_0, finalise_status
from genlab.launch.processes import Processes, WorkerFailure, launch_processes, root_cause
from genlab.run.folder import locked, resume_command
from tests.conftest import Outcome


def failure(tmp_path: Path, rank: int, exit_code: int, message: str | None = None, kind: str = "") -> ProcessFailure:
    path = tmp_path / f"{rank}.json"
    if message is not None:
        details = {"py_callstack": message, "timestamp": "1", "kind": kind}
        path.write_text(json.dumps({"message": {"message": message, "errorCode": exit_code, "extraInfo": details}}))
    return ProcessFailure(local_rank=rank, pid=1, exitcode=exit_code, error_file=str(path))


GONE = (1, "another process is gone", "ProcessLostError")
HUNG = (1, "no answer in time", "ProcessHungError")
STOPPED = (143, "stopped by signal 15", "StoppedBySignal")
CAUSES: list[tuple[dict[int, tuple[Any, ...]], str, int]] = [
    ({0: GONE, 1: (-9,)}, "process 1 of 2 was killed by SIGKILL, possibly for lack of memory", 1),
    ({1: (-11,), 0: GONE}, "process 1 of 2 was killed by SIGSEGV", 1),
    ({0: HUNG, 1: (-9,)}, "no answer in time", 1),  # the agent killed the one that hung
    ({0: GONE, 1: (5, "step 3: not finite", "NonFiniteError")}, "step 3: not finite", 5),
    ({0: (-15,), 1: (1, "ValueError: x (a bug of genlab)", "ValueError")}, "ValueError: x (a bug of genlab)", 1),
    ({0: STOPPED, 1: (6, "out of memory", "MemoryExhaustedError")}, "out of memory", 6),
    ({0: GONE, 1: (-15,)}, "another process is gone", 1),
    ({0: STOPPED, 1: STOPPED}, "stopped by signal 15", 143),
    ({0: (-15,), 1: (3,)}, "process 1 of 2 ended with exit code 3", 1),
]


@pytest.mark.parametrize(("ends", "message", "exit_code"), CAUSES)
def test_the_cause_and_not_its_consequences(
    tmp_path: Path, ends: dict[int, tuple[Any, ...]], message: str, exit_code: int
) -> None:
    cause = root_cause({rank: failure(tmp_path, rank, *end) for rank, end in ends.items()}, num=2)
    assert (str(cause), cause.exit_code) == (message, exit_code)


def folder_with(tmp_path: Path, status: str, *, with_checkpoint: bool = True) -> Path:
    (tmp_path / "checkpoints").mkdir()
    if with_checkpoint:
        (tmp_path / "checkpoints" / "last.safetensors").touch()
        (tmp_path / "config.yaml").touch()
    (tmp_path / "summary.json").write_text(json.dumps({"status": status, "reason": None, "step": 7, "final": {"x": 1}}))
    return tmp_path


def summary(folder: Path) -> dict[str, Any]:
    content: dict[str, Any] = json.loads((folder / "summary.json").read_text())
    return content


def test_a_run_whose_processes_died_is_written_down_as_failed(tmp_path: Path) -> None:
    folder = folder_with(tmp_path, "running")
    error = finalise_status(folder, ProcessLostError("process 0 of 2 was killed by SIGKILL"), previous={})
    assert str(error) == (
        f"process 0 of 2 was killed by SIGKILL; to resume from the last checkpoint: {resume_command(folder)}"
    )
    assert summary(folder) == {
        "status": "failed",
        "reason": "process 0 of 2 was killed by SIGKILL",
        "step": 7,
        "final": {"x": 1},
    }


def test_a_stopped_run_says_where_it_stands(tmp_path: Path) -> None:
    folder = folder_with(tmp_path, "interrupted")
    error = finalise_status(folder, StoppedBySignal("stopped by Ctrl-C", 2), previous={})
    way_on = f"saved; to resume: {resume_command(folder)}"
    assert (str(error), error.exit_code) == (f"stopped by Ctrl-C after step 7; {way_on}", 130)


def test_a_run_stopped_before_its_first_checkpoint_says_so(tmp_path: Path) -> None:
    folder = folder_with(tmp_path, "running", with_checkpoint=False)
    error = finalise_status(folder, StoppedBySignal("stopped by signal 15", 15), previous={})
    assert (str(error), error.exit_code) == ("stopped by signal 15; nothing was saved", 143)
    assert summary(folder)["status"] == "interrupted"
    assert finalise_status(tmp_path / "none", ProcessLostError("x"), previous={}).args == ("x; nothing was saved",)
    assert not (tmp_path / "none").exists()


def test_a_failure_elsewhere_stands_in_the_summary_and_the_firsts_own_stays(tmp_path: Path) -> None:
    folder = folder_with(tmp_path, "failed")
    own = WorkerFailure("out of memory", rank=0, exit_code=6)
    assert finalise_status(folder, own, previous={}) is own
    assert summary(folder)["reason"] is None
    others = WorkerFailure("ValueError: x", rank=1, exit_code=1)
    assert finalise_status(folder, others, previous={}) is others
    assert summary(folder)["reason"] == "ValueError: x"


@pytest.mark.parametrize("status", ["running", "finished", "interrupted"])
def test_a_second_process_puts_down_only_what_the_first_could_not(tmp_path: Path, status: str) -> None:
    folder = folder_with(tmp_path, status)
    finalise_after_rank_0(folder, previous={})
    assert summary(folder)["status"] == ("failed" if status == "running" else status)


def test_a_first_process_that_lives_is_left_to_tell_its_end(tmp_path: Path) -> None:
    folder = folder_with(tmp_path, "running")
    with locked(folder, is_resumed=True):
        finalise_after_rank_0(folder, previous={})
    assert summary(folder)["status"] == "running"


@pytest.mark.parametrize("is_ignored", [False, True])
def test_a_launcher_hears_of_a_vanished_terminal_once_and_under_nohup_never(
    monkeypatch: pytest.MonkeyPatch, is_ignored: bool
) -> None:
    """torch's agent would listen even there, and a second signal would leave the processes no time."""
    handled: list[str] = []

    def agent(config: LaunchConfig, program: str) -> Callable[..., None]:
        handled.extend(config.signals_to_handle.split(","))

        def launched(*arguments: str) -> None:
            try:
                os.kill(os.getpid(), signal.SIGHUP)
            except SignalException:
                os.kill(os.getpid(), signal.SIGHUP)  # while the others leave
                raise

        return launched

    monkeypatch.setattr("torch.distributed.launcher.api.elastic_launch", agent)
    previous = signal.signal(signal.SIGHUP, signal.SIG_IGN if is_ignored else signal.SIG_DFL)
    try:
        with nullcontext() if is_ignored else pytest.raises(StoppedBySignal) as stop:
            launch_processes("train", [], Processes(num=2))
        assert stop is None or stop.value.exit_code == 129
        assert signal.getsignal(signal.SIGHUP) == (signal.SIG_IGN if is_ignored else signal.SIG_DFL)
    finally:
        signal.signal(signal.SIGHUP, previous)
    assert set(handled) == {"SIGTERM", "SIGINT", "SIGQUIT"}


def test_surroundings_are_put_back(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    monkeypatch.setattr(launcher, "num_cores", lambda: 8)
    before, handler = dict(os.environ), signal.getsignal(signal.SIGUSR1)
    with launcher._surroundings(Processes(num=3, max_restarts=0), tmp_path):
        assert os.environ["OMP_NUM_THREADS"] == "2"
        assert os.environ["TORCH_DISABLE_SHARE_RDZV_TCP_STORE"] == "1"
        assert signal.getsignal(signal.SIGUSR1) != handler
    assert (dict(os.environ), signal.getsignal(signal.SIGUSR1)) == (before, handler)


def test_a_signal_goes_to_the_newest_attempts_processes_alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    sent: list[tuple[int, int]] = []
    monkeypatch.setattr(os, "kill", lambda pid, number: sent.append((pid, number)))
    monkeypatch.setattr(os, "getsid", lambda pid: 1 if pid == 30 else pid)  # 30 is somebody else's by now
    for attempt, pids in {2: [10], 10: [20, 30]}.items():
        for rank, pid in enumerate(pids):
            folder = tmp_path / "genlab_x" / f"attempt_{attempt}" / str(rank)
            folder.mkdir(parents=True)
            (folder / "pid").write_text(str(pid))
    launcher._signal_all(tmp_path, signal.SIGUSR1)
    assert sent == [(20, signal.SIGUSR1)]
    launcher._signal_all(tmp_path / "none", signal.SIGUSR1)


REFUSED = [
    (("trainer.devices=0",), "trainer.devices must be at least 1, got 0"),
    (("trainer.max_restarts=1",), "trainer.max_restarts must be 0 with trainer.devices=1, got 1"),
    (("trainer.devices=3", "device=cuda"), "trainer.devices must be at most 2"),
    (("trainer.devices=2", "device=cuda:1"), "device must be auto, cpu or cuda with trainer.devices=2, got cuda:1"),
    (("-m", "trainer.devices=1,3", "device=cuda"), "trainer.devices must be at most 2"),
]


@pytest.mark.parametrize(("arguments", "message"), REFUSED)
def test_what_this_machine_cannot_give_is_refused_in_a_line(
    genlab: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, arguments: tuple[str, ...], message: str
) -> None:
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    outcome: Outcome = genlab("train", *arguments)
    outcome.assert_error(2, message)
    assert list(tmp_path.iterdir()) == []


REFUSED_BESIDE = [
    (("train", "trainer.devices=3"), "trainer.devices must be 1 or the 2 processes that were started, got 3"),
    (("train", "-m", "seed=0,1"), "a sweep starts processes of its own"),
    (("datasets",), "this command runs in one process, and 2 were started"),
]


@pytest.fixture
def one_of_two(
    monkeypatch: pytest.MonkeyPatch, tmp_path_factory: pytest.TempPathFactory
) -> Callable[[int, bool], None]:
    """Make this process one of two, which torchrun has started or stale environment variables announce."""

    def become(rank: int, is_of_launcher: bool) -> None:
        place = {"RANK": rank, "LOCAL_RANK": rank, "WORLD_SIZE": 2, "MASTER_ADDR": "localhost", "MASTER_PORT": 1}
        for name, value in place.items():
            monkeypatch.setenv(name, str(value))
        error_file = tmp_path_factory.mktemp("notes") / "attempt_0" / str(rank) / "error.json"
        if is_of_launcher:
            error_file.parent.mkdir(parents=True)
        monkeypatch.setenv(worker.ERROR_FILE_VARIABLE, str(error_file))
        monkeypatch.setattr(worker, "_leave_with", lambda launcher: None)  # it would watch for as long as the tests run
        monkeypatch.setattr(worker, "_REPORTING_SECONDS", 0.0)

    return become


@pytest.mark.parametrize("rank", [0, 1])
@pytest.mark.parametrize(("arguments", "message"), REFUSED_BESIDE)
def test_what_does_not_go_with_torchrun_is_refused_by_all_and_told_by_one(
    genlab: Any,
    tmp_path: Path,
    one_of_two: Callable[[int, bool], None],
    arguments: tuple[str, ...],
    message: str,
    rank: int,
) -> None:
    one_of_two(rank, True)
    outcome: Outcome = genlab(*arguments)
    assert outcome.code == 2
    assert (message in outcome.errors) == (rank == 0)
    assert rank == 0 or outcome.errors == ""
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("rank", [0, 1])
def test_a_process_whose_launcher_is_gone_speaks_for_itself(
    genlab: Any, tmp_path: Path, one_of_two: Callable[[int, bool], None], rank: int
) -> None:
    one_of_two(rank, False)
    outcome: Outcome = genlab("datasets")
    outcome.assert_error(2, "to run alone, leave out torchrun or unset RANK and WORLD_SIZE")
    assert list(tmp_path.iterdir()) == []


def test_processes_that_changed_nothing_leave_what_is_reported_of_the_run(tmp_path: Path) -> None:
    """A resumption in several processes, of a run that was killed, that dies before its first step."""
    folder = folder_with(tmp_path, "running")
    before = summary(folder)
    finalise_after_rank_0(folder, previous=before)
    finalise_status(folder, ProcessLostError("process 0 of 2 was killed by SIGKILL"), previous=before)
    assert summary(folder) == before
