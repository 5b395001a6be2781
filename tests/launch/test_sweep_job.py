"""The end of a job's process is recorded as a status and a reason, and ends no other job."""

import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

import pytest

from genlab.launch import sweep as sweep_module
from genlab.launch import sweep_job as process
from genlab.launch.sweep_folder import JobRecord, SweepFolder, SweepPlan
from genlab.launch.sweep_settings import SweepSettings

RECORD = JobRecord(number=0, overrides=("seed=0",), folder="0_x", status="running")


@pytest.fixture
def sweep(tmp_path: Path) -> SweepFolder:
    folder = SweepFolder(tmp_path)
    folder.write_plan(
        SweepPlan(overrides=("seed=0,1",), config_dir=None, jobs=(("seed=0",), ("seed=1",))), command="genlab"
    )
    (tmp_path / "0_x").mkdir()
    return folder


def run(program: str, sweep: SweepFolder) -> JobRecord:
    return process._run([sys.executable, "-c", program], RECORD, sweep, {})


def summary(sweep: SweepFolder, **content: object) -> None:
    (sweep.path / "0_x" / "summary.json").write_text(json.dumps(content))


ENDS = [
    ("pass", "finished", None, 0),
    ("raise SystemExit(3)", "failed", "exit code 3", 3),
    ("import sys; print('genlab: error: no data', file=sys.stderr); sys.exit(3)", "failed", "no data", 3),
    ("import sys; print('genlab: error: step 7: nan'); sys.exit(5)", "diverged", "step 7: nan", 5),
    ("import sys; print('genlab: error: out of memory'); sys.exit(6)", "failed", "out of memory", 6),
    ("import os; os.kill(os.getpid(), 9)", "killed", "signal 9, possibly for lack of memory", -9),
    ("import os; os.kill(os.getpid(), 6)", "killed", "signal 6", -6),
    ("raise SystemExit(143)", "interrupted", "signal 15", 143),
]


@pytest.mark.parametrize(("program", "status", "reason", "exit_code"), ENDS)
def test_an_end_in_a_word_and_a_line(
    sweep: SweepFolder, program: str, status: str, reason: str | None, exit_code: int
) -> None:
    ended = run(program, sweep)
    assert (ended.status, ended.reason, ended.exit_code) == (status, reason, exit_code)
    assert ended.has_failed == (exit_code != 0)


def test_a_run_that_its_time_limit_stopped_has_not_failed(sweep: SweepFolder) -> None:
    summary(sweep, status="interrupted", reason="trainer.max_minutes=1 is over; resume to continue")
    ended = run("pass", sweep)
    assert (ended.status, ended.has_failed) == ("interrupted", False)
    assert ended.reason is not None
    assert "max_minutes" in ended.reason


def test_only_the_last_attempts_output_is_searched_for_the_reason(sweep: SweepFolder) -> None:
    run("import sys; print('genlab: error: of the first attempt'); sys.exit(3)", sweep)
    assert run("raise SystemExit(1)", sweep).reason == "exit code 1"


# A job that has started its watchdog: it says so, and then trains for ever.
HELD = """
import signal, sys, time
from genlab.launch.sweep_job import start_watchdog
stopped = []
signal.signal(signal.SIGTERM, lambda number, frame: stopped.append(number))
start_watchdog()
print("held", flush=True)
while not stopped:
    time.sleep(0.02)
print("saved", flush=True)
sys.exit(143)
"""


def wait_for(log: Path, text: str) -> None:
    deadline = time.monotonic() + 60
    while not (log.exists() and text in log.read_text()):
        assert time.monotonic() < deadline, f"no '{text}' in {log}"
        time.sleep(0.02)


def asked_once_held(sweep: SweepFolder, ask: Callable[[], None]) -> JobRecord:
    """Return the end of a job that was asked to stop, after it has saved."""
    log = sweep.path / "0_x" / "output.log"
    with ThreadPoolExecutor(max_workers=1) as executor:
        asking = executor.submit(lambda: (wait_for(log, "held"), ask()))
        ended = run(HELD, sweep)
    asking.result()
    assert log.read_text() == "held\nsaved\n"
    return ended


def test_a_pruned_job_saves_and_is_no_failure(sweep: SweepFolder) -> None:
    ended = asked_once_held(sweep, lambda: sweep.ask_to_prune(0))
    assert (ended.status, ended.exit_code, ended.has_failed) == ("pruned", 143, False)


def test_a_stopped_sweeps_job_saves_and_goes(sweep: SweepFolder) -> None:
    ended = asked_once_held(sweep, lambda: sweep.ask_to_stop(signal.SIGINT))
    assert (ended.status, ended.reason, ended.exit_code) == ("interrupted", "the sweep was stopped", 143)


