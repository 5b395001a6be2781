"""The final status of a run whose own processes could not write it."""

from collections.abc import Mapping
from contextlib import suppress
from datetime import datetime
from pathlib import Path
from typing import Any

from genlab.errors import FolderInUseError, GenlabError, ProcessLostError, StoppedBySignal
from genlab.launch.processes import WorkerFailure
from genlab.run.folder import has_checkpoint, locked, read_summary, resume_command
from genlab.storage import json_bytes, replace_atomically
from genlab.training.summary import Status


def finalise_status(folder: Path, error: GenlabError, *, previous: Mapping[str, Any]) -> GenlabError:
    """Write the final status of a run whose rank 0 could not, into summary.json and train.log.

    Args:
        folder: Of the run, whose processes have ended; nothing is written if another process has locked it.
        error: What ended it.
        previous: summary.json before these processes; if it is unchanged, they changed nothing of the run.

    Returns:
        The same error, with a hint how to resume unless its message is complete.
    """
    summary = read_summary(folder)
    is_stopped = isinstance(error, StoppedBySignal)
    if is_stopped and summary.get("status") == "interrupted":
        kept = f"saved; to resume: {resume_command(folder)}" if has_checkpoint(folder) else "nothing was saved"
        return StoppedBySignal(f"{error} after step {summary['step']}; {kept}", error.exit_code - 128)
    if isinstance(error, WorkerFailure) and error.rank == 0:
        return error
    if summary.get("status") in ("running", "failed") and summary != previous:
        details = error.details if isinstance(error, WorkerFailure) else str(error)
        _write(folder, summary, "interrupted" if is_stopped else "failed", str(error), details)
    if isinstance(error, WorkerFailure):
        return error
    way_on = f"to resume from the last checkpoint: {resume_command(folder)}"
    message = f"{error}; {way_on if has_checkpoint(folder) else 'nothing was saved'}"
    return StoppedBySignal(message, error.exit_code - 128) if is_stopped else ProcessLostError(message)


def finalise_after_rank_0(folder: Path, *, previous: Mapping[str, Any]) -> None:
    """Finalise the status from a process other than rank 0, if rank 0 died without doing so.

    Args:
        folder: Of the run.
        previous: As for `finalise_status`.
    """
    summary = read_summary(folder)
    if summary.get("status") == "running" and summary != previous:
        reason = "the first process of the run died"
        _write(folder, summary, "failed", reason, reason)


def _write(folder: Path, summary: dict[str, Any], status: Status, reason: str, details: str) -> None:
    content = json_bytes({**summary, "status": status, "reason": reason})
    with suppress(FolderInUseError), locked(folder, is_resumed=True):
        replace_atomically(folder / "summary.json", content)
        with (folder / "train.log").open("a", encoding="utf-8") as log:
            log.write(f"{datetime.now():%Y-%m-%d %H:%M:%S} ERROR genlab: {details}\n")
