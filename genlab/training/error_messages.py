"""The error message of a run that lacks memory or disk space: the failure, and a hint."""

from genlab.errors import GenlabError, MemoryExhaustedError, StorageError, is_out_of_memory
from genlab.run.checkpoint import CheckpointFolder
from genlab.storage import free_bytes, is_disk_full
from genlab.training.settings import TrainerSettings


def explained(
    error: BaseException,
    *,
    step: int,
    settings: TrainerSettings,
    checkpoints: CheckpointFolder,
    needs_whole_batch: str | None,
    resume_command: str,
) -> GenlabError | None:
    """Return the error message for a shortage of memory or of disk space; None for any other failure.

    Args:
        error: As torch or the system tells it.
        step: In which it came.
        settings: Of the run.
        checkpoints: Of the run.
        needs_whole_batch: What forbids to divide a batch, if anything.
        resume_command: The command that resumes it.
    """
    run_folder = checkpoints.path.parent
    if is_disk_full(error):
        return StorageError(f"disk full in {run_folder}: {error}; {free_bytes(run_folder):,} bytes free")
    if not is_out_of_memory(error):
        return None
    # No setting is changed automatically, as that would change the run.
    size, parts = settings.batch_size, settings.gradient_accumulation
    more = next((number for number in range(parts + 1, size + 1) if size % number == 0), None)
    smaller = "a smaller trainer.batch_size"
    if more is not None and settings.labelled_fraction is None and needs_whole_batch is None:
        smaller = f"trainer.gradient_accumulation={more}, or {smaller}"
    start = "the same line" if checkpoints.last_step is None else resume_command
    return MemoryExhaustedError(
        f"out of memory at step {step} with trainer.batch_size={size} in {parts} part{'s' * (parts > 1)} "
        f"({str(error) or type(error).__name__}); try again: {start} with {smaller}"
    )
