"""The launcher of `hydra/launcher=slurm`: the jobs of a sweep are an array of SLURM's.

submitit submits the array and starts its tasks; this module waits for them by SLURM's queue, where submitit waits for
the accounting database and for files that the tasks write. Without the database, which many clusters do not have,
submitit waits for ever for a job that was cancelled; and it takes a job that was preempted, which has written its file
and will run again, for one that has ended.
"""

import io
import signal
import sys
import time
from collections.abc import Mapping, Sequence
from contextlib import redirect_stderr, suppress
from dataclasses import replace
from itertools import count
from pathlib import Path
from typing import Any

import submitit
from hydra.core.singleton import Singleton
from hydra.core.utils import JobReturn, JobStatus
from hydra_plugins.hydra_submitit_launcher.config import BaseQueueConf  # type: ignore[import-untyped]
from hydra_plugins.hydra_submitit_launcher.submitit_launcher import SlurmLauncher  # type: ignore[import-untyped]
from omegaconf import OmegaConf
from submitit.core.utils import FailedJobError, FailedSubmissionError, pickle_load

from genlab.errors import SweepError
from genlab.launch.failures import ERROR_PREFIX, STOPPED_PREFIX
from genlab.launch.slurm_queue import QueuedTask, QueueError, cancel, described, outside_of_job, queued_tasks
from genlab.launch.sweep_folder import DONE, PLAN_NAME, JobRecord, SweepFolder
from genlab.launch.sweep_job import StoppedByLauncher, task_overrides_of, tell
from genlab.paths import from_here
from genlab.printing import one_line

_POLL_SECONDS = (2.0, 30.0)
_LOOK_SECONDS = 0.5
_TIME_IS_UP = "the time limit of its SLURM job"
# Since SLURM 22.05, srun does not take the number of cores from the job; where tasks are bound to cores, it is one.
_CORES = '[ -z "$SLURM_CPUS_PER_TASK" ] || export SRUN_CPUS_PER_TASK="$SLURM_CPUS_PER_TASK"'
_IN_BATCHES = "hydra.sweeper.max_batch_size=N submits N jobs at a time"
_OF_REFUSAL = {
    "gres": "hydra.launcher.gpus_per_node=null requests no GPU",
    "job array": f"{_IN_BATCHES}, at most the MaxArraySize of scontrol show config",
    "job submit limit": _IN_BATCHES,
}
_OF_WAITING = {
    "PartitionTimeLimit": "hydra.launcher.timeout_min is above the limit of the partition",
    "PartitionNodeLimit": "hydra.launcher.nodes is above the limit of the partition",
    "JobHeldUser": "scontrol release starts it",
}


