"""One of two processes dies, errs or hangs, or their launcher is stopped: all end with a reason, and can be resumed.

The processes are those of a real launcher; what happens to one of them is planted in it through a ``sitecustomize``.
"""

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import pytest

from genlab.run.folder import resume_command
from tests.faults.harness import (
    TINY,
    assert_runs_equal,
    checkpoint_of,
    environment,
    scalars,
    seconds_since,
    start,
    summary_of,
)
from tests.faults.harness import run as run_to_end
from tests.faults.tally import Tally

pytestmark = pytest.mark.slow
FAULT = "7 rank death"
NOTE = "happened"
ROOT = Path(__file__).resolve().parents[2]
STEP = 12  # two steps after a checkpoint
OF_ONE = {
    "kill -9": "os.kill(os.getpid(), signal.SIGKILL)",
    "an error": "exec('raise ValueError(\"planted\")')",
    "a hang": "os.kill(os.getpid(), signal.SIGSTOP)",
}
"""Faults of process 1 in the first attempt."""
CAUSES = {
    ("trainer.devices", "kill -9"): "process 1 of 2 was killed by SIGKILL",
    ("trainer.devices", "an error"): "ValueError: planted",
    ("trainer.devices", "a hang"): "did not answer in time",
    # torchrun alone knows who died, and tells it on the terminal.
    ("torchrun", "kill -9"): "another process of the run is gone",
    ("torchrun", "an error"): "another process of the run is gone",
    ("torchrun", "a hang"): "did not answer in time",
}
WAYS = ("trainer.devices", "torchrun")
MOMENTS = (*(("trainer.devices", step) for step in (6, STEP, 33)), *(("torchrun", step) for step in (7, STEP)))
"""The launcher of the processes, and the step before which the fault happens; each fault is tried at all of them."""
LIMIT_SECONDS = 60
"""From the fault to the end of all processes, so that no process hangs; as much again where all start once more.

A stopped process takes 40 of them: ten until it is missed, and thirty that torch's launcher leaves it to end by itself.
"""
ENDLESS = (*TINY["draw"], "trainer.num_steps=100000", "trainer.validation_interval=0")


def planted(folder: Path, *, rank: int, act: str, at_step: int = STEP, before: str = "step") -> Path:
    """A folder for PYTHONPATH that lets one process of the first attempt do something before a step, or else.

    Its time is noted in the folder.
    """
    folder.mkdir(exist_ok=True)
    when = f"{at_step}, " if before == "step" else ""
    (folder / "sitecustomize.py").write_text(
        "import os, signal\n"
        f"if os.environ.get('RANK') == '{rank}' and os.environ.get('TORCHELASTIC_RESTART_COUNT') == '0':\n"
        "    from pathlib import Path\n"
        "    from tests.faults import hooks\n"
        f"    note = Path({str(folder / NOTE)!r})\n"
        f"    hooks.before_{before}({when}lambda: (hooks.note_time(note), {act}))\n"
    )
    return folder


def patched(folder: Path, code: str) -> Path:
    """A folder for PYTHONPATH that runs code in every process of genlab."""
    folder.mkdir(exist_ok=True)
    (folder / "sitecustomize.py").write_text(code)
    return folder


@contextmanager
def started(
    way: str, *words: str, folder: Path, restarts: int = 0, path: Path | None = None, timeout: str = "10"
) -> Iterator[subprocess.Popen[str]]:
    """Two processes of ``genlab train WORDS``, which do not survive the test."""
    of_torchrun = ["torch.distributed.run", "--nproc-per-node=2", f"--max-restarts={restarts}", "-m"]
    line = ["genlab", "train", *words, f"hydra.run.dir={folder}"]
    if way == "trainer.devices":
        line += ["trainer.devices=2", f"trainer.max_restarts={restarts}"]
    search = [*([str(path)] if path else []), str(ROOT)]
    variables = environment(
        PYTHONPATH=os.pathsep.join(search),
        GENLAB_TIMEOUT_SECONDS=timeout,
        TORCH_DISABLE_SHARE_RDZV_TCP_STORE="1",
    )
    process = subprocess.Popen(
        [sys.executable, "-m", *(of_torchrun if way == "torchrun" else []), *line],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        start_new_session=True,
        env=variables,
    )
    try:
        yield process
    finally:
        for pid in (process.pid, *processes_of(folder)):
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        process.communicate()