@pytest.mark.parametrize(
    ("error", "left", "exit_code"),
    [(KeyboardInterrupt, "held\n", -9), (SystemExit, "held\nsaved\n", 143)],
)
def test_a_parent_process_that_must_exit_ends_its_job(
    sweep: SweepFolder, error: type[BaseException], left: str, exit_code: int
) -> None:
    """A second Ctrl-C is impatient; the end of a SLURM job's time, which submitit turns into SystemExit, is not."""
    log = sweep.path / "0_x" / "output.log"

    def leave(*_: object) -> None:
        raise error

    previous = signal.signal(signal.SIGUSR1, leave)

    def interrupt() -> None:
        wait_for(log, "held")
        os.kill(os.getpid(), signal.SIGUSR1)

    interrupting = threading.Thread(target=interrupt)
    interrupting.start()
    try:
        with pytest.raises(error):
            run(HELD, sweep)
    finally:
        interrupting.join()
        signal.signal(signal.SIGUSR1, previous)
    record = sweep.record(0)
    assert record is not None
    assert (record.status, record.exit_code) == ("interrupted", exit_code)
    assert log.read_text() == left


def test_a_job_that_was_finished_by_hand_is_done(sweep: SweepFolder) -> None:
    failed = replace(RECORD, status="failed", exit_code=6)
    summary(sweep, status="failed")
    assert sweep.finalise(failed) is failed
    summary(sweep, status="finished")
    assert sweep.finalise(failed).status == "finished"
    pruned = replace(RECORD, status="pruned")
    assert sweep.finalise(pruned) is pruned


def test_who_asked_to_stop_is_known(sweep: SweepFolder) -> None:
    assert sweep.stop_signal() is None
    sweep.ask_to_stop(signal.SIGTERM)
    assert (sweep.stop_signal(), sweep.stop_signal(of_this_process=True)) == (15, 15)
    (sweep.path / "jobs" / "stop").write_text("2 PID 1 on elsewhere\n")
    assert (sweep.stop_signal(), sweep.stop_signal(of_this_process=True)) == (2, None)
    sweep.forget_stop()
    assert sweep.stop_signal() is None


@pytest.mark.usefixtures("hangups_count")
def test_a_terminal_that_vanishes_stops_a_sweep_once(sweep: SweepFolder) -> None:
    with sweep_module._signals_stop(sweep):
        for _ in range(2):
            os.kill(os.getpid(), signal.SIGHUP)
        assert sweep.stop_signal() == signal.SIGHUP
        with pytest.raises(KeyboardInterrupt):
            os.kill(os.getpid(), signal.SIGINT)
    sweep.forget_stop()
    signal.signal(signal.SIGHUP, signal.SIG_IGN)  # as under nohup
    with sweep_module._signals_stop(sweep):
        os.kill(os.getpid(), signal.SIGHUP)
        assert sweep.stop_signal() is None


@pytest.mark.usefixtures("hangups_count")
def test_the_worker_of_a_launcher_leaves_the_terminal_to_the_sweep() -> None:
    with process._interruptions_left_to_sweep():
        for number in (signal.SIGINT, signal.SIGHUP):
            os.kill(os.getpid(), number)
    with pytest.raises(KeyboardInterrupt):
        os.kill(os.getpid(), signal.SIGINT)


def test_a_job_whose_parent_process_is_killed_saves_and_exits(sweep: SweepFolder, tmp_path: Path) -> None:
    program = tmp_path / "parent.py"
    program.write_text(
        "import sys\nfrom pathlib import Path\nfrom genlab.launch import sweep_job as jobs\n"
        "from genlab.launch.sweep_folder import JobRecord, SweepFolder\n"
        f"record = JobRecord(number=0, overrides=(), folder='0_x', status='running')\n"
        f"folder = SweepFolder(Path({str(sweep.path)!r}))\n"
        f"jobs._run([sys.executable, '-c', {HELD!r}], record, folder, {{}})\n"
    )
    parent = subprocess.Popen([sys.executable, str(program)])
    log = sweep.path / "0_x" / "output.log"
    try:
        wait_for(log, "held")
    finally:
        parent.kill()
        parent.wait()
    wait_for(log, "saved")


def test_without_the_variable_there_is_no_watchdog() -> None:
    program = "from genlab.launch.sweep_job import start_watchdog; start_watchdog(); import threading; "
    program += "assert threading.active_count() == 1"
    result = subprocess.run([sys.executable, "-c", program], stdin=subprocess.DEVNULL, timeout=60)
    assert result.returncode == 0


def test_a_folder_that_somebody_holds_is_left_alone(sweep: SweepFolder, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(process, "_LEAVING_SECONDS", 0.1)
    folder = sweep.path / "0_x"
    (folder / "metrics.jsonl").write_text("precious\n")
    holder = subprocess.Popen(
        [
            sys.executable,
            "-c",
            "import sys\nfrom pathlib import Path\nfrom genlab.run.folder import locked\n"
            f"with locked(Path({str(folder)!r}), is_resumed=True):\n    print(flush=True)\n    sys.stdin.read()",
        ],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
    )
    with holder:
        assert holder.stdout is not None
        holder.stdout.readline()
        settings = SweepSettings(measure=None, minimize=True, resume=None)
        process._run_and_record(RECORD, sweep, settings, {})
    record = sweep.record(0)
    assert record is not None
    assert (record.status, record.exit_code) == ("failed", 8)
    assert f"in use by PID {holder.pid}" in str(record.reason)
    assert (folder / "metrics.jsonl").read_text() == "precious\n"
