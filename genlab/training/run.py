"""The state of a run in training without the loop: model, optimisers, data, log and summary."""

import logging
import math
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path

import torch

from genlab.compiler import uncompiled
from genlab.data.dataset import Dataset, Split
from genlab.errors import (
    GenlabError,
    MemoryExhaustedError,
    NonFiniteError,
    StoppedBySignal,
    StorageError,
    is_out_of_memory,
)
from genlab.measures import Direction
from genlab.models.base import Model
from genlab.parallel.collectives import is_first, num_processes
from genlab.parallel.processes import wait_for_all
from genlab.printing import shown
from genlab.run.checkpoint import BEST, LAST, CheckpointFolder
from genlab.storage import free_bytes, is_disk_full
from genlab.training.evaluation import (
    Average,
    Batching,
    averages_of_split,
    batching_for,
    evaluation_batch_size,
    scalar_means,
)
from genlab.training.logging import RunLog
from genlab.training.optimization import OptimizerFactory, ScheduleFactory
from genlab.training.progress import Progress, Speedometer
from genlab.training.selection import Selection
from genlab.training.settings import TrainerSettings
from genlab.training.state import TrainingState
from genlab.training.summary import Status, StopReason, Summary

_log = logging.getLogger(__name__)


def needs_whole_batch(model: Model, dataset: Dataset) -> str | None:
    """Return the part of a run that gradient accumulation would change; None if there is none.

    A mean over the labelled images of a part of a batch has another number of them in each part, or none.
    """
    averages_labelled = any(measure.needs_label for measure in model.measures.values())
    if averages_labelled and 0 < len(dataset.labelled_rows("train")) < dataset.num_images("train"):
        return "some training images without a label"
    return model.needs_whole_batch


