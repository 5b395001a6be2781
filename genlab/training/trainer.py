"""The one training loop, for every model: steps as the clock, phases as the work of a step.

Nothing in this file knows which model it trains.
"""

import logging
import math
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, ExitStack, contextmanager, nullcontext, suppress
from functools import partial
from pathlib import Path
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from genlab.data.dataset import Dataset, Split
from genlab.errors import NonFiniteError, StoppedBySignal, is_out_of_memory
from genlab.graphs import Graphs
from genlab.measures import WATCH_MEASURES
from genlab.models.base import Model
from genlab.parallel.collectives import is_first, num_processes, rank, shared_work
from genlab.parallel.processes import first_before_others, largest, wait_for_all
from genlab.parallel.sharding import require_shardable
from genlab.parallel.synchronized import synchronize_layers
from genlab.run.checkpoint import CheckpointFolder, first_not_finite, model_fingerprint
from genlab.sampling.pictures import save_pictures, save_training_film, sheet
from genlab.signals import told
from genlab.storage import is_disk_full
from genlab.training.capture import StepCapture, step_capture
from genlab.training.collapse import ClassPredictor, CollapseWatch
from genlab.training.evaluation import (
    Average,
    Batching,
    as_written,
    averages_of_split,
    batching_for,
    scalar_means,
)
from genlab.training.fitting import misfit_refused
from genlab.training.logging import HyperParameters, RunLog
from genlab.training.optimization import FrozenOutside, OptimizerFactory, PhaseUpdate, ScheduleFactory
from genlab.training.profiling import trace_early_steps
from genlab.training.progress import Progress, Speedometer
from genlab.training.randomness import generator_for, seed_training_step
from genlab.training.remedies import disk_full, diverged, memory_exhausted
from genlab.training.settings import TrainerSettings
from genlab.training.signals import StopRequest, listen_for_signals
from genlab.training.slowdown import SlowdownWatch, hint_for
from genlab.training.state import TrainingState
from genlab.training.summary import Status, StopReason, Summary

_log = logging.getLogger(__name__)


