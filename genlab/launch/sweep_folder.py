"""The files of a sweep beside the folders of its runs.

::

    sweep.yaml         the command as it was typed, and every job's overrides (null where a search makes them)
    jobs/3.json        the record of job 3
    jobs/3.prune       a request that job 3 stops, since others are better
    jobs/stop          a request that every job stops, and no other starts
    summary.csv        a row for each job; seeds.csv for each setting if seeds vary
    study.db           of a search, the trials of Optuna
    3_seed-3/          the run folder of job 3

Files, not messages: jobs may run on another machine that shares nothing but this folder.
"""

import os
import shutil
import socket
import time
from contextlib import suppress
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, Literal

import yaml  # type: ignore[import-untyped]

from genlab.config.fields import adapter
from genlab.config.plain_yaml import read_plain
from genlab.errors import ConfigurationError, FolderInUseError, StorageError
from genlab.run.folder import has_checkpoint, is_dry_run, read_summary
from genlab.run.names import CONFIG_NAME, LAST, RUNS_ROOT
from genlab.storage import json_bytes, read_within, replace_atomically

PLAN_NAME = "sweep.yaml"
TABLE_NAME = "summary.csv"
SEEDS_NAME = "seeds.csv"
STORAGE_NAME = "study.db"
STOPPED = "the sweep was stopped"
JOBS_NAME = "jobs"
_STOP_NAME = "stop"

JobStatus = Literal["waiting", "running", "finished", "pruned", "interrupted", "killed", "diverged", "failed"]
DONE: tuple[JobStatus, ...] = ("finished", "pruned")


@dataclass(frozen=True, kw_only=True)
class JobRecord:
    """The record of one job of a sweep."""

    number: int
    overrides: tuple[str, ...]
    folder: str | None
    """Folder of its run, relative to the sweep's; None before it started."""
    status: JobStatus
    reason: str | None = None
    exit_code: int | None = None
    """Of its process; -n when signal n killed it."""
    num_threads: int | None = None
    """Number of threads of its share of the cores; None without a share."""

    @property
    def arguments(self) -> tuple[str, ...]:
        """Return the overrides that repeat the job."""
        return self.overrides if self.num_threads is None else (*self.overrides, f"num_threads={self.num_threads}")

    @property
    def has_failed(self) -> bool:
        """Return True if its process failed; a run that its own time limit stopped has not."""
        return self.status not in ("waiting", "running", "pruned") and self.exit_code not in (0, None)

    @property
    def is_at_its_limit(self) -> bool:
        """Return True if its own limit of time ended it, so that a resumption gives it that time again."""
        return self.status == "interrupted" and self.exit_code == 0

    @property
    def was_cut_short(self) -> bool:
        """Return True if it failed for a reason that says nothing of its settings: a signal, a full disk, a folder in
        use. A search repeats such a job, as a grid repeats all that failed."""
        from_outside = self.exit_code in (StorageError.exit_code, FolderInUseError.exit_code)
        return self.has_failed and (from_outside or self.status in ("killed", "interrupted"))


@dataclass(frozen=True, kw_only=True)
class SweepPlan:
    """The plan of a sweep."""

    overrides: tuple[str, ...]
    """Overrides of the command line, as typed."""
    config_dir: str | None
    jobs: tuple[tuple[str, ...], ...] | None
    """Overrides of each job; None where a search makes them one by one."""
    began: float | None = None
    """The first start, in seconds since 1970; None before it."""


def last_sweep() -> Path:
    """Return the folder of the sweep that was started or resumed last.

    Raises:
        ConfigurationError: There is no sweep below outputs/.
    """
    plans = Path(RUNS_ROOT).rglob(PLAN_NAME)
    newest = max(plans, key=lambda path: path.stat().st_mtime, default=None)
    if newest is None:
        raise ConfigurationError(f"sweep.resume={LAST} needs a sweep below {RUNS_ROOT}/; start one: genlab train -m")
    return newest.parent


