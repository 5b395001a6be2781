"""The observers of every run, in their order: metrics, validation, pictures, collapse, the user's own, limits."""

import logging
import time
from collections.abc import Mapping
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from genlab.compiler import uncompiled
from genlab.data.dataset import Split
from genlab.parallel.collectives import shared_work
from genlab.run.checkpoint import first_not_finite
from genlab.sampling.pictures import save_pictures, sheet
from genlab.training.collapse import ClassPredictor, CollapseWatch
from genlab.training.evaluation import scalar_means
from genlab.training.observer import Observer, ObserverFactory
from genlab.training.randomness import generator_for
from genlab.training.run import TrainingRun
from genlab.training.slowdown import SlowdownWatch
from genlab.training.summary import StopReason

_log = logging.getLogger(__name__)


def observers_of(
    run: TrainingRun,
    metrics: "TrainingMetrics",
    *,
    class_predictor: ClassPredictor | None,
    own: Mapping[str, ObserverFactory],
) -> dict[str, Observer]:
    """Return the observers of a run by name, in the order of their calls.

    Args:
        run: To observe.
        metrics: Of its steps.
        class_predictor: Counts modes for the collapse watch.
        own: Further ones, which the configuration names.
    """
    settings = run.settings
    observers: dict[str, Observer] = {
        "slowdown": SlowdownWatch(run, interval=settings.log_interval),
        "metrics": metrics,  # after the slow-down warning, for it begins a new window of the speedometer
    }
    if settings.validation_interval > 0:
        observers["validation"] = Validation(run, interval=settings.validation_interval)
        if run.model.followed:
            observers["course"] = Course(run, interval=settings.validation_interval)
    if settings.sample_interval > 0:
        observers["pictures"] = Pictures(run, interval=settings.sample_interval)
    if settings.watch_interval > 0:
        observers["collapse"] = CollapseWatch(run, predictor=class_predictor)
    observers |= {name: factory(run=run) for name, factory in own.items()}
    if settings.max_minutes is not None:
        observers["time_limit"] = TimeLimit(run, max_minutes=settings.max_minutes)
    return observers


class TrainingMetrics(Observer):
    """Observer of the means of the phases' metrics since the last log line, the learning rates and the speed."""

    def __init__(self, run: TrainingRun) -> None:
        super().__init__(run, interval=run.settings.log_interval)
        self._pending: dict[str, list[Float[Tensor, " n"]]] = {}  # on the device until they are written

    def record(self, phase: str, metrics: Mapping[str, Tensor]) -> None:
        """Keep the metrics of one update."""
        for name, value in metrics.items():
            self._pending.setdefault(f"train/{phase}/{name}", []).append(value.reshape(1))

    def take(self) -> dict[str, float]:
        """Return the means by tag, and reset them."""
        values = {tag: self._mean(torch.cat(kept)) for tag, kept in self._pending.items()}
        self._pending.clear()
        return values

    def _mean(self, values: Float[Tensor, " n"]) -> float:
        # A device records the metrics of an update that it withholds, too; the host does not.
        is_counted = values.isfinite() if self.run.settings.on_non_finite == "skip" else ~values.isnan()
        return float((values[is_counted] if bool(is_counted.any()) else values).mean())

    def observe(self, step: int) -> None:
        run = self.run
        steps, seconds = run.speedometer.read(step)
        run.notice_withheld()
        values = self.take()
        for update in run.state.updates:
            values[f"train/{update.phase.name}/learning_rate"] = float(update.schedule.get_last_lr()[0])
        run.summary.final |= values
        values["speed/images_per_second"] = steps * run.images_per_step / seconds
        run.write(values)
        if run.progress is not None:
            run.progress.show(step, values)
        run.speedometer.restart(step)

    def state_dict(self) -> dict[str, Any]:
        return {tag: torch.cat(kept) for tag, kept in self._pending.items()}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        self._pending = {tag: [values] for tag, values in state.items()}


class Validation(Observer):
    """Observer of the model's own measures on the validation split, which select the best checkpoint."""

    def __init__(self, run: TrainingRun, *, interval: int) -> None:
        super().__init__(run, interval=interval)
        self._has_warned = False

    def observe(self, step: int) -> StopReason | None:  # noqa: ARG002 - the run knows it
        averages = self.run.evaluate("validation", limit=self.run.settings.validation_images)
        values = {f"validation/{name}": mean for name, mean in scalar_means(averages).items()}
        tag = self.run.selection.tag or ""
        if tag.startswith("validation/") and tag not in values and not self._has_warned:
            self._has_warned = True
            _log.warning("%s selects the best checkpoint and is not measured; measured: %s", tag, ", ".join(values))
        return self.run.report(values)

    def state_dict(self) -> dict[str, Any]:
        return {"data": self.run.dataset.fingerprint, "num_images": self.run.settings.validation_images}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Restore the state; reset the selection if earlier values are not comparable with new ones."""
        if dict(state) != self.state_dict() and (self.run.selection.tag or "").startswith("validation/"):
            _log.warning("the data or trainer.validation_images have changed: the best checkpoint is selected anew")
            self.run.selection.forget()


class Course(Observer):
    """Observer of the measures that the model follows, at each validation, for its own warning; it warns once."""

    def __init__(self, run: TrainingRun, *, interval: int) -> None:
        super().__init__(run, interval=interval)
        self._course: list[dict[str, float]] = []
        self._has_warned = False

    def observe(self, step: int) -> None:
        latest, followed = self.run.summary.final, self.run.model.followed
        if self._has_warned or not all(tag in latest for tag in followed):
            return
        self._course.append({tag: latest[tag] for tag in followed})
        if (warning := self.run.model.warning_in_training(self._course)) is not None:
            self._has_warned = True
            _log.warning("step %d: %s", step, warning)

    def state_dict(self) -> dict[str, Any]:
        return {"course": self._course, "has_warned": self._has_warned}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        self._course, self._has_warned = [dict(values) for values in state["course"]], bool(state["has_warned"])


class Pictures(Observer):
    """Observer that draws grids and films from the same noise throughout the run; processes share the samples."""

    def observe(self, step: int) -> None:
        run = self.run
        num_images = run.settings.num_sample_images
        split: Split = "validation" if run.dataset.num_images("validation") else "train"
        batch = run.dataset.subset(split, num_images, seed=run.seed, device=run.device)
        model = run.evaluated_model()
        with torch.no_grad(), uncompiled(), shared_work():
            pictures = model.visualize(
                batch, num_samples=num_images, generator=generator_for(run.seed, "pictures", device=run.device)
            )
        bad = first_not_finite(pictures)
        if bad is not None:
            raise run.diverged(f"{bad} not finite, nothing saved")
        if run.log is None:
            return
        groups = model.picture_groups
        save_pictures(pictures, run.run_folder / "samples", groups=groups, names={"samples": f"step_{step:08d}"})
        for name, picture in pictures.items():
            run.log.picture(name, sheet(picture, group=groups.get(name, 1)), step=step)


class TimeLimit(Observer):
    """Observer that stops the run, resumably, after some minutes of this start."""

    def __init__(self, run: TrainingRun, *, max_minutes: float) -> None:
        super().__init__(run, interval=1)
        self._max_minutes = max_minutes
        self._started = time.monotonic()

    def observe(self, step: int) -> StopReason | None:
        if step == self.run.last_step or time.monotonic() - self._started <= 60 * self._max_minutes:
            return None
        hint = "" if self.run.settings.dry_run else "; resume to continue"
        return StopReason(f"trainer.max_minutes={self._max_minutes:g} is over{hint}")
