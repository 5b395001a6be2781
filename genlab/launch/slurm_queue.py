"""SLURM's queue, read by `squeue` and shortened by `scancel`.

The queue is on every cluster; the accounting database behind `sacct` is not. SLURM lists a job that has ended for some
minutes more (MinJobAge, 300 s by default).
"""

import os
import subprocess
from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path

from genlab.environment import environment
from genlab.errors import SweepError

_ENDED = {
    *("BOOT_FAIL", "CANCELLED", "COMPLETED", "DEADLINE", "FAILED", "NODE_FAIL", "OUT_OF_MEMORY", "PREEMPTED"),
    *("REVOKED", "TIMEOUT"),
}
_ANSWER_SECONDS = 60.0
_KEPT = ("SLURM_CONF", "SLURM_CLUSTERS")


@dataclass(frozen=True, kw_only=True)
class QueuedTask:
    """A task of a job array, or a job by itself, as SLURM lists it."""

    job: str
    """Number of the array, or of the job."""
    index: int
    """Within the array; 0 of a job by itself."""
    state: str
    reason: str
    """Why it waits, in SLURM's words; "None" for one that does not."""
    script: Path
    """The file that was submitted."""

    @property
    def is_active(self) -> bool:
        """Return False once SLURM will not run it any more; a task that is queued again is active."""
        return self.state not in _ENDED

    @property
    def is_pending(self) -> bool:
        """Return True while it waits, also to run again."""
        return self.state == "PENDING"


class QueueError(SweepError):
    """SLURM did not answer; it may later."""


def queued_tasks() -> list[QueuedTask]:
    """Return the tasks of this user, those that ended a short time ago included.

    Raises:
        QueueError: SLURM does not answer.
    """
    answer = _run("squeue", "--me", "--array", "--states=all", "--noheader", "--format=%i|%T|%r|%o")
    return [_task(line) for line in answer.splitlines() if line.count("|") >= 3]


def _task(line: str) -> QueuedTask:
    number, state, reason, script = line.split("|", 3)
    job, _, index = number.partition("_")
    is_element = index.isdecimal()
    return QueuedTask(job=job, index=int(index) if is_element else 0, state=state, reason=reason, script=Path(script))


def cancel(job: str, *, is_pending: bool = False) -> None:
    """Cancel a job or an array: running tasks get SIGTERM, and KillWait to save.

    Args:
        job: Its number.
        is_pending: True to cancel only what does not run yet.

    Raises:
        QueueError: SLURM does not answer.
    """
    _run("scancel", *(["--state=PENDING"] if is_pending else []), job)


def _run(*command: str) -> str:
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=_ANSWER_SECONDS, check=False)
    except FileNotFoundError as error:
        raise QueueError(
            f"hydra/launcher=slurm needs SLURM's commands, and {command[0]} is not installed here; start the command "
            "on the cluster, or use hydra/launcher=local"
        ) from error
    except (OSError, subprocess.TimeoutExpired) as error:
        raise QueueError(f"SLURM does not answer {command[0]}: {error}") from error
    if done.returncode != 0:
        said = done.stderr.strip() or f"exit code {done.returncode}"
        raise QueueError(f"SLURM does not answer {command[0]}: {said}")
    return done.stdout


def outside_of_job() -> AbstractContextManager[None]:
    """Hide the variables of a SLURM job that this process runs in, while a block runs.

    A job submitted by it would inherit its resources. Where SLURM's configuration lies, and what the user sets for
    sbatch (``SBATCH_*``), stay.
    """
    hidden = (name for name in os.environ if name.startswith(("SLURM_", "SLURMD_", "SRUN_")) and name not in _KEPT)
    return environment(dict.fromkeys(hidden))


def described(tasks: Mapping[int, QueuedTask], hint: Callable[[str], str | None]) -> str:
    """Return how many tasks are in which state, as "2 running, 3 pending (Resources)".

    Args:
        tasks: By their index.
        hint: Returns what to do about a reason; None if time will do it.
    """
    counts: dict[str, int] = {}
    for task in tasks.values():
        if task.is_active:
            text = task.state.lower()
            if task.is_pending and task.reason != "None":
                advice = hint(task.reason)
                text += f" ({task.reason})" if advice is None else f" ({task.reason}: {advice})"
            counts[text] = counts.get(text, 0) + 1
    return ", ".join(f"{number} {text}" for text, number in sorted(counts.items(), reverse=True))
