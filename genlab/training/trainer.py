"""The one training loop, for every model: steps as the clock, phases as the work of a step, observers between steps.

Nothing in this file knows which model it trains, or what is observed.
"""

import math
from collections.abc import Callable, Mapping
from contextlib import ExitStack, nullcontext
from pathlib import Path
from types import MappingProxyType
from typing import Any

import torch

from genlab.data.dataset import Dataset, Split
from genlab.errors import ConfigurationError, NonFiniteError, StoppedBySignal
from genlab.graphs import CudaGraphs
from genlab.models.base import Model
from genlab.parallel.collectives import is_first, num_processes, rank
from genlab.parallel.processes import first_before_others, gathered, largest
from genlab.parallel.sharding import require_shardable
from genlab.parallel.synchronized import synchronize_layers
from genlab.run.checkpoint import LAST, PREVIOUS, first_not_finite
from genlab.sampling.pictures import save_training_film
from genlab.signals import signal_text
from genlab.training.collapse import ClassPredictor
from genlab.training.compatibility import incompatible_refused
from genlab.training.compilation import compile_networks
from genlab.training.logger import HyperParameters, Logger
from genlab.training.logging import RunLog
from genlab.training.observer import ObserverFactory
from genlab.training.observers import TrainingMetrics, observers_of
from genlab.training.optimization import FrozenOutside, OptimizerFactory, ScheduleFactory
from genlab.training.profiling import profile_early_steps
from genlab.training.progress import Progress
from genlab.training.randomness import seed_training_step
from genlab.training.run import TrainingRun, needs_whole_batch
from genlab.training.settings import TrainerSettings
from genlab.training.signals import StopRequest, listen_for_signals
from genlab.training.summary import StopReason, Summary
from genlab.types import Batch