def run(way: str, *words: str, folder: Path, restarts: int = 0, path: Path | None = None) -> tuple[int, str]:
    """Exit code and output of two processes that come to their end, with nobody left behind, and in time."""
    with started(way, *words, folder=folder, restarts=restarts, path=path) as process:
        output, _ = process.communicate(timeout=300)
        assert processes_of(folder) == []
        if path is not None and (path / NOTE).exists():
            assert seconds_since(path / NOTE) < LIMIT_SECONDS * (1 + restarts)
        return process.returncode, output


def processes_of(folder: Path) -> list[int]:
    """The living processes on whose line a run folder stands."""
    found = []
    for entry in Path("/proc").iterdir():
        try:
            if entry.name.isdigit() and str(folder).encode() in (entry / "cmdline").read_bytes():
                found.append(int(entry.name))
        except OSError:
            continue
    return found


def step_of(folder: Path) -> int:
    """The last step that metrics.jsonl tells of; 0 before the first."""
    path = folder / "metrics.jsonl"
    lines = path.read_text().splitlines() if path.exists() else []
    return int(json.loads(lines[-1])["step"]) if lines else 0


def wait_for_step(step: int, folder: Path, process: subprocess.Popen[str]) -> None:
    deadline = time.monotonic() + 200
    while step_of(folder) < step:
        assert process.poll() is None, process.communicate()
        assert time.monotonic() < deadline, f"no step {step}"
        time.sleep(0.02)


def wait_until_gone(folder: Path, seconds: float) -> bool:
    """Return True if all processes of a run end within so many seconds."""
    deadline = time.monotonic() + seconds
    while processes_of(folder):
        if time.monotonic() > deadline:
            return False
        time.sleep(0.1)
    return True


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """The undisturbed run of two processes of a family, made when it is first asked for."""

    class Runs(dict[str, Path]):
        def __missing__(self, family: str) -> Path:
            self[family] = tmp_path_factory.mktemp("whole") / family
            code, output = run("trainer.devices", *TINY[family], folder=self[family])
            assert code == 0, output
            return self[family]

    return Runs()


def test_a_run_lives_through_a_death_and_stops_on_request(tmp_path: Path, tally: Tally) -> None:
    """The quick form of the two tests below, without the comparison with an undisturbed run."""
    folder = tmp_path / "run"
    plan = planted(tmp_path / "plan", rank=1, act=OF_ONE["kill -9"])
    with (
        tally.trying(FAULT, "kill -9 of one, restart allowed"),
        tally.trying(FAULT, "SIGTERM to the launcher"),
        started("trainer.devices", *ENDLESS, folder=folder, restarts=1, path=plan) as process,
    ):
        wait_for_step(STEP + 8, folder, process)
        process.terminate()
        output, _ = process.communicate(timeout=LIMIT_SECONDS)
        assert processes_of(folder) == []
        assert process.returncode == 143, output
        assert f"saved; to resume: {resume_command(folder)}" in output
        message = "started again, from the last checkpoint: process 1 of this machine died without an error report"
        assert output.count(message) == 1
        assert (folder / "train.log").read_text().count(message) == 1
        summary = summary_of(folder)
        assert (summary["status"], summary["reason"]) == ("interrupted", "signal 15")
        assert checkpoint_of(folder)["step"] == summary["step"]
        assert json.loads((folder / "environment.json").read_text())["num_processes"] == 2
        steps = [line["step"] for line in scalars(folder)]
        assert steps == sorted(set(steps))  # the second attempt went on from the first one's checkpoint
        assert steps[:3] == [5, 10, 15]