class TrainingRun:
    """A run in training, for the trainer and its observers.

    Args:
        model: On any device; it is moved.
        dataset: Source of the batches.
        optimizers: Phase name to a factory that takes the parameters.
        schedule: A factory that takes an optimiser and ``num_steps``.
        settings: Everything about time.
        run_folder: An existing folder that this process holds the lock of.
        device: Device of the training.
        seed: With the step, the source of all randomness.
        resume_command: The command that resumes the run, for messages.
    """

    def __init__(
        self,
        *,
        model: Model,
        dataset: Dataset,
        optimizers: Mapping[str, OptimizerFactory],
        schedule: ScheduleFactory,
        settings: TrainerSettings,
        run_folder: Path,
        device: torch.device,
        seed: int,
        resume_command: str,
    ) -> None:
        self.model = model.to(device)
        self.dataset = dataset
        self.settings = settings
        self.run_folder = run_folder
        self.device = device
        self.seed = seed
        self.resume_command = resume_command
        self.why_compiled = ""
        """The choice of ``trainer.compile=auto`` with its reason, if there was one."""
        self.step = 0
        """Training steps so far."""
        self.last_step = min(settings.num_steps, 2) if settings.dry_run else settings.num_steps
        self.state = TrainingState(
            self.model,
            dataset=dataset,
            optimizers=optimizers,
            schedule=schedule,
            settings=settings,
            device=device,
            seed=seed,
        )
        self.images_per_step = settings.batch_size * max(phase.repeats for phase in model.phases())
        self.seen_at = (0, 0)
        """A step and the images that had been seen then; a resumption may change the size of a batch."""
        self.checkpoints = CheckpointFolder(run_folder / "checkpoints")
        self.test_averages: dict[str, Average] = {}
        """Of the test after training; empty before it."""
        self.tested = (LAST, 0)
        """The checkpoint that the test measured, and its step."""
        self.summary = Summary(
            num_parameters=sum(parameter.numel() for parameter in model.parameters()), measures=dict(model.measures)
        )
        measure = model.selection_measure
        declared = model.measures.get(measure or "")
        self.select_by(
            None if measure is None else f"validation/{measure}",
            direction="lower" if declared is None else declared.direction,
        )
        self.log: RunLog | None = None
        """Of the first process once it writes; None in the others."""
        self.progress: Progress | None = None
        self.speedometer = Speedometer()
        self.seconds_before = 0.0
        """Those of the starts before this one."""
        self.has_begun = False
        """True once the run folder has been changed."""
        self._started = time.monotonic()

    def select_by(self, tag: str | None, *, direction: Direction) -> None:
        """Select the best checkpoint, and stop early, by a measure."""
        patience = self.settings.early_stopping_patience
        self.selection = Selection(self.summary, tag=tag, direction=direction, patience=patience)

    # Measuring ------------------------------------------------------------------------------------------------------

    def evaluated_model(self) -> Model:
        """Return the model for measures and samples, with averaged weights if there are any, in evaluation mode.

        Raises:
            NonFiniteError: The device has withheld more updates than trainer.max_skipped_steps allows.
        """
        self.notice_withheld()
        return self.state.evaluated_model()

    @property
    def batching(self) -> Batching:
        """The batches in which the model is measured."""
        settings = self.settings
        size = evaluation_batch_size(self.model, settings.batch_size)
        return batching_for(self.model, training_size=settings.num_images_at_once, size=size)

    def evaluate(self, split: Split, *, limit: int | None = None) -> dict[str, Average]:
        """Return the averages of the model's measures over a split; processes share its batches.

        Args:
            split: Not empty.
            limit: Evaluate a random choice of so many images; None takes all.
        """
        with uncompiled():
            return averages_of_split(
                self.evaluated_model().evaluate,
                self.dataset,
                split,
                declarations=self.model.measures,
                batching=self.batching,
                seed=self.seed,
                device=self.device,
                limit=self.settings.batch_size if self.settings.dry_run else limit,
            )

    @property
    def images_seen(self) -> int:
        """Training images of all steps so far, counted as often as they were seen."""
        step, images = self.seen_at
        return images + (self.step - step) * self.images_per_step

    # Writing --------------------------------------------------------------------------------------------------------

    def write(self, values: Mapping[str, float]) -> None:
        """Write scalars by tag to metrics.jsonl and the loggers."""
        if self.log is not None:
            self.log.scalars(values, step=self.step, images_seen=self.images_seen, seconds=self.seconds)

    def report(self, values: Mapping[str, float]) -> StopReason | None:
        """Write the measures of held-out images, print them in a lasting line, and select the best checkpoint by them.

        Returns:
            A reason to stop when early stopping says so.

        Raises:
            NonFiniteError: The measure that chooses is not a number.
        """
        self.write(values)
        self.summary.final |= values
        if self.progress is not None:
            self.progress.show(self.step, values)
        if math.isnan(values.get(self.selection.tag or "", 0.0)):
            raise self.diverged(f"{self.selection.tag} is nan, nothing saved")
        return self.selection.consider(values, self.step)

    def test(self) -> None:
        """Measure the best checkpoint (the last one where no measure chooses) on the test split."""
        wait_for_all()  # until it is written
        self.tested = (LAST, self.step)
        if self.selection.best_step is not None and self.checkpoints.has(BEST):
            self.state.load_weights(self.checkpoints.load(BEST, device=self.device))
            self.tested = (BEST, self.selection.best_step)
        self.test_averages = self.evaluate("test")
        self.summary.test = {f"test/{name}": mean for name, mean in scalar_means(self.test_averages).items()}
        self.write(self.summary.test)

    def write_summary(self, status: Status, reason: object = None) -> None:
        """Write summary.json, in the first process."""
        self.summary.status = status
        self.summary.reason = None if reason is None else str(reason)
        self.summary.step = self.step
        self.summary.images_seen = self.images_seen
        self.summary.epochs = round(self.summary.images_seen / self.dataset.num_images("train"), 4)
        self.summary.seconds = round(self.seconds, 3)
        if is_first():
            self.summary.write(self.run_folder / "summary.json")

    @property
    def seconds(self) -> float:
        """The training time over all starts of the run."""
        return self.seconds_before + time.monotonic() - self._started

    # Faults ---------------------------------------------------------------------------------------------------------

    @contextmanager
    def failure_in_summary(self) -> Iterator[None]:
        """Write any error that ends the block to summary.json, if the disk allows it.

        Raises:
            MemoryExhaustedError: In the place of another library's error.
            StorageError: In the place of the system's.
        """
        try:
            yield
        except StoppedBySignal:
            raise
        except BaseException as error:
            known = self._shortage(error)
            status: Status = "diverged" if isinstance(error, NonFiniteError) else "failed"
            reason = str(error) if status == "diverged" else f"{type(error).__name__}: {error}"
            with suppress(OSError):
                if self.has_begun:
                    self.write_summary(status, known or reason.partition("\n")[0])
            if known is not None:
                raise known from error
            raise

    def _shortage(self, error: BaseException) -> GenlabError | None:
        """Return the error message, with a hint, for a shortage of memory or disk space; None for any other failure."""
        if is_disk_full(error):
            return StorageError(f"disk full in {self.run_folder}: {error}; {free_bytes(self.run_folder):,} bytes free")
        if not is_out_of_memory(error):
            return None
        # No setting is changed automatically, as that would change the run.
        settings = self.settings
        size, parts = settings.batch_size, settings.gradient_accumulation
        unit = num_processes() * self.model.group_size
        more = next((number for number in range(parts + 1, size + 1) if size % (number * unit) == 0), None)
        smaller = "a smaller trainer.batch_size"
        is_divisible = settings.labelled_fraction is None and needs_whole_batch(self.model, self.dataset) is None
        if more is not None and is_divisible:
            smaller = f"trainer.gradient_accumulation={more}, or {smaller}"
        start = "the same line" if self.checkpoints.last_step is None else self.resume_command
        return MemoryExhaustedError(
            f"out of memory at step {self.step} with trainer.batch_size={size} in {parts} part{'s' * (parts > 1)} "
            f"({str(error) or type(error).__name__}); try again: {start} with {smaller}"
        )

    def tolerate(self, error: NonFiniteError) -> None:
        """Count an update that was skipped because it was not finite.

        Raises:
            NonFiniteError: There were more than the settings allow.
        """
        self.summary.num_skipped_steps += 1
        settings = self.settings
        if settings.on_non_finite == "skip" and self.summary.num_skipped_steps <= settings.max_skipped_steps:
            _log.warning("step %d: %s; update skipped", self.step, error)
            return
        allowed = f" after {settings.max_skipped_steps} skipped updates (trainer.max_skipped_steps)"
        after = allowed if settings.on_non_finite == "skip" else ""
        raise self.diverged(f"not finite{after}, nothing updated ({error})") from error

    def notice_withheld(self) -> None:
        """Report the updates that the device has withheld since the last call.

        Raises:
            NonFiniteError: There are more of them than trainer.max_skipped_steps allows.
        """
        for update in self.state.updates:
            for _ in range(update.take_num_bad()):
                self.tolerate(NonFiniteError(f"phase {update.phase.name}: withheld on the device by now"))

    def diverged(self, fault: str) -> NonFiniteError:
        """Return the error for a value that is not finite, with the checkpoint that is kept and a hint."""
        last, rate, norm = self.checkpoints.last_step, "optimizer.default.lr", "trainer.max_gradient_norm"
        hint = f"there is no checkpoint yet; start a new run with a lower {rate} or {norm}"
        if last is not None:  # a resumption cannot change the optimiser
            hint = (
                f"the last checkpoint is of step {last}; try {self.resume_command} with a lower {norm} "
                f"(now {shown(self.settings.max_gradient_norm)}), or a new run with a lower {rate}"
            )
        return NonFiniteError(f"step {self.step}: {fault}; {hint}")
