"""The launcher of SLURM: what it submits, how long it waits, and what it makes of the ways in which SLURM ends a job.

SLURM itself is not needed: its commands are small programs here. What they stand for was seen on SLURM 22.05.
"""

import os
import signal
import sys
import threading
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from hydra.core.utils import JobReturn, JobStatus

from genlab.errors import SweepError
from genlab.launch import slurm_queue, sweep_job
from genlab.launch.failures import explain
from genlab.launch.slurm_queue import QueuedTask, QueueError, described, outside_of_job, queued_tasks
from genlab.launch.sweep import _raise_for
from genlab.launch.sweep_folder import JobRecord, SweepFolder, SweepPlan
from genlab.launch.sweep_job import StoppedByLauncher
from tests.launch.test_sweep_job import HELD, wait_for

submitit = pytest.importorskip("submitit")

from submitit.core.job_environment import SignalHandler  # noqa: E402
from submitit.core.utils import DelayedSubmission, JobPaths, cloudpickle_dump  # noqa: E402
from submitit.slurm.slurm import SlurmJob, SlurmJobEnvironment  # noqa: E402

from genlab.launch import slurm  # noqa: E402
from genlab.launch.slurm import SlurmArrays  # noqa: E402

JOBS = (("seed=0",), ("seed=1",), ("seed=2",))
INTERRUPTED = JobRecord(
    number=0, overrides=("seed=0",), folder="0_x", status="interrupted", exit_code=143, reason="why"
)


def program(folder: Path, name: str, text: str) -> None:
    folder.mkdir(exist_ok=True)
    (folder / name).write_text(f"#!{sys.executable}\n{text}")
    (folder / name).chmod(0o755)


@pytest.fixture
def programs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    folder = tmp_path / "programs"
    folder.mkdir()
    monkeypatch.setenv("PATH", f"{folder}:{os.environ['PATH']}")
    return folder


@pytest.fixture
def sweep(tmp_path: Path) -> SweepFolder:
    folder = SweepFolder(tmp_path / "sweep")
    folder.write_plan(SweepPlan(overrides=("seed=0,1,2",), config_dir=None, jobs=JOBS), command="genlab")
    (folder.path / "0_x").mkdir()
    return folder


def task(index: int, state: str, reason: str = "None", *, job: str = "7", script: str = "/x.sh") -> QueuedTask:
    return QueuedTask(job=job, index=index, state=state, reason=reason, script=Path(script))


def test_the_queue_is_read_with_arrays_and_single_jobs(programs: Path) -> None:
    lines = ["7_0|RUNNING|None|/a/x.sh", "7_12|PENDING|Resources|/a/b|c.sh", "8|COMPLETED|None|/y.sh", "slurm: hello"]
    program(programs, "squeue", f"import sys\nassert '--states=all' in sys.argv\nprint({chr(10).join(lines)!r})")
    tasks = queued_tasks()
    assert [(each.job, each.index, each.state, each.reason) for each in tasks] == [
        ("7", 0, "RUNNING", "None"),
        ("7", 12, "PENDING", "Resources"),
        ("8", 0, "COMPLETED", "None"),
    ]
    assert tasks[1].script == Path("/a/b|c.sh")
    assert [each.is_active for each in tasks] == [True, True, False]


@pytest.mark.parametrize(
    ("state", "is_active"),
    [("COMPLETING", True), ("REQUEUED", True), ("SUSPENDED", True), ("TIMEOUT", False), ("OUT_OF_MEMORY", False)],
)
def test_a_task_is_active_until_slurm_will_not_run_it_again(state: str, is_active: bool) -> None:
    assert task(0, state).is_active == is_active