class SlurmArrays(SlurmLauncher):  # type: ignore[misc]
    """Hydra launcher that submits jobs as an array, and returns when SLURM has ended them all."""

    _has_saved = False

    def launch(self, job_overrides: Sequence[Sequence[str]], initial_job_idx: int) -> list[JobReturn]:
        """Run jobs of the given overrides.

        Raises:
            SweepError: SLURM refuses them, or does not answer before they are submitted.
        """
        sweep = SweepFolder(Path(str(self.config.hydra.sweep.dir)))
        _end_former(sweep)
        jobs = self._submit(job_overrides, initial_job_idx)
        number = jobs[0].job_id.partition("_")[0]
        tell(f"SLURM job {number}, output: {from_here(jobs[0].paths.folder.parent)}", is_progress=True)
        try:
            tasks = _await(number, range(initial_job_idx, initial_job_idx + len(jobs)), sweep)
        except BaseException:
            with suppress(QueueError):
                cancel(number)
            raise
        return [
            _result(job, tasks.get(index), initial_job_idx + index, job_overrides[index], sweep)
            for index, job in enumerate(jobs)
        ]

    def _submit(self, job_overrides: Sequence[Sequence[str]], first: int) -> list[submitit.Job[JobReturn]]:
        settings = dict(self.params)
        executor = submitit.AutoExecutor(
            cluster="slurm",
            folder=settings.pop("submitit_folder"),
            slurm_max_num_timeout=settings.pop("max_num_timeout", 0),
        )
        settings["setup"] = [*(settings.get("setup") or ()), _CORES]
        shared = OmegaConf.structured(BaseQueueConf)
        state = Singleton.get_state()
        calls = [
            (list(overrides), "hydra.sweep.dir", number, f"job_id_for_{number}", state)
            for number, overrides in zip(count(first), job_overrides, strict=False)
        ]
        try:
            with outside_of_job(), redirect_stderr(io.StringIO()):  # submitit prints the refusal, too
                executor.update_parameters(
                    **{key if key in shared else f"slurm_{key}": value for key, value in settings.items()}
                )
                return executor.map_array(self, *zip(*calls, strict=True))
        except (FailedJobError, FailedSubmissionError) as error:
            lines = str(error).replace("sbatch: error: ", "").splitlines()
            refusal = one_line("; ".join(filter(None, lines)))
            hints = [hint for word, hint in _OF_REFUSAL.items() if word in refusal]
            raise SweepError("; ".join([f"SLURM refuses the jobs: {refusal}", *hints])) from error

    def __call__(self, *arguments: Any) -> JobReturn:
        """Run one job, in its task of the array."""
        self._has_saved = False  # it is pickled with the task that is queued again
        try:
            result: JobReturn = super().__call__(*arguments)
            return result
        except StoppedByLauncher:
            self._has_saved = True
            signal.raise_signal(signal.Signals[f"SIG{submitit.JobEnvironment.USR_SIG}"])
            raise

    def checkpoint(self, *arguments: Any) -> Any:
        """Return what runs when the task is queued again. submitit calls it at SLURM's signal before the time limit.

        Raises:
            StoppedByLauncher: The job has not saved yet. SLURM ends a task as soon as it is queued again, so the job
                saves first, and has until the time limit to do so.
            SweepError: The command has no checkpoints, such as `genlab evaluate`: it would begin anew each time.
        """
        if not self._has_saved:
            if not _has_table(SweepFolder(Path(str(self.config.hydra.sweep.dir)))):
                raise SweepError(f"{_TIME_IS_UP}; hydra.launcher.timeout_min allows it more")
            raise StoppedByLauncher(_TIME_IS_UP)
        return super().checkpoint(*arguments)


def _end_former(sweep: SweepFolder) -> None:
    """Cancel the tasks of this sweep that SLURM still has, since the process that waited for them was killed."""
    is_told = False
    while former := {task.job for task in queued_tasks() if task.is_active and _is_of(task, sweep)}:
        if not is_told:
            tell(f"cancelling the jobs of an earlier start: SLURM job {', '.join(sorted(former))}")
            is_told = True
        for number in former:
            cancel(number)
        time.sleep(_POLL_SECONDS[0])


def _is_of(task: QueuedTask, sweep: SweepFolder) -> bool:
    return sweep.path.resolve() in task.script.resolve().parents


def _await(number: str, jobs: Sequence[int], sweep: SweepFolder) -> dict[int, QueuedTask]:
    """Return the tasks of an array, by index as SLURM showed them last, when none is active any more.

    Args:
        number: Of the array.
        jobs: Numbers of the jobs, in the order of the tasks.
        sweep: Asked if its jobs shall stop; those that still wait are cancelled then.
    """
    tasks: dict[int, QueuedTask] = {}
    told, silence, began, is_stopped = "", "", time.monotonic(), False
    while True:
        try:
            listed = {task.index: task for task in queued_tasks() if task.job == number}
            if sweep.stop_signal() is not None:
                is_stopped = True
                if any(task.is_pending for task in listed.values()):
                    cancel(number, is_pending=True)
        except QueueError as error:
            if not silence:
                silence = one_line(str(error))
                tell(f"warning: {silence}; it is asked again")
        else:
            silence = ""
            _tell_ended(tasks, listed, jobs, sweep)
            tasks |= listed
            if not any(task.is_active for task in listed.values()):
                return tasks
            state = described(listed, _OF_WAITING.get)
            if state != told:
                told = state
                tell(f"SLURM job {number}: {state}", is_progress=True)
        shortest, longest = _POLL_SECONDS
        pause = min(max((time.monotonic() - began) / 10, shortest), longest)
        until = time.monotonic() + (shortest if is_stopped else pause)
        while time.monotonic() < until and (is_stopped or sweep.stop_signal() is None):
            time.sleep(_LOOK_SECONDS)