@pytest.mark.parametrize(
    ("way", "step", "fault", "family"),
    [
        *((way, step, fault, "draw") for fault in OF_ONE for way, step in MOMENTS),
        ("trainer.devices", STEP, "kill -9", "gan"),
    ],
)
def test_all_go_on_from_the_last_checkpoint_as_if_none_had_died(
    tmp_path: Path, whole: dict[str, Path], tally: Tally, way: str, step: int, fault: str, family: str
) -> None:
    folder = tmp_path / "run"
    with tally.trying(FAULT, f"{fault} of one, restart allowed"):
        plan = planted(tmp_path / "plan", rank=1, act=OF_ONE[fault], at_step=step)
        code, output = run(way, *TINY[family], folder=folder, restarts=1, path=plan)
        assert code == 0, output
        assert_runs_equal(whole[family], folder)


@pytest.mark.parametrize("step", [1, 20, 39])
def test_whenever_it_dies(tmp_path: Path, whole: dict[str, Path], tally: Tally, step: int) -> None:
    """Also before the first checkpoint, where the second attempt begins anew in the same folder."""
    folder = tmp_path / "run"
    with tally.trying(FAULT, "kill -9 of one, restart allowed"):
        plan = planted(tmp_path / "plan", rank=1, act=OF_ONE["kill -9"], at_step=step)
        code, output = run("trainer.devices", *TINY["draw"], folder=folder, restarts=1, path=plan)
        assert code == 0, output
        assert_runs_equal(whole["draw"], folder)


@pytest.mark.parametrize("way", WAYS)
def test_a_resumption_begins_anew_what_had_no_checkpoint(
    tmp_path: Path, whole: dict[str, Path], tally: Tally, way: str
) -> None:
    """The first process is killed before its first save, and in the resumption the other one as well."""
    folder = tmp_path / "run"
    with tally.trying(FAULT, "resumptions before there is a checkpoint"):
        code, output = run(
            way, *TINY["draw"], folder=folder, path=planted(tmp_path / "plan", rank=0, act=OF_ONE["kill -9"], at_step=3)
        )
        assert (code, summary_of(folder)["step"]) == (1, 0), output
        assert not (folder / "checkpoints" / "last.safetensors").exists()
        plan = planted(tmp_path / "plan", rank=1, act=OF_ONE["kill -9"], at_step=2)
        code, output = run(way, f"resume={folder}", folder=folder, restarts=1, path=plan)
        assert code == 0, output
        assert output.count("has no checkpoint yet: it begins anew") == 1
        assert_runs_equal(whole["draw"], folder)


@pytest.mark.parametrize("fault", OF_ONE)
@pytest.mark.parametrize(("way", "step"), MOMENTS)
def test_without_restarts_all_end_and_say_why(tmp_path: Path, tally: Tally, way: str, step: int, fault: str) -> None:
    folder = tmp_path / "run"
    with tally.trying(FAULT, f"{fault} of one, no restart"):
        plan = planted(tmp_path / "plan", rank=1, act=OF_ONE[fault], at_step=step)
        code, output = run(way, *TINY["draw"], folder=folder, path=plan)
        assert code == 1
        summary = summary_of(folder)
        assert summary["status"] == "failed"
        assert CAUSES[way, fault] in str(summary["reason"])
        assert checkpoint_of(folder)["step"] == step // 5 * 5
        if way == "trainer.devices":
            errors = [line for line in output.splitlines() if "error" in line.lower()]
            assert len(errors) == 1, output
            assert errors[0].startswith("genlab: error: ")
            assert CAUSES[way, fault] in errors[0]
            log = (folder / "train.log").read_text()
            assert CAUSES[way, fault] in log
            assert ("Traceback" in log) == (fault == "an error")  # a bug in a process that keeps no log of its own