class Trainer(TrainingRun):
    """Training loop of one model on one data set in one run folder, which observes, saves and resumes.

    Several processes (:mod:`genlab.parallel.processes`) do the same step at the same time, each with its share of the
    batch, and have equal weights after it. They share evaluation; the first one alone writes.

    Args:
        model: On any device; it is moved.
        dataset: Source of the batches.
        optimizers: Phase name to a factory that takes the parameters.
        schedule: A factory that takes an optimiser and ``num_steps``.
        settings: Everything about time.
        run_folder: An existing folder that this process holds the lock of.
        device: Device of the training.
        seed: With the step, the source of all randomness.
        hyperparameters: Columns of TensorBoard's HPARAMS.
        loggers: Views of the run beside metrics.jsonl, by name.
        class_predictor: Counts modes for the collapse watch.
        observers: Further ones than those of the settings, by the names that checkpoints keep their state under.
        graphs: Recorder of the phases' updates; None leaves it to ``trainer.cuda_graph``.
        resume_command: The command that resumes the run, for messages.

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
        loggers: Mapping[str, Logger] = MappingProxyType({}),
        class_predictor: ClassPredictor | None = None,
        observers: Mapping[str, ObserverFactory] = MappingProxyType({}),
        graphs: CudaGraphs | None = None,
        resume_command: str = "genlab train resume=...",
    ) -> None:
        measured: dict[Split, str] = {}
        if settings.validation_interval > 0:
            measured["validation"] = "trainer.validation_interval=0"
        if settings.test_at_end:
            measured["test"] = "trainer.test_at_end=false"
        dataset.require_images(measured)
        settings.require_divisible_batches(
            num_processes(), group_size=model.group_size, needs_whole_batch=needs_whole_batch(model, dataset)
        )
        if settings.sharding == "fsdp2":
            require_shardable(model)
        if num_processes() > 1:
            synchronize_layers(model)
        super().__init__(
            model=model,
            dataset=dataset,
            optimizers=optimizers,
            schedule=schedule,
            settings=settings,
            run_folder=run_folder,
            device=device,
            seed=seed,
            resume_command=resume_command,
        )
        self._hyperparameters = hyperparameters
        self._loggers = loggers
        self._stream = dataset.stream(
            batch_size=settings.batch_size,
            seed=seed,
            device=device,
            num_labelled=settings.num_labelled,
            rank=rank(),
            num_processes=num_processes(),
        )
        self._capture = self.state.capture(graphs)
        self._frozen_outside = FrozenOutside(self.state.updates, model.parameters())
        self.metrics = TrainingMetrics(self)
        self.observers = observers_of(self, self.metrics, class_predictor=class_predictor, own=observers)
        for observer in self.observers.values():
            self.summary.measures |= observer.measures
            if (tag := observer.selects) is not None and self.selection.tag is None:
                self.select_by(tag, direction=observer.measures[tag].direction)
        tag = self.selection.tag
        is_measured = tag is not None and (settings.validation_interval > 0 or not tag.startswith("validation/"))
        if settings.early_stopping_patience is not None and not is_measured:
            raise ConfigurationError(
                "trainer.early_stopping_patience must be null without a measure to stop by (of validation, or by "
                f"quality=default of a GAN, on 10 validation images or more), got {settings.early_stopping_patience}"
            )
        # As the model's constructor left them, such as a network with frozen statistics.
        self._always_evaluated = [module for module in model.modules() if model.training and not module.training]
        # Such as a mask of minus infinity.
        self._never_finite = {name for name, buffer in model.named_buffers() if not bool(buffer.isfinite().all())}
        self._stop_reason: StopReason | None = None
        self._stop_signal: int | None = None  # that some process has been sent

    # The table of contents ------------------------------------------------------------------------------------------

    def fit(self, *, resume: bool, is_restarted: bool = False, begin: Callable[[], object] = lambda: None) -> Summary:
        """Train to ``num_steps``, or until a limit, a signal or a failure; then test.

        A resumed run changes nothing in its folder before it has restored and checked its checkpoint and taken a first
        step: what ends it before that leaves it as it was.

        Args:
            resume: Continue from the run's newest checkpoint.
            is_restarted: The launcher resumes its own run, whose folder records each failure: it is then written to
                before the first step.
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
        if self.settings.compile is True:
            compile_networks(self.model, mode=self.settings.compile_mode)
        with ExitStack() as opened, listen_for_signals(self._last_line) as request, self.failure_in_summary():

            def start() -> None:
                self._begin(begin)
                if is_first():
                    log = RunLog(
                        self.run_folder,
                        start_step=self.step,
                        hyperparameters=self._hyperparameters,
                        loggers=self._loggers,
                    )
                    self.log = opened.enter_context(log)
                self.write_summary("running")

            self._train(start, request, is_tried=resume and not is_restarted)
            self._agree(request)
            if self._stop_signal is not None:
                self.write_summary("interrupted", f"signal {self._stop_signal}")
                kept = f"saved; to resume: {self.resume_command}"
                raise StoppedBySignal(
                    f"stopped by {signal_text(self._stop_signal)} after step {self.step}; "
                    f"{'nothing saved, being a dry run' if self.settings.dry_run else kept}",
                    self._stop_signal,
                )
            finished = self._stop_reason is None or self._stop_reason.is_final
            try:
                with request.waiting_for_nothing():
                    if self.settings.sample_interval > 0 and self.log is not None:
                        curve, tag = self.log.curve(self.selection.tag), self.selection.tag or ""
                        name = tag.rpartition("/")[2]
                        save_training_film(self.run_folder / "samples", curve=curve, name=name)
                    if self.settings.test_at_end and finished:
                        self.test()
                    if self.log is not None:
                        best = {f"best/{tag}": value for tag, value in self.summary.best.items()}
                        self.log.conclude({**best, **self.summary.test})
            except StoppedBySignal as stop:
                number = stop.exit_code - 128
                self.write_summary("interrupted", f"signal {number}")
                raise StoppedBySignal(f"{stop} after the last step; {self._last_line()}", number) from None
            self.write_summary("finished" if finished else "interrupted", self._stop_reason)
        return self.summary

    def _train(self, start: Callable[[], None], request: StopRequest, *, is_tried: bool) -> None:
        """Train to the end or to a stop, and save.

        Args:
            start: Begins to write.
            request: Of a signal.
            is_tried: True if the first step is taken before that.
        """
        if not is_tried:
            start()
        is_profiled = self.settings.profile and is_first()
        profiled = profile_early_steps(self.run_folder, self.device) if is_profiled else nullcontext()
        num_images = self.dataset.num_images("train")
        bar = Progress(
            total=self.last_step,
            start=self.step,
            steps_per_epoch=num_images / self.images_per_step,
            epochs_before=(self.images_seen - self.step * self.images_per_step) / num_images,
        )
        with profiled as profiler, bar as self.progress:
            self.speedometer.restart(self.step)
            is_stopped = self._stop_reason is not None
            while self.step < self.last_step and not is_stopped:
                self._training_step()
                if not self.has_begun:
                    start()
                self.step += 1
                self.progress.advance()
                if profiler is not None:
                    profiler.step()
                self._await_device()
                with self.speedometer.paused():
                    is_stopped = self._observe(request)
            if not self.has_begun:  # there was no step left
                start()
            self._save()

    def _await_device(self) -> None:
        """Wait for a CUDA device before it is observed: the time of the steps in its queue is theirs."""
        if self.device.type != "cuda":
            return
        if any(observer.due(self.step) for name, observer in self.observers.items() if name != "time_limit"):
            torch.cuda.synchronize(self.device)

    def _observe(self, request: StopRequest) -> bool:
        """Call the observers that are due, and save if it is time; return True if training stops here."""
        for observer in self.observers.values():
            if observer.due(self.step):
                reason = observer.observe(self.step)
                if reason is not None and (self._stop_reason is None or reason.is_final):
                    self._stop_reason = reason
        is_stopped, save_requested = self._agree(request, self._stop_reason is not None, request.take_save_request())
        if is_stopped:
            self._stop_reason = next(reason for reason in gathered(self._stop_reason) if reason is not None)
        is_best, interval = self.selection.take_is_best(), self.settings.checkpoint_interval
        if is_best or save_requested or (interval > 0 and self.step % interval == 0):
            self._save()
        if is_best and not self.settings.dry_run and is_first():
            self.checkpoints.save_best()
        return is_stopped or self._stop_signal is not None

    def _agree(self, request: StopRequest, *flags: bool) -> list[bool]:
        """Return the flags that are set in any process; a signal to any is a signal to all, after the same step."""
        signal_number, *flags_of_any_rank = largest((request.signal_number or 0, *flags))
        self._stop_signal = signal_number or None
        return [bool(flag) for flag in flags_of_any_rank]

    # A step ---------------------------------------------------------------------------------------------------------

    def _training_step(self) -> None:
        """Run every phase ``repeats`` times; a pure function of the weights, the seed, the step and the images seen."""
        seed_training_step(self.seed, self.step, self.device)
        if not self.model.training:  # as an observer leaves it; the walk over all modules is slow
            self.model.train()
            for module in self._always_evaluated:
                module.training = False
        if self._capture is not None:
            self._capture.begin_step()
        received: list[object] = []
        batches: dict[int, Batch] = {}  # by position in the stream: the phases of a step see the same
        for update in self.state.updates:
            handed_on = received
            self._frozen_outside.enter(update)
            try:
                for repeat in range(update.phase.repeats):
                    start = self.images_seen + repeat * self.settings.batch_size
                    start = 0 if self.settings.overfit_one_batch else start
                    if start not in batches:
                        batches[start] = self._stream.batch_from(start)
                    metrics, handed_on = update.run(batches[start], received)
                    self.metrics.record(update.phase.name, metrics)
            except NonFiniteError as error:
                self.tolerate(error)
            finally:
                self._frozen_outside.leave(update)
            received = handed_on
        if self.state.average is not None:
            self.state.average.update(self.step)

    # The beginning and the end --------------------------------------------------------------------------------------

    def _begin(self, begin: Callable[[], object]) -> None:
        """Change the run folder, for the first time."""
        if not self.has_begun and is_first():
            begin()
            self.checkpoints.prepare()
            self.checkpoints.agree_on_best(self.selection.best_step, newest_step=self.summary.saved_step)
        self.has_begun = True

    def _last_line(self) -> str:
        """Return a line on the state of the run if it ends here."""
        if any(map(self.checkpoints.has, (LAST, PREVIOUS))):
            return f"to resume from the last checkpoint: {self.resume_command}"
        return f"nothing was saved; to begin anew: {self.resume_command}"

    # State ----------------------------------------------------------------------------------------------------------

    def _save(self) -> None:
        if self.settings.dry_run:
            return
        is_saved = self.log is not None and self.checkpoints.last_step == self.step
        if any(largest((is_saved,))):
            return
        self.notice_withheld()
        if self.log is not None:
            self.log.flush()
        # The shares of the others are collected, and the first process writes.
        kept = self._kept() if is_first() or self.state.is_sharded else {}
        if is_first():
            self.checkpoints.save_last(kept, step=self.step)
        self.summary.saved_step = self.step
        self.write_summary("running")

    def _kept(self) -> dict[str, Any]:
        """Return the state for a checkpoint.

        Raises:
            NonFiniteError: The last update, finite itself, has made a weight, a moment or a statistic overflow.
        """
        trained = self.state.state_dict()
        weights = {name: value for name, value in trained["model"].items() if name not in self._never_finite}
        bad = first_not_finite({**trained, "model": weights})
        if bad is not None:
            raise self.diverged(f"{bad} not finite, nothing saved")
        return {
            **trained,
            "step": self.step,
            "images_seen": self.images_seen,
            "seed": self.seed,
            "observers": {name: state for name, each in self.observers.items() if (state := each.state_dict())},
            "best": dict(self.summary.best),
            "validations_without_gain": self.selection.num_without_gain,
            "num_skipped_steps": self.summary.num_skipped_steps,
            "final": {tag: value for tag, value in self.summary.final.items() if math.isfinite(value)},
            "seconds": self.seconds,
        }

    def _restore(self) -> None:
        kept = self.checkpoints.newest(device=self.device)
        self.settings.require_reach(kept["step"])
        with incompatible_refused():
            self.state.load_state_dict(kept)
            self.step = self.summary.saved_step = kept["step"]
            self.seen_at = (self.step, int(kept["images_seen"]))
            self.selection.num_without_gain = int(kept["validations_without_gain"])
            self.seconds_before = float(kept["seconds"])
            self.summary.best = {str(tag): float(value) for tag, value in kept["best"].items()}
            self.summary.num_skipped_steps = int(kept["num_skipped_steps"])
            self.summary.final = {str(tag): float(value) for tag, value in kept["final"].items()}
            for name in self.observers.keys() & kept["observers"].keys():
                self.observers[name].load_state_dict(kept["observers"][name])
            reasons = [self.selection.exhausted(), *(observer.stop_reason() for observer in self.observers.values())]
            self._stop_reason = next((reason for reason in reasons if reason is not None), None)
            if self.step < self.last_step and self._stop_reason is None:
                self.state.warn_of_rates(self.step)
