"""Error messages of a run that failed, in a line: the failure, the state that is kept, and a hint."""

from pathlib import Path

from genlab.errors import GenlabError, MemoryExhaustedError, NonFiniteError, StorageError, is_out_of_memory
from genlab.models.base import Model
from genlab.paths import resume_command
from genlab.run.checkpoint import CheckpointFolder
from genlab.storage import free_bytes, is_disk_full
from genlab.training.settings import TrainerSettings


def diverged(what: str, *, step: int, checkpoints: CheckpointFolder) -> NonFiniteError:
    """Return the error for a value that is not finite.

    Args:
        what: The value that is not finite, and the action that was skipped.
        step: At which it was seen.
        checkpoints: Of the run.
    """
    last = checkpoints.last_step
    kept = "there is no checkpoint yet" if last is None else f"the last checkpoint is of step {last}"
    return NonFiniteError(f"step {step}: {what}; {kept}; try a lower optimizer.default.lr or trainer.max_gradient_norm")


def explained(
    error: BaseException, *, step: int, settings: TrainerSettings, checkpoints: CheckpointFolder, model: Model
) -> GenlabError | None:
    """Return the error message for a shortage of memory or of disk space; None for any other failure.

    Args:
        error: As torch or the system tells it.
        step: In which it came.
        settings: Of the run.
        checkpoints: Of the run.
        model: Of the run.
    """
    run_folder = checkpoints.path.parent
    if is_out_of_memory(error):
        return _memory_exhausted(error, step=step, settings=settings, checkpoints=checkpoints, model=model)
    return disk_full(error, run_folder) if is_disk_full(error) else None


def _memory_exhausted(
    error: BaseException, *, step: int, settings: TrainerSettings, checkpoints: CheckpointFolder, model: Model
) -> MemoryExhaustedError:
    """Return the error for a shortage of memory. No setting is changed automatically, as that would change the run."""
    size, parts = settings.batch_size, settings.gradient_accumulation
    more = next((number for number in range(parts + 1, size + 1) if size % number == 0), None)
    smaller = "a smaller trainer.batch_size"
    if more is not None and settings.labelled_fraction is None and model.needs_whole_batch is None:
        smaller = f"trainer.gradient_accumulation={more}, or {smaller}"
    start = "the same line" if checkpoints.last_step is None else resume_command(checkpoints.path.parent)
    return MemoryExhaustedError(
        f"out of memory at step {step} with trainer.batch_size={size} in {parts} part{'s' * (parts > 1)} "
        f"({str(error) or type(error).__name__}); try again: {start} with {smaller}"
    )


def disk_full(error: BaseException, run_folder: Path) -> StorageError:
    """Return the error for a shortage of space in the run folder."""
    return StorageError(f"disk full in {run_folder}: {error}; {free_bytes(run_folder):,} bytes free")