@pytest.mark.parametrize("fault", ["kill -9", "a hang"])
@pytest.mark.parametrize("place", ["evaluation", "pictures"])
def test_what_happens_between_steps_is_noticed_too(tmp_path: Path, tally: Tally, place: str, fault: str) -> None:
    folder = tmp_path / "run"
    with tally.trying(FAULT, f"{fault} of one, in what is due between steps"):
        plan = planted(tmp_path / "plan", rank=1, act=OF_ONE[fault], before=place)
        code, output = run("trainer.devices", *TINY["draw"], "trainer.sample_interval=20", folder=folder, path=plan)
        assert code == 1
        assert CAUSES["trainer.devices", fault] in output
        summary = summary_of(folder)
        assert (summary["status"], summary["step"]) == ("failed", 20)


@pytest.mark.parametrize("command", ["evaluate", "sample"])
def test_a_death_ends_a_command_on_a_run(tmp_path: Path, tally: Tally, command: str) -> None:
    folder = tmp_path / "run"
    assert run_to_end("train", *TINY["draw"], folder=folder).returncode == 0
    before = {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()}
    with tally.trying(FAULT, f"kill -9 of one in genlab {command}"):
        endless = "num_importance_samples=1000000" if command == "evaluate" else "num_samples=1000000"
        process = start(command, f"run={folder}", "devices=2", "device=cpu", "num_threads=1", endless)
        deadline = time.monotonic() + 200
        while len(processes := processes_of(folder)) < 3:
            assert time.monotonic() < deadline
            time.sleep(0.2)
        time.sleep(5)  # they are at work
        os.kill(next(pid for pid in processes if pid != process.pid), signal.SIGKILL)
        _, errors = process.communicate(timeout=LIMIT_SECONDS)
        assert process.returncode == 1
        assert errors.count("\n") == 1
        assert "of 2 was killed by SIGKILL" in errors
        assert wait_until_gone(folder, LIMIT_SECONDS)
        assert before == {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()}


@pytest.mark.parametrize(("way", "step"), MOMENTS)
def test_the_death_of_the_first_is_written_down_by_others(tmp_path: Path, tally: Tally, way: str, step: int) -> None:
    folder = tmp_path / "run"
    with tally.trying(FAULT, "kill -9 of the first, no restart"):
        plan = planted(tmp_path / "plan", rank=0, act=OF_ONE["kill -9"], at_step=step)
        code, _ = run(way, *TINY["draw"], folder=folder, path=plan)
        assert code == 1
        summary = summary_of(folder)
        assert (summary["status"], "process" in str(summary["reason"])) == ("failed", True)


@pytest.mark.parametrize("number", [*(["SIGTERM"] * 5), "SIGINT", "SIGHUP"])
@pytest.mark.parametrize("way", WAYS)
def test_a_stop_reaches_all_at_one_step_and_the_run_resumes(
    tmp_path: Path, whole: dict[str, Path], tally: Tally, way: str, number: str
) -> None:
    """At an instant of its own each time."""
    folder = tmp_path / "run"
    with tally.trying(FAULT, f"{number} to the launcher"):
        with started(way, *TINY["draw"], folder=folder) as process:
            wait_for_step(10, folder, process)
            process.send_signal(signal.Signals[number])
            output, _ = process.communicate(timeout=LIMIT_SECONDS)
            assert processes_of(folder) == []
        # torchrun has one exit code for all that is not success.
        assert process.returncode == (1 if way == "torchrun" else 128 + signal.Signals[number]), output
        summary = summary_of(folder)
        assert (summary["status"], summary["reason"]) == ("interrupted", f"signal {int(signal.Signals[number])}")
        assert checkpoint_of(folder)["step"] == summary["step"]
        code, output = run(way, f"resume={folder}", folder=folder)
        assert code == 0, output
        assert_runs_equal(whole["draw"], folder)