def test_a_queue_that_does_not_answer_is_an_error_of_its_own(programs: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    program(programs, "squeue", "import sys\nsys.exit('slurm_load_jobs error: Unable to contact slurm controller')")
    with pytest.raises(QueueError, match=r"SLURM does not answer squeue: slurm_load_jobs error: Unable to contact"):
        queued_tasks()
    monkeypatch.setenv("PATH", str(programs))
    with pytest.raises(QueueError, match="needs SLURM's commands, and scancel is not installed here"):
        slurm_queue.cancel("7")


def test_a_silent_queue_at_the_start_is_no_bug_of_genlab(sweep: SweepFolder, shown: Callable[..., Any]) -> None:
    shown(QueueError("SLURM does not answer squeue: x"))
    arrays = SlurmArrays()
    arrays.config = configuration(sweep)
    with pytest.raises(SweepError) as silent:
        arrays.launch([("seed=0",)], 0)
    assert explain(silent.value) == ("SLURM does not answer squeue: x", SweepError.exit_code)


def test_states_are_counted_and_a_wait_without_end_has_its_hint() -> None:
    tasks = {
        0: task(0, "PENDING", "PartitionTimeLimit"),
        1: task(1, "PENDING", "Resources"),
        2: task(2, "RUNNING"),
        3: task(3, "RUNNING"),
        4: task(4, "COMPLETED"),
    }
    assert described(tasks, slurm._OF_WAITING.get) == (
        "2 running, 1 pending (Resources), 1 pending (PartitionTimeLimit: hydra.launcher.timeout_min is above the "
        "limit of the partition)"
    )


def test_a_job_submitted_from_a_job_inherits_nothing_of_it(monkeypatch: pytest.MonkeyPatch) -> None:
    values = {"SLURM_MEM_PER_NODE": "1", "SRUN_X": "1", "SLURM_CONF": "/c", "SBATCH_RESERVATION": "night"}
    for name, value in values.items():
        monkeypatch.setenv(name, value)
    with outside_of_job():
        assert {name for name in values if name in os.environ} == {"SLURM_CONF", "SBATCH_RESERVATION"}
    assert {name: os.environ[name] for name in values} == values


class Cluster:
    """A queue that shows its snapshots one after the other, and the last one from then on."""

    def __init__(self, *snapshots: list[QueuedTask] | QueueError) -> None:
        self.snapshots = list(snapshots)
        self.cancelled: list[tuple[str, bool]] = []
        self.asked = 0

    def tasks(self) -> list[QueuedTask]:
        shown = self.snapshots[min(self.asked, len(self.snapshots) - 1)]
        self.asked += 1
        if isinstance(shown, QueueError):
            raise shown
        return shown

    def cancel(self, number: str, *, is_pending: bool = False) -> None:
        self.cancelled.append((number, is_pending))


@pytest.fixture
def shown(monkeypatch: pytest.MonkeyPatch) -> Callable[..., Cluster]:
    def show(*snapshots: list[QueuedTask] | QueueError) -> Cluster:
        cluster = Cluster(*snapshots)
        monkeypatch.setattr(slurm, "queued_tasks", cluster.tasks)
        monkeypatch.setattr(slurm, "cancel", cluster.cancel)
        monkeypatch.setattr(slurm, "_POLL_SECONDS", (0.01, 0.01))
        monkeypatch.setattr(slurm, "_LOOK_SECONDS", 0.001)
        return cluster

    return show


def test_a_preempted_job_is_waited_for_until_it_has_run_again(
    sweep: SweepFolder, shown: Callable[..., Cluster], capsys: pytest.CaptureFixture[str]
) -> None:
    """Its first process has saved, and written its end: "interrupted", and a result for submitit."""
    sweep.write_record(INTERRUPTED)
    cluster = shown(
        [task(0, "RUNNING")],
        [task(0, "COMPLETING")],
        [task(0, "PENDING", "BeginTime")],
        [task(0, "RUNNING")],
        [task(0, "COMPLETED"), task(3, "RUNNING", job="8")],  # another job of this user
    )
    assert slurm._await("7", [0], sweep)[0].state == "COMPLETED"
    assert cluster.asked == 5
    assert capsys.readouterr().out.splitlines() == [
        "SLURM job 7: 1 running",
        "SLURM job 7: 1 completing",
        "SLURM job 7: 1 pending (BeginTime)",
        "SLURM job 7: 1 running",
        "job 0: interrupted: why",
    ]


def test_a_controller_that_restarts_ends_no_sweep(
    sweep: SweepFolder, shown: Callable[..., Cluster], capsys: pytest.CaptureFixture[str]
) -> None:
    silence = QueueError("squeue: no controller")
    shown([task(0, "RUNNING")], silence, silence, [task(0, "FAILED")])
    assert slurm._await("7", [0], sweep)[0].state == "FAILED"
    assert capsys.readouterr().out.count("no controller") == 1


def test_a_cancelled_job_that_slurm_forgets_has_ended(sweep: SweepFolder, shown: Callable[..., Cluster]) -> None:
    shown([task(0, "RUNNING"), task(1, "PENDING", "Priority")], [task(0, "COMPLETED")])
    tasks = slurm._await("7", [0, 1], sweep)
    assert (tasks[0].state, tasks[1].state) == ("COMPLETED", "PENDING")


def test_a_sweep_that_stops_cancels_what_waits_and_lets_the_rest_save(
    sweep: SweepFolder, shown: Callable[..., Cluster]
) -> None:
    running, pending = task(0, "RUNNING"), task(1, "PENDING", "JobArrayTaskLimit")
    cluster = shown([running, pending], [running], [running], [task(0, "COMPLETED")])
    sweep.ask_to_stop(signal.SIGINT)
    slurm._await("7", [0, 1], sweep)
    assert cluster.cancelled == [("7", True)]


def test_the_jobs_of_a_killed_command_are_cancelled_before_others_are_submitted(
    sweep: SweepFolder, shown: Callable[..., Cluster], capsys: pytest.CaptureFixture[str]
) -> None:
    ours, others = str(sweep.path / ".submitit" / "x" / "s.sh"), "/elsewhere/.submitit/x/s.sh"
    cluster = shown(
        [
            task(0, "RUNNING", script=ours),
            task(1, "COMPLETED", job="6", script=ours),
            task(0, "RUNNING", job="8", script=others),
        ],
        [task(0, "CANCELLED", script=ours)],
    )
    slurm._end_former(sweep)
    assert cluster.cancelled == [("7", False)]
    assert "cancelling the jobs of an earlier start: SLURM job 7" in capsys.readouterr().out


def test_a_command_that_is_ended_at_once_cancels_its_jobs(
    sweep: SweepFolder, shown: Callable[..., Cluster], monkeypatch: pytest.MonkeyPatch
) -> None:
    cluster = shown([])

    def interrupted(*_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(slurm, "_await", interrupted)
    job = SlurmJob(folder=sweep.path / ".submitit" / "%j", job_id="7_0")
    monkeypatch.setattr(SlurmArrays, "_submit", lambda *_: [job])
    arrays = SlurmArrays()
    arrays.config = configuration(sweep)
    with pytest.raises(KeyboardInterrupt):
        arrays.launch([("seed=0",)], 0)
    assert cluster.cancelled == [("7", False)]


def configuration(sweep: SweepFolder) -> Any:
    from omegaconf import OmegaConf

    return OmegaConf.create({"hydra": {"sweep": {"dir": str(sweep.path)}}})


def result(sweep: SweepFolder, seen: QueuedTask | None, *, stdout: str = "", stderr: str = "") -> JobReturn:
    job = SlurmJob(folder=sweep.path / ".submitit" / "%j", job_id="7_0")
    job._results_timeout_s = 0
    job.paths.folder.mkdir(parents=True, exist_ok=True)
    job.paths.stdout.write_text(stdout)
    job.paths.stderr.write_text(stderr)
    return slurm._result(job, seen, 0, ("seed=0", "sweep.measure=null"), sweep)


LOST = [
    (None, "", "", "SLURM: gone from its queue"),
    (task(0, "PENDING"), "", "", "SLURM: gone from its queue, where it was pending"),
    (task(0, "OUT_OF_MEMORY"), "job 0: seed=0\n", "", "SLURM: OUT_OF_MEMORY; job 0: seed=0"),
    (task(0, "FAILED"), "x", "a\nexecve(): python: No such file\n", "SLURM: FAILED; execve(): python: No such file"),
]


@pytest.mark.parametrize(("seen", "stdout", "stderr", "reason"), LOST)
@pytest.mark.parametrize("before", [None, "running", "interrupted"])
def test_a_job_that_slurm_ended_is_recorded_as_killed(
    sweep: SweepFolder, seen: QueuedTask | None, stdout: str, stderr: str, reason: str, before: Any
) -> None:
    if before is not None:
        sweep.write_record(replace(INTERRUPTED, status=before, exit_code=None))
    assert result(sweep, seen, stdout=stdout, stderr=stderr).status is JobStatus.COMPLETED
    record = sweep.record(0)
    assert record is not None
    assert (record.status, record.reason, record.exit_code, record.has_failed) == ("killed", reason, -9, True)
    assert record.overrides == ("seed=0",)


def test_a_job_that_has_said_its_end_keeps_it(sweep: SweepFolder) -> None:
    sweep.write_record(INTERRUPTED)
    result(sweep, task(0, "CANCELLED"))
    assert sweep.record(0) == INTERRUPTED


def test_jobs_that_a_stop_has_cancelled_still_wait(sweep: SweepFolder) -> None:
    sweep.ask_to_stop(signal.SIGINT)
    result(sweep, task(0, "PENDING"))
    assert sweep.record(0) is None


def test_jobs_without_a_table_return_their_result_or_fail(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    sweep = SweepFolder(tmp_path)
    failed = result(sweep, task(0, "TIMEOUT"))
    assert capsys.readouterr().err == "genlab: error: job 0: SLURM: TIMEOUT\n"
    with pytest.raises(SweepError, match="job 0: SLURM: TIMEOUT"):
        _ = failed.return_value
    paths = JobPaths(sweep.path / ".submitit" / "%j", job_id="7_0")
    cloudpickle_dump(("success", JobReturn(status=JobStatus.COMPLETED, _return_value=3)), paths.result_pickle)
    assert result(sweep, task(0, "COMPLETED")).return_value == 3
    cloudpickle_dump(("error", "Traceback\nValueError: seven\n"), paths.result_pickle)
    with pytest.raises(SweepError, match="job 0: ValueError: seven"):
        _ = result(sweep, task(0, "FAILED")).return_value


def test_what_jobs_without_a_table_have_printed_reaches_the_terminal(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """It is the result of `genlab evaluate -m`; a sweep with a table has the values there."""
    sweep = SweepFolder(tmp_path)
    paths = JobPaths(sweep.path / ".submitit" / "%j", job_id="7_0")
    paths.folder.mkdir(parents=True)
    cloudpickle_dump(("success", JobReturn(status=JobStatus.COMPLETED, _return_value=3)), paths.result_pickle)
    written = {
        "stdout": "submitit INFO (x) - Starting\nnll  100.5\n  sd  2\nsubmitit INFO (x) - done\n",
        "stderr": "srun: error: x\ngenlab: warning: y\nTraceback\n",
    }
    result(sweep, task(0, "COMPLETED"), **written)
    assert capsys.readouterr() == ("nll  100.5\n  sd  2\n", "genlab: warning: y\n")


def test_the_time_limit_ends_a_command_without_checkpoints(tmp_path: Path, sweep: SweepFolder) -> None:
    """Queued again, it would begin anew, and reach the limit anew."""
    arrays = SlurmArrays()
    arrays.config = configuration(sweep)
    with pytest.raises(StoppedByLauncher):
        arrays.checkpoint()
    arrays.config = configuration(SweepFolder(tmp_path / "multirun"))
    with pytest.raises(SweepError, match="the time limit of its SLURM job; hydra"):
        arrays.checkpoint()


REFUSED = [
    (
        "sbatch: error: Invalid generic resource (gres) specification",
        "SLURM refuses the jobs: Invalid generic resource (gres) specification; hydra.launcher.gpus_per_node=null "
        "requests no GPU",
    ),
    (
        "sbatch: error: invalid partition specified: x\nsbatch: error: Batch job submission failed: no",
        "SLURM refuses the jobs: invalid partition specified: x; Batch job submission failed: no",
    ),
    (
        "sbatch: error: Batch job submission failed: Invalid job array specification",
        "SLURM refuses the jobs: Batch job submission failed: Invalid job array specification; "
        "hydra.sweeper.max_batch_size=N submits N jobs at a time, at most the MaxArraySize of scontrol show config",
    ),
]


@pytest.mark.parametrize(("said", "message"), REFUSED)
def test_a_refusal_is_given_in_a_line(
    sweep: SweepFolder, programs: Path, said: str, message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    program(programs, "srun", "")
    program(programs, "sbatch", f"import sys\nsys.exit({said!r})")
    arrays = SlurmArrays(submitit_folder=str(sweep.path / ".submitit" / "%j"), timeout_min=5, partition="x")
    with pytest.raises(SweepError) as refused:
        arrays._submit([("seed=0",), ("seed=1",)], 0)
    assert str(refused.value) == message
    assert capsys.readouterr().err == ""


def test_a_sweep_that_slurm_refuses_names_its_resumption() -> None:
    """Such as a search whose next jobs are submitted while the controller is away."""
    with pytest.raises(SweepError) as ended:
        _raise_for((), QueueError("SLURM does not answer squeue: x"), way_on="LINE", is_search=True)
    assert str(ended.value) == "the sweep ended early: SLURM does not answer squeue: x; to resume: LINE"


def test_srun_is_told_the_cores_of_the_task(sweep: SweepFolder, programs: Path) -> None:
    """Since SLURM 22.05 it does not take them from the job; with TaskPluginParam=Cores, a job had one core."""
    program(programs, "srun", "")
    program(programs, "sbatch", "print('Submitted batch job 7')")
    arrays = SlurmArrays(
        submitit_folder=str(sweep.path / ".submitit" / "%j"), timeout_min=5, cpus_per_task=4, setup=["module load x"]
    )
    job = arrays._submit([("seed=0",)], 0)[0]
    lines = job.paths.submission_file.read_text().splitlines()
    assert lines.index("module load x") < lines.index(slurm._CORES) < lines.index("export SUBMITIT_EXECUTOR=slurm")


@pytest.fixture
def usr2() -> Iterator[None]:
    previous = signal.getsignal(signal.SIGUSR2)
    yield
    signal.signal(signal.SIGUSR2, previous)


@pytest.mark.usefixtures("usr2")
@pytest.mark.parametrize("countdown", [1, 0])
def test_a_job_saves_before_it_is_queued_again(
    sweep: SweepFolder, monkeypatch: pytest.MonkeyPatch, countdown: int
) -> None:
    """SLURM ends a task as soon as it is queued again; submitit alone would queue it before it has saved."""
    log, saved_at_requeue = sweep.path / "0_x" / "output.log", []
    record = JobRecord(number=0, overrides=("seed=0",), folder="0_x", status="running")
    monkeypatch.setattr(
        slurm.SlurmLauncher,
        "__call__",
        lambda self, *_: sweep_job._run([sys.executable, "-c", HELD], record, sweep, {}),
    )
    monkeypatch.setattr(SlurmJobEnvironment, "_requeue", lambda self, _: saved_at_requeue.append(log.read_text()))
    monkeypatch.setenv("SLURM_JOB_ID", "7")
    monkeypatch.setenv("SUBMITIT_EXECUTOR", "slurm")
    paths = JobPaths(sweep.path / ".submitit" / "%j", job_id="7")
    paths.folder.mkdir(parents=True)
    arrays = SlurmArrays()
    arrays.config = configuration(sweep)
    submission = DelayedSubmission(arrays, "arguments")
    submission.set_timeout(0, countdown)
    handler = SignalHandler(SlurmJobEnvironment(), paths, submission)
    signal.signal(signal.SIGUSR2, handler.checkpoint_and_try_requeue)

    def end_of_time() -> None:
        wait_for(log, "held")
        os.kill(os.getpid(), signal.SIGUSR2)

    ending = threading.Thread(target=end_of_time)
    ending.start()
    # Queued again, the process exits; after the last time, submitit raises.
    expected: type[BaseException] = SystemExit if countdown else submitit.core.utils.UncompletedJobError
    try:
        with pytest.raises(expected):
            submission.result()
    finally:
        ending.join()
    assert log.read_text() == "held\nsaved\n"
    assert saved_at_requeue == (["held\nsaved\n"] if countdown else [])
    ended = sweep.record(0)
    assert ended is not None
    assert (ended.status, ended.reason, ended.exit_code) == ("interrupted", "the time limit of its SLURM job", 143)