def _tell_ended(
    before: Mapping[int, QueuedTask], now: Mapping[int, QueuedTask], jobs: Sequence[int], sweep: SweepFolder
) -> None:
    for index, task in before.items():
        if task.is_active and not (index in now and now[index].is_active):
            record = sweep.record(jobs[index])
            if record is not None and record.status not in ("waiting", "running"):
                reason = "" if record.reason is None else f": {record.reason}"
                tell(f"job {record.number}: {record.status}{reason}", is_progress=not record.has_failed)


def _result(
    job: submitit.Job[JobReturn], task: QueuedTask | None, number: int, overrides: Sequence[str], sweep: SweepFolder
) -> JobReturn:
    """Return the result of a job; one that SLURM ended, and that could not say so itself, is recorded."""
    outcome, value = "lost", None
    with suppress(OSError, EOFError):
        outcome, value = pickle_load(job.paths.result_pickle)
    has_table = _has_table(sweep)
    if not has_table:
        _show(job)
    if outcome == "success":
        assert isinstance(value, JobReturn)
        return value
    reason = _reason_of(job, task) if outcome == "lost" else str(value).strip().splitlines()[-1]
    if not has_table:
        print(f"{ERROR_PREFIX}job {number}: {reason}", file=sys.stderr)  # noqa: T201 - Hydra names the first one only
        failed = JobReturn(overrides=overrides, status=JobStatus.FAILED)
        failed.return_value = SweepError(f"job {number}: {reason}")
        return failed
    record = sweep.record(number)
    if record is None:
        record = JobRecord(number=number, overrides=task_overrides_of(overrides), folder=None, status="waiting")
    if record.exit_code is None and record.status not in DONE and sweep.stop_signal() is None:
        if record.folder is not None:
            record = sweep.finalise(record)
        if record.status not in DONE:
            record = replace(record, status="killed", reason=reason, exit_code=-signal.SIGKILL)
            sweep.write_record(record)
            tell(f"job {number}: killed: {reason}")
    return JobReturn(overrides=overrides, status=JobStatus.COMPLETED)


def _show(job: submitit.Job[JobReturn]) -> None:
    """Print what a task has said: of a command without a table, such as `genlab evaluate`, that is the result."""
    with suppress(OSError):
        for line in job.paths.stdout.read_text(encoding="utf-8", errors="replace").splitlines():
            if not line.startswith("submitit "):
                print(line)  # noqa: T201
        for line in job.paths.stderr.read_text(encoding="utf-8", errors="replace").splitlines():
            if line.startswith(STOPPED_PREFIX):  # neither srun's lines nor tracebacks
                print(line, file=sys.stderr)  # noqa: T201


def _has_table(sweep: SweepFolder) -> bool:
    return (sweep.path / PLAN_NAME).exists()


def _reason_of(job: submitit.Job[JobReturn], task: QueuedTask | None) -> str:
    """Return how SLURM ended a job, and the last line that its task wrote."""
    state = "gone from its queue" if task is None else task.state
    if task is not None and task.is_active:  # it does not list a task of an array that was cancelled while it waited
        state = f"gone from its queue, where it was {state.lower()}"
    lines: list[str] = []
    for log in (job.paths.stdout, job.paths.stderr):
        with suppress(OSError):
            written = log.read_text(encoding="utf-8", errors="replace").strip().splitlines()
            lines = written or lines
    return one_line("; ".join([f"SLURM: {state}", *lines[-1:]]))