@pytest.mark.parametrize("way", WAYS)
def test_a_killed_launcher_leaves_no_orphans(tmp_path: Path, whole: dict[str, Path], tally: Tally, way: str) -> None:
    folder = tmp_path / "run"
    with tally.trying(FAULT, "kill -9 of the launcher"):
        with started(way, *ENDLESS, folder=folder) as process:
            wait_for_step(10, folder, process)
            process.kill()
            process.wait()
            assert wait_until_gone(folder, LIMIT_SECONDS)
        assert summary_of(folder)["status"] == "interrupted"
        assert checkpoint_of(folder)["step"] == summary_of(folder)["step"]


def test_usr1_saves_and_goes_on(tmp_path: Path, tally: Tally) -> None:
    folder = tmp_path / "run"
    with (
        tally.trying(FAULT, "SIGUSR1 to the launcher"),
        started("trainer.devices", *ENDLESS, "trainer.checkpoint_interval=0", folder=folder) as process,
    ):
        wait_for_step(10, folder, process)
        process.send_signal(signal.SIGUSR1)
        deadline = time.monotonic() + 100
        while not (folder / "checkpoints" / "last.safetensors").exists():
            assert time.monotonic() < deadline
            time.sleep(0.05)
        wait_for_step(step_of(folder) + 5, folder, process)
        process.terminate()
        assert process.wait(LIMIT_SECONDS) == 143


def test_a_sweep_starts_its_jobs_in_several_processes(tmp_path: Path, tally: Tally) -> None:
    with tally.trying(FAULT, "jobs of a sweep over the number of processes", count=2):
        line = [*("genlab", "train", "-m"), *TINY["draw"], "trainer.devices=1,2", f"hydra.sweep.dir={tmp_path / 's'}"]
        result = subprocess.run(
            [sys.executable, "-m", *line], capture_output=True, text=True, timeout=300, env=environment()
        )
        assert result.returncode == 0, result.stderr
        assert [summary_of(path.parent)["status"] for path in (tmp_path / "s").rglob("summary.json")] == 2 * [
            "finished"
        ]
        assert processes_of(tmp_path) == []


def test_a_restart_that_forgets_its_run_would_be_noticed(tmp_path: Path, tally: Tally) -> None:
    plan = planted(tmp_path / "plan", rank=1, act=OF_ONE["kill -9"])
    with (plan / "sitecustomize.py").open("a") as file:
        file.write("from genlab.launch.worker import Worker\nWorker.remembered = lambda self: None\n")
    code, output = run("trainer.devices", *TINY["draw"], folder=tmp_path / "run", restarts=1, path=plan)
    assert code == 2, output
    assert "hydra.run.dir must be a new or empty folder" in output
    tally.wrong_variant_noticed(FAULT, "a restart as a fresh start")


def test_processes_that_do_not_watch_their_launcher_would_be_noticed(tmp_path: Path, tally: Tally) -> None:
    code = "from genlab.launch import worker\nworker._leave_with = lambda launcher: None\n"
    folder = tmp_path / "run"
    plan = patched(tmp_path / "plan", code)
    with started("trainer.devices", *ENDLESS, folder=folder, path=plan) as process:
        wait_for_step(10, folder, process)
        process.kill()
        process.wait()
        assert not wait_until_gone(folder, 15)
    tally.wrong_variant_noticed(FAULT, "no eye on the launcher")


def test_the_usual_timeout_would_be_noticed(tmp_path: Path, tally: Tally) -> None:
    folder = tmp_path / "run"
    plan = planted(tmp_path / "plan", rank=1, act=OF_ONE["a hang"])
    with started("trainer.devices", *TINY["draw"], folder=folder, path=plan, timeout="1800") as process:
        wait_for_step(10, folder, process)
        with pytest.raises(subprocess.TimeoutExpired):
            process.wait(LIMIT_SECONDS)
    tally.wrong_variant_noticed(FAULT, "the default timeout of half an hour")