class Trainer:
    """Trains, validates, saves and resumes one model on one dataset in one run folder.

    Several processes (:mod:`genlab.parallel.processes`) do the same step at the same time, each with its share of the
    batch, and have equal weights after it. They share evaluation; the first one alone writes.

    Args:
        model: On any device; it is moved.
        dataset: Where the batches come from.
        optimizers: Phase name to a factory that takes the parameters.
        schedule: A factory that takes an optimiser and ``num_steps``.
        settings: Everything about time.
        run_folder: An existing folder that this process holds the lock of.
        device: Where to train.
        seed: With the step, the source of all randomness.
        hyperparameters: Columns of TensorBoard's HPARAMS.
        class_predictor: What the watch for collapse counts modes with.
        graphs: Recorder of the phases' updates; None leaves it to ``trainer.cuda_graph``.
        resume_command: The line that goes on with the run, for people.

    Raises:
        ConfigurationError: The settings ask for what this model or these data cannot give.
        DataError: A split that the settings ask to measure is empty.
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
        hyperparameters: HyperParameters,
        class_predictor: ClassPredictor | None = None,
        graphs: Graphs | None = None,
        resume_command: str = "genlab train resume=...",
    ) -> None:
        if settings.validation_interval > 0:
            dataset.require_images("validation", way_out="trainer.validation_interval=0")
        if settings.test_at_end:
            dataset.require_images("test", way_out="trainer.test_at_end=false")
        settings.require_equal_shares(num_processes())
        if settings.sharding == "fsdp2":
            require_shardable(model)
        if num_processes() > 1:
            synchronize_layers(model)
        self.model = model.to(device)
        self.dataset = dataset
        self.settings = settings
        self.run_folder = run_folder
        self.device = device
        self.seed = seed
        self.step = 0
        self.summary = Summary(
            num_parameters=sum(parameter.numel() for parameter in model.parameters()),
            selected_by=None if model.selection_measure is None else f"validation/{model.selection_measure}",
            measures={**model.measures, **(WATCH_MEASURES if settings.watch_interval > 0 else {})},
        )
        self.test_averages: dict[str, Average] = {}
        """Of the test after training; empty before it."""
        self.tested = ("last.pt", 0)
        """The checkpoint that the test measured, and its step."""
        self.checkpoints = CheckpointFolder(run_folder / "checkpoints")
        self._hyperparameters = hyperparameters
        self._resume_command = resume_command
        self._stream = dataset.stream(
            batch_size=settings.batch_size,
            seed=seed,
            device=device,
            num_labelled=settings.num_labelled,
            rank=rank(),
            num_processes=num_processes(),
        )
        self.state = TrainingState(
            self.model,
            dataset=dataset,
            optimizers=optimizers,
            schedule=schedule,
            settings=settings,
            device=device,
            seed=seed,
        )
        self._capture = self._make_capture(graphs)
        self._draws_per_step = max(update.phase.repeats for update in self.state.updates)
        self._images_per_step = settings.batch_size * self._draws_per_step
        self._last_step = min(settings.num_steps, 2) if settings.dry_run else settings.num_steps
        self._frozen_outside = FrozenOutside(self.state.updates, model.parameters())
        watch = partial(CollapseWatch, model=model, dataset=dataset, settings=settings, seed=seed, device=device)
        self._watch = watch(predictor=class_predictor) if settings.watch_interval > 0 else None
        self._fingerprint = model_fingerprint(model)
        self._pending: dict[str, list[Float[Tensor, " n"]]] = {}  # metrics since the last log line, on the device
        self._validations_without_gain = 0
        self._is_best = False  # by the validation of this step
        self._stop_reason: StopReason | None = None
        self._stop_signal: int | None = None  # that some process has been sent
        self._has_begun = False
        self._seconds_before = 0.0
        self._started = time.monotonic()

    def _make_capture(self, graphs: Graphs | None) -> StepCapture | None:
        if graphs is not None:
            capture: StepCapture | None = StepCapture(graphs, is_required=True)
        else:
            obstacle = "it is shared by several processes" if num_processes() > 1 else None
            if self.settings.makes_own_graphs:
                obstacle = f"trainer.compile_mode={self.settings.compile_mode} makes graphs of its own"
            capture = step_capture(self.settings.cuda_graph, self.device, obstacle=obstacle)
        if capture is not None:
            source = None
            for update in self.state.updates:
                source = update.capture(capture, source)
        return capture

    # The table of contents ------------------------------------------------------------------------------------------

    def fit(self, *, resume: bool, is_restarted: bool = False, begin: Callable[[], object] = lambda: None) -> Summary:
        """Train to ``num_steps``, or until a limit, a signal or a failure; then test.

        A resumed run changes nothing in its folder before it has restored, agreed with its checkpoint and taken a first
        step: what ends it before that leaves it as it was.

        Args:
            resume: Go on from the run's newest checkpoint.
            is_restarted: The launcher goes on with a run of its own, whose folder tells of each failure.
            begin: Called by the first process before anything is written, for what else the folder keeps of a start.

        Raises:
            NonFiniteError: A loss or gradient was not finite; the last checkpoint is from before it.
            StoppedBySignal: Saved, and resumable.
            CheckpointError: ``resume`` found no usable checkpoint, or one of another model.
        """
        if not resume:
            self._begin(begin)
        with first_before_others():
            if resume:
                self._restore()
            else:
                self.state.initialize()
        self.state.broadcast()
        if self.settings.compile:
            for module in self.model.compilable():
                module.compile(mode=self.settings.compile_mode)
        with ExitStack() as opened, listen_for_signals(self._farewell) as request, self._failure_in_summary():

            def start() -> RunLog | None:
                self._begin(begin)
                log = opened.enter_context(self._opened_log())
                self._write_summary("running")
                return log

            log = self._train(start, request, is_tried=resume and not is_restarted)
            self._heard_by_any(request)
            if self._stop_signal is not None:
                self._write_summary("interrupted", f"signal {self._stop_signal}")
                kept = f"saved; to go on: {self._resume_command}"
                raise StoppedBySignal(
                    f"stopped by {told(self._stop_signal)} after step {self.step}; "
                    f"{'nothing saved, being a dry run' if self.settings.dry_run else kept}",
                    self._stop_signal,
                )
            finished = self._stop_reason is None or self._stop_reason.is_final
            try:
                with request.waiting_for_nothing():
                    if self.settings.sample_interval > 0 and is_first():
                        save_training_film(self.run_folder / "samples")
                    if self.settings.test_at_end and finished:
                        self._test(log)
            except StoppedBySignal as stop:
                number = stop.exit_code - 128
                self._write_summary("interrupted", f"signal {number}")
                raise StoppedBySignal(f"{stop} after the last step; {self._farewell()}", number) from None
            self._write_summary("finished" if finished else "interrupted", self._stop_reason)
        return self.summary

    def _farewell(self) -> str:
        """What is left of the run if it ends here."""
        if any(map(self.checkpoints.has, ("last.pt", "previous.pt"))):
            return f"to go on from the last checkpoint: {self._resume_command}"
        return "nothing was saved"

    def _begin(self, begin: Callable[[], object]) -> None:
        """Change the run folder, for the first time."""
        if not self._has_begun and is_first():
            begin()
            self.checkpoints.prepare()
            self.checkpoints.agree_on_best(self._best_step, newest_step=self.summary.saved_step)
        self._has_begun = True

    @property
    def _best_step(self) -> int | None:
        """Of the best weights; None where no measure has chosen any."""
        return int(self.summary.best["step"]) if self.summary.best else None

    def _opened_log(self) -> AbstractContextManager[RunLog | None]:
        """The log of the first process; the others have none."""
        if not is_first():
            return nullcontext()
        return RunLog(self.run_folder, start_step=self.step, hyperparameters=self._hyperparameters)

    @contextmanager
    def _failure_in_summary(self) -> Iterator[None]:
        """Whatever ends the run stands in summary.json, as far as the disk takes it."""
        try:
            yield
        except StoppedBySignal:
            raise
        except BaseException as error:
            status: Status = "diverged" if isinstance(error, NonFiniteError) else "failed"
            exhausted = None
            if is_out_of_memory(error):
                exhausted = memory_exhausted(
                    error,
                    step=self.step,
                    settings=self.settings,
                    checkpoints=self.checkpoints,
                    run_folder=self.run_folder,
                )
            reason = str(error) if status == "diverged" else f"{type(error).__name__}: {error}"
            with suppress(OSError):
                if self._has_begun:
                    self._write_summary(status, exhausted or reason.partition("\n")[0])
            if exhausted is not None:
                raise exhausted from error
            if is_disk_full(error):
                raise disk_full(error, self.run_folder) from error
            raise

    def _train(self, start: Callable[[], RunLog | None], request: StopRequest, *, is_tried: bool) -> RunLog | None:
        """Train to the end or to a stop, and save.

        Args:
            start: Begins to write.
            request: Of a signal.
            is_tried: Whether the first step is taken before that.
        """
        settings = self.settings
        log = None if is_tried else start()
        is_traced = settings.profile and is_first()
        trace = trace_early_steps(self.run_folder, self.device) if is_traced else nullcontext()
        steps_per_epoch = self.dataset.num_images("train") / self._images_per_step
        bar = Progress(total=self._last_step, start=self.step, steps_per_epoch=steps_per_epoch)
        with trace as profiler, bar as progress:
            speedometer, slowdown = Speedometer(self.step), SlowdownWatch(hint_for(self.device))
            while self.step < self._last_step:
                self._training_step()
                log = log if self._has_begun else start()
                self.step += 1
                progress.advance()
                if profiler is not None:
                    profiler.step()
                if self._due(settings.log_interval) or self.step == self._last_step:
                    steps, seconds = speedometer.read(self.step)
                    slowdown.add(steps, seconds)
                    self._log_metrics(log, progress, images_per_second=steps * self._images_per_step / seconds)
                    speedometer.restart(self.step)
                with speedometer.paused():
                    stop = self._look_up_from_training(log, progress, request)
                if stop:
                    break
            log = log if self._has_begun else start()  # there was no step left
            self._save(log)
        return log

    def _look_up_from_training(self, log: RunLog | None, progress: Progress, request: StopRequest) -> bool:
        """Whatever is due between two steps; True when training should stop here."""
        settings = self.settings
        last = self.step == self._last_step
        stop = False
        if settings.validation_interval and (last or self._due(settings.validation_interval)):
            stop = self._validate(log, progress)
        if settings.sample_interval and (last or self._due(settings.sample_interval)):
            self._draw_pictures(log)
        if self._watch is not None and (last or self._due(settings.watch_interval)):
            stop = self._look_for_collapse(self._watch, log) or stop
        is_over = settings.max_minutes is not None and time.monotonic() - self._started > 60 * settings.max_minutes
        # What has come to one process from outside all of them act on, after the same step.
        is_over, save_requested = self._heard_by_any(request, is_over, request.take_save_request())
        if self._due(settings.checkpoint_interval) or save_requested or self._is_best:
            self._save(log)
        if self._is_best and not settings.dry_run:
            # After last.pt, which then is never older than best.pt: what goes on from it knows the best weights.
            self._store(self.checkpoints.save_best)
        self._is_best = False
        if is_over and settings.max_minutes is not None:
            way_on = "" if settings.dry_run else "; resume to go on"
            self._stop_reason = StopReason(f"trainer.max_minutes={settings.max_minutes:g} is over{way_on}")
            stop = True
        return stop or self._stop_signal is not None

    def _heard_by_any(self, request: StopRequest, *flags: bool) -> list[bool]:
        """Flags that are set in any process; a signal to any is a signal to all."""
        signal_number, *heard = largest((request.signal_number or 0, *flags))
        self._stop_signal = signal_number or None
        return [bool(flag) for flag in heard]

    # A step ---------------------------------------------------------------------------------------------------------

    def _training_step(self) -> None:
        """Every phase, ``repeats`` times; a pure function of the weights, the seed and the step."""
        seed_training_step(self.seed, self.step, self.device)
        self.model.train()
        if self._capture is not None:
            self._capture.begin_step()
        received: list[object] = []
        for update in self.state.updates:
            handed_on = received
            self._frozen_outside.enter(update)
            try:
                for repeat in range(update.phase.repeats):
                    draw = 0 if self.settings.overfit_one_batch else self.step * self._draws_per_step + repeat
                    metrics, handed_on = update.run(self._stream.batch(draw), received)
                    self._record(update, metrics)
            except NonFiniteError as error:
                self._tolerate(error)
            finally:
                self._frozen_outside.leave(update)
            received = handed_on
        if self.state.average is not None:
            self.state.average.update(self.step)

    def _record(self, update: PhaseUpdate, metrics: Mapping[str, Tensor]) -> None:
        for name, value in metrics.items():
            self._pending.setdefault(f"train/{update.phase.name}/{name}", []).append(value.reshape(1))

    def _tolerate(self, error: NonFiniteError) -> None:
        self.summary.num_skipped_steps += 1
        if self.settings.on_non_finite == "skip" and self.summary.num_skipped_steps <= self.settings.max_skipped_steps:
            _log.warning("step %d: %s; update skipped", self.step, error)
            return
        raise self._diverged(f"not finite, nothing updated ({error})") from error

    def _notice_withheld(self) -> None:
        """Ask for the updates that the device has withheld since somebody asked last."""
        for update in self.state.updates:
            for _ in range(update.take_num_bad()):
                self._tolerate(NonFiniteError(f"phase {update.phase.name}: withheld on the device by now"))

    def _diverged(self, what: str) -> NonFiniteError:
        return diverged(what, step=self.step, checkpoints=self.checkpoints)

    # What is due now and then ---------------------------------------------------------------------------------------

    def _log_metrics(self, log: RunLog | None, progress: Progress, *, images_per_second: float) -> None:
        self._notice_withheld()
        values = {tag: float(torch.cat(kept).mean()) for tag, kept in self._pending.items()}
        self._pending.clear()
        for update in self.state.updates:
            values[f"train/{update.phase.name}/learning_rate"] = float(update.schedule.get_last_lr()[0])
        self.summary.final |= values
        values["speed/images_per_second"] = images_per_second
        self._write_scalars(log, values)
        progress.show(self.step, values)

    def _validate(self, log: RunLog | None, progress: Progress) -> bool:
        """Measure on the validation split, notice the best weights; True when early stopping says so."""
        self._notice_withheld()
        averages = self.evaluate("validation", limit=self.settings.validation_images)
        values = {f"validation/{name}": mean for name, mean in scalar_means(averages).items()}
        self._write_scalars(log, values)
        self.summary.final |= values
        progress.show(self.step, values)
        tag = self.summary.selected_by
        if tag is None:
            return False
        if math.isnan(values[tag]):
            raise self._diverged(f"{tag} is nan, nothing saved")
        if not self.summary.best or self._is_better(values[tag], self.summary.best[tag]):
            self.summary.best = {**values, "step": float(self.step)}
            self._validations_without_gain = 0
            self._is_best = True
            return False
        self._validations_without_gain += 1
        patience = self.settings.early_stopping_patience
        if patience is None or self._validations_without_gain < patience:
            return False
        self._stop_reason = StopReason(f"{tag} has not improved for {patience} validations", is_final=True)
        return True

    def _look_for_collapse(self, watch: CollapseWatch, log: RunLog | None) -> bool:
        """Measure the diversity of what the model draws; True when an alarm should stop the run."""
        with as_written():
            values = watch.look(self.state.evaluated_model(), step=self.step)
        self._write_scalars(log, values)
        self.summary.final |= values
        if self.settings.on_collapse == "warn" or not watch.is_alarmed:
            return False
        self._stop_reason = StopReason(f"collapsed: {watch.description()}", is_final=True)
        return True

    def _test(self, log: RunLog | None) -> None:
        """Measure the best checkpoint (the last one where no measure chooses) on the test split."""
        wait_for_all()  # until it is written
        self.tested = ("last.pt", self.step)
        if self._best_step is not None and self.checkpoints.has("best.pt"):
            self.state.load_weights(self.checkpoints.load("best.pt", device=self.device))
            self.tested = ("best.pt", self._best_step)
        self.test_averages = self.evaluate("test")
        self.summary.test = {f"test/{name}": mean for name, mean in scalar_means(self.test_averages).items()}
        self._write_scalars(log, self.summary.test)

    @property
    def batching(self) -> Batching:
        """The batches in which the model is measured."""
        settings = self.settings
        return batching_for(self.model, training_size=settings.num_images_at_once, size=settings.batch_size)

    def evaluate(self, split: Split, *, limit: int | None = None) -> dict[str, Average]:
        """Average the model's measures over a split, with the averaged weights where there are some.

        Several processes take its batches in turn, and all get the averages.
        """
        with as_written():
            return averages_of_split(
                self.state.evaluated_model().evaluate,
                self.dataset,
                split,
                batching=self.batching,
                seed=self.seed,
                device=self.device,
                limit=self.settings.batch_size if self.settings.dry_run else limit,
            )

    def _draw_pictures(self, log: RunLog | None) -> None:
        """Grids and films from noise that stays the same through the run; several processes share the samples."""
        num_images = self.settings.num_sample_images
        split: Split = "validation" if self.dataset.num_images("validation") else "train"
        batch = self.dataset.subset(split, num_images, seed=self.seed, device=self.device)
        model = self.state.evaluated_model()
        with torch.no_grad(), as_written(), shared_work():
            pictures = model.visualize(
                batch, num_samples=num_images, generator=generator_for(self.seed, "pictures", device=self.device)
            )
        bad = first_not_finite(pictures)
        if bad is not None:
            raise self._diverged(f"{bad} not finite, nothing saved")
        if log is None:
            return
        save_pictures(pictures, self.run_folder / "samples", names={"samples": f"step_{self.step:08d}"})
        for name, picture in pictures.items():
            log.picture(name, sheet(picture), step=self.step)

    # State ----------------------------------------------------------------------------------------------------------

    def _kept(self) -> dict[str, Any]:
        """What a checkpoint keeps.

        Raises:
            NonFiniteError: The last update, finite itself, has made a weight, a moment or a statistic overflow.
        """
        trained = self.state.state_dict()
        bad = first_not_finite(trained)
        if bad is not None:
            raise self._diverged(f"{bad} not finite, nothing saved")
        return {
            **trained,
            "step": self.step,
            "seed": self.seed,
            "pending": {tag: torch.cat(kept) for tag, kept in self._pending.items()},
            "best": dict(self.summary.best),
            "validations_without_gain": self._validations_without_gain,
            "num_skipped_steps": self.summary.num_skipped_steps,
            "collapse": None if self._watch is None else self._watch.state_dict(),
            "seconds": self._seconds(),
        }

    def _save(self, log: RunLog | None) -> None:
        if self.settings.dry_run:
            return
        is_saved = log is not None and self.checkpoints.last_step == self.step and self.checkpoints.has("last.pt")
        if any(largest((is_saved,))):
            return
        self._notice_withheld()
        if log is not None:
            log.flush()
        self._store(self.checkpoints.save_last)
        self.summary.saved_step = self.step
        self._write_summary("running")

    def _store(self, save: Callable[..., None]) -> None:
        """Save what a checkpoint keeps; the first process writes it, and collects the shares of the others."""
        kept = self._kept() if is_first() or self.state.is_sharded else {}
        if is_first():
            save(kept, step=self.step, fingerprint=self._fingerprint)

    def _restore(self) -> None:
        kept = self.checkpoints.newest(device=self.device)
        with misfit_refused():
            self.state.load_state_dict(kept)
            self.step = self.summary.saved_step = kept["step"]
            if self.step < self._last_step:
                self.state.warn_of_rates(self.step)
            self._pending = {tag: [_metrics(tag, values)] for tag, values in kept["pending"].items()}
            self._validations_without_gain = int(kept["validations_without_gain"])
            self._seconds_before = float(kept["seconds"])
            self.summary.best = {str(tag): float(value) for tag, value in kept["best"].items()}
            _ = self._best_step
            self.summary.num_skipped_steps = int(kept["num_skipped_steps"])
            if self._watch is not None and kept["collapse"] is not None:
                self._watch.load_state_dict(kept["collapse"])

    def _write_summary(self, status: Status, reason: object = None) -> None:
        self.summary.status = status
        self.summary.reason = None if reason is None else str(reason)
        self.summary.step = self.step
        self.summary.images_seen = self.step * self._images_per_step
        self.summary.epochs = round(self.summary.images_seen / self.dataset.num_images("train"), 4)
        self.summary.seconds = round(self._seconds(), 3)
        self.summary.collapse = None if self._watch is None else self._watch.report()
        if is_first():
            self.summary.write(self.run_folder / "summary.json")

    def _write_scalars(self, log: RunLog | None, values: Mapping[str, float]) -> None:
        if log is not None:
            log.scalars(values, step=self.step, images_seen=self.step * self._images_per_step, seconds=self._seconds())

    def _is_better(self, value: float, other: float) -> bool:
        """Compare two values of the selection measure: lower is better unless it is declared otherwise."""
        declared = self.model.measures.get(self.model.selection_measure or "")
        return value > other if declared is not None and declared.direction == "higher" else value < other

    # Facts ----------------------------------------------------------------------------------------------------------

    def _due(self, interval: int) -> bool:
        return interval > 0 and self.step % interval == 0

    def _seconds(self) -> float:
        return self._seconds_before + time.monotonic() - self._started


def _metrics(tag: object, values: object) -> Float[Tensor, " n"]:
    """Metrics out of a checkpoint, as one tensor: a tensor for each of them would take a thousand times the memory.

    Raises:
        TypeError: They are none.
    """
    if (
        not isinstance(tag, str)
        or not isinstance(values, Tensor)
        or values.dim() != 1
        or not values.is_floating_point()
    ):
        raise TypeError("the metrics since its last log line must be rows of numbers by name")
    return values