class SweepFolder:
    """Access to a sweep's own files."""

    def __init__(self, path: Path) -> None:
        self.path = path.absolute()
        self.jobs_folder = self.path / JOBS_NAME

    def write_plan(self, plan: SweepPlan, *, command: str) -> None:
        """Write sweep.yaml, which keeps the time of its first start; the command is for people."""
        self.jobs_folder.mkdir(parents=True, exist_ok=True)
        with suppress(ConfigurationError):
            plan = replace(plan, began=self.read_plan().began)
        jobs = None if plan.jobs is None else [list(job) for job in plan.jobs]
        content = {
            "command": command,
            "began": time.time() if plan.began is None else plan.began,
            "words": list(plan.overrides),
            "config_dir": plan.config_dir,
            "jobs": jobs,
        }
        text = yaml.safe_dump(content, sort_keys=False, allow_unicode=True, width=120)
        replace_atomically(self.path / PLAN_NAME, text.encode())

    def read_plan(self) -> SweepPlan:
        """Read sweep.yaml.

        Raises:
            ConfigurationError: The file is missing or damaged.
        """
        path = self.path / PLAN_NAME
        try:
            content = read_plain(self.path, PLAN_NAME)
            plan: SweepPlan = adapter(SweepPlan).validate_python({**content, "overrides": content["words"]})
            return plan
        except OSError as error:
            raise ConfigurationError(
                f"sweep.resume must be a folder of a sweep, got {self.path}: no {path.name}"
            ) from error
        except (ValueError, KeyError) as error:
            raise ConfigurationError(f"{path} is damaged; start the sweep anew") from error

    def write_record(self, record: JobRecord) -> None:
        """Write the record of a job."""
        replace_atomically(self.jobs_folder / f"{record.number}.json", json_bytes(asdict(record)) + b"\n")

    def record(self, number: int) -> JobRecord | None:
        """Return the record of a job, as its last process wrote it; None before it started."""
        try:
            content = read_within(self.path, f"{JOBS_NAME}/{number}.json")
            record: JobRecord = adapter(JobRecord).validate_json(content, strict=True)
        except (OSError, ValueError):
            return None
        is_inside = record.folder is None or self.path.resolve() in self.run_folder(record).resolve().parents
        return record if record.number == number and is_inside else None

    def records(self) -> list[JobRecord]:
        """Return the records of all jobs by number, including those that wait."""
        started = {}
        for path in self.jobs_folder.glob("*.json"):
            record = self.record(int(path.stem)) if path.stem.isdecimal() else None
            if record is not None:
                started[record.number] = record
        for number, overrides in enumerate(self.read_plan().jobs or ()):
            waiting = JobRecord(number=number, overrides=overrides, folder=None, status="waiting")
            started.setdefault(number, waiting)
        return [started[number] for number in sorted(started)]

    def is_dry_run(self) -> bool:
        """Return True if its jobs were started by ``trainer.dry_run=true``, and have no checkpoints to lose."""
        folders = self._run_folders()
        return any(map(is_dry_run, folders)) and not any(map(has_checkpoint, folders))

    def clear(self) -> None:
        """Remove the jobs with their runs, for another sweep in this folder."""
        for folder in (*self._run_folders(), self.jobs_folder):
            shutil.rmtree(folder, ignore_errors=True)
        for name in (PLAN_NAME, TABLE_NAME, SEEDS_NAME, STORAGE_NAME):
            (self.path / name).unlink(missing_ok=True)

    def _run_folders(self) -> list[Path]:
        return [self.run_folder(record) for record in self.records() if record.folder is not None]

    def run_folder(self, record: JobRecord) -> Path:
        """Return the run folder of a job that has started."""
        assert record.folder is not None
        return self.path / record.folder

    def run_summary(self, record: JobRecord) -> dict[str, Any]:
        """Return the summary.json of a job's run; empty if absent."""
        return {} if record.folder is None else read_summary(self.run_folder(record))

    def run_configuration(self, record: JobRecord) -> dict[str, Any]:
        """Return the config.yaml of a job's run; empty if absent or damaged."""
        try:
            return {} if record.folder is None else read_plain(self.run_folder(record), CONFIG_NAME)
        except (OSError, ValueError):
            return {}

    def _is_removed(self, record: JobRecord) -> bool:
        """Return True if the run of a job is gone; Hydra makes its folder again before the job is looked at."""
        return record.folder is not None and not (self.run_folder(record) / CONFIG_NAME).exists()

    def ask_to_prune(self, number: int) -> None:
        """Ask the parent process of a job to stop it."""
        (self.jobs_folder / f"{number}.prune").touch()

    def is_asked_to_prune(self, number: int) -> bool:
        """Return True if the job was asked to stop."""
        return (self.jobs_folder / f"{number}.prune").exists()

    def ask_to_stop(self, signal_number: int) -> None:
        """Ask every job to stop, because this process got a signal."""
        text = f"{signal_number} {_this_process()}\n"
        replace_atomically(self.jobs_folder / _STOP_NAME, text.encode())

    def forget_stop(self) -> None:
        """Remove the request to stop."""
        (self.jobs_folder / _STOP_NAME).unlink(missing_ok=True)

    def stop_signal(self, *, of_this_process: bool = False) -> int | None:
        """Return the signal for which every job shall stop; None without a request, or with one of another process."""
        try:
            number, _, asker = (self.jobs_folder / _STOP_NAME).read_text(encoding="utf-8").strip().partition(" ")
        except OSError:
            return None
        return None if of_this_process and asker != _this_process() else int(number)

    def finalise(self, record: JobRecord) -> JobRecord:
        """Finalise the status of a job from its run folder: its parent process is gone, or it was resumed by hand."""
        summary = self.run_summary(record)
        if record.status in DONE:
            if summary or not self._is_removed(record):
                return record
            finalised = replace(record, status="interrupted", reason="its run folder was removed", exit_code=None)
        elif summary.get("status") == "finished":
            finalised = replace(record, status="finished", reason=summary.get("reason"), exit_code=0)
        elif record.status == "running":
            finalised = replace(record, status="interrupted", reason=STOPPED)
        else:
            return record
        self.write_record(finalised)
        return finalised


def _this_process() -> str:
    return f"PID {os.getpid()} on {socket.gethostname()}"
