"""What becomes of a run whose own processes could not write it down."""

import json
from contextlib import suppress
from pathlib import Path

from genlab.composition.run_folder import claimed, has_checkpoint
from genlab.composition.sweep.folder import read_summary
from genlab.errors import FolderInUseError, ProcessLostError, StoppedBySignal
from genlab.storage import replace_atomically


def settled(folder: Path, error: ProcessLostError | StoppedBySignal) -> ProcessLostError | StoppedBySignal:
    """Write into summary.json how a run ended, and say so with what is left.

    Args:
        folder: Of the run, whose processes are gone; one that another process holds is left alone.
        error: What ended it.

    Returns:
        The same error with the way on.
    """
    is_stopped = isinstance(error, StoppedBySignal)
    summary = read_summary(folder)
    if is_stopped and summary.get("status") == "interrupted":
        return StoppedBySignal(f"{error} after step {summary['step']}; saved, resumable", error.exit_code - 128)
    if summary and summary["status"] not in ("finished", "diverged"):
        summary |= {"status": "interrupted" if is_stopped else "failed", "reason": str(error)}
        with suppress(FolderInUseError), claimed(folder, is_resumed=True):
            replace_atomically(folder / "summary.json", json.dumps(summary, indent=1).encode())
    way_on = f"to go on from the last checkpoint: genlab train resume={folder}"
    message = f"{error}; {way_on if has_checkpoint(folder) else 'nothing was saved'}"
    return StoppedBySignal(message, error.exit_code - 128) if is_stopped else ProcessLostError(message)


def settle_after_first(folder: Path) -> None:
    """In another process than the first: if that one died without a word, put one down in its place."""
    with suppress(FolderInUseError), claimed(folder, is_resumed=True):
        summary = read_summary(folder)
        if summary.get("status") == "running":
            summary |= {"status": "failed", "reason": "the first process of the run died"}
            replace_atomically(folder / "summary.json", json.dumps(summary, indent=1).encode())
