"""Detection of mode collapse, a failure of a generator that its losses do not show.

Two measures of N images that the model draws, always from the same noise:

* the diversity ratio, their mean pairwise distance over that of N training images. It is 1 for a model that is as
  diverse as the data and 0 when all images are equal; k equally likely points give about 1 - 1/k. It tells nothing
  about quality (noise has a high ratio) and little about classes: one digit of MNIST, in all its variety, has 0.6 to 1;
* with a classifier, the modes covered: the number of classes that at least one of the N images falls into.

A generator that has not learned anything yet draws nearly equal images, so the interval should give it time.

Dimensions: N images, D sub-pixels.
"""

import logging
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor

from genlab.compiler import uncompiled
from genlab.errors import ConfigurationError, DataError
from genlab.measures import WATCH_MEASURES
from genlab.models.base import GenerativeModel, Model
from genlab.parallel.collectives import shared_work
from genlab.parallel.processes import gathered
from genlab.randomness import derive_seed
from genlab.training.observer import Observer
from genlab.training.randomness import generator_for
from genlab.training.run import TrainingRun
from genlab.training.summary import StopReason

_log = logging.getLogger(__name__)

_STATE = ("is_alarmed", "first_step", "diversity_ratio", "modes_covered")


@dataclass(frozen=True, kw_only=True)
class ClassPredictor:
    """A classifier for the collapse watch."""

    name: str
    """Origin of the classifier, for messages and summary.json."""
    num_modes: int
    """Number of its classes."""
    predict: Callable[[Float[Tensor, "N C H W"]], Int[Tensor, " N"]]
    """Function of images in [0, 1] to class indices."""


def mean_pairwise_distance(images: Float[Tensor, "N C H W"]) -> float:
    """Return the mean Euclidean distance between two different images of N; at least two are needed.

    N (N - 1) D / 2 operations on the CPU: a millisecond for 64 images of 28x28, a tenth of a second for 1,024.
    """
    return float(torch.pdist(images.detach().float().cpu().flatten(1)).mean())


def num_modes_covered(classes: Int[Tensor, " N"]) -> int:
    """Return the number of different classes."""
    return len(set(classes.tolist()))


class CollapseWatch(Observer):
    """Observer of the diversity of a model's samples, with an alarm below the given bounds.

    It draws from a generator of its own, so that it does not change the training.

    Args:
        run: To observe; its model must draw images, its training images set the scale, its settings hold the bounds.
        predictor: The classifier that counts modes; None counts none.

    Raises:
        ConfigurationError: The model draws no images, or a bound cannot be met.
        DataError: The training images do not differ, so that they set no scale.
    """

    measures = WATCH_MEASURES

    def __init__(self, run: TrainingRun, *, predictor: ClassPredictor | None) -> None:
        super().__init__(run, interval=run.settings.watch_interval)
        self._settings = settings = run.settings
        self._predictor = predictor
        model, dataset = run.model, run.dataset
        if not isinstance(model, GenerativeModel):
            raise ConfigurationError(
                f"trainer.watch_interval must be 0 for {type(model).__name__}, which draws no images to watch, got "
                f"{settings.watch_interval}"
            )
        self.is_alarmed = False
        self.first_step: int | None = None
        """The step of the first alarm of the run; it stays when the model recovers."""
        self.diversity_ratio: float | None = None
        self.modes_covered: int | None = None
        self._require_reachable_bounds()
        num_images = settings.watch_images
        images = dataset.subset("train", num_images, seed=derive_seed(run.seed, "watch"), device=run.device).images
        self._scale = mean_pairwise_distance(images) if len(images) > 1 else 0.0
        if self._scale == 0:
            raise DataError(
                f"the {len(images)} training images of dataset {dataset.name} that trainer.watch_images takes are all "
                "equal and set no scale: take more, or set trainer.watch_interval=0"
            )
        run.summary.collapse = self.report()

    def observe(self, step: int) -> StopReason | None:
        with uncompiled():
            values = self.look(self.run.evaluated_model(), step=step)
        self.run.write(values)
        self.run.summary.final |= values
        self.run.summary.collapse = self.report()
        return self.stop_reason()

    def stop_reason(self) -> StopReason | None:
        if self._settings.on_collapse == "warn" or not self.is_alarmed:
            return None
        hint = "to continue, resume with trainer.on_collapse=warn"
        return StopReason(f"collapsed: {self.description()}; {hint}", is_final=True)

    @torch.no_grad()
    def look(self, model: Model, *, step: int) -> dict[str, float]:
        """Draw images, measure them, and log when the alarm starts or ends.

        Args:
            model: The one the watch was made for, or its average, in evaluation mode.
            step: Training steps so far.

        Returns:
            Scalars by tag: ``watch/diversity_ratio``, ``modes/covered`` with a classifier, ``watch/collapse_alarm``.
        """
        assert isinstance(model, GenerativeModel)
        with shared_work():
            generator = generator_for(self.run.seed, "watch", device=self.run.device)
            images = model.sample(self._settings.watch_images, generator=generator)
        self.diversity_ratio = mean_pairwise_distance(images) / self._scale
        if self._predictor is not None:
            self.modes_covered = num_modes_covered(self._predictor.predict(images))
        # The first process's view, so that all stop at the same step.
        self.diversity_ratio, self.modes_covered = gathered((self.diversity_ratio, self.modes_covered))[0]
        values = {"watch/diversity_ratio": self.diversity_ratio}
        if self.modes_covered is not None:
            values["modes/covered"] = float(self.modes_covered)
        was_alarmed = self.is_alarmed
        self.is_alarmed = self._is_below_a_bound()
        if self.is_alarmed and not was_alarmed:
            self.first_step = step if self.first_step is None else self.first_step
            _log.warning("step %d: the model may have collapsed: %s", step, self.description())
        elif was_alarmed and not self.is_alarmed:
            _log.info("step %d: no sign of collapse any more: %s", step, self.description())
        return {**values, "watch/collapse_alarm": float(self.is_alarmed)}

    def _is_below_a_bound(self) -> bool:
        measures = (self.diversity_ratio, self.modes_covered)
        bounds = (self._settings.min_diversity_ratio, self._settings.min_modes_covered)
        # "not >=" rather than "<": a measure that is not a number is an alarm.
        return any(
            bound is not None and value is not None and not value >= bound
            for value, bound in zip(measures, bounds, strict=True)
        )

    def description(self) -> str:
        """Return the newest measures with their bounds as text."""
        settings = self._settings
        text = f"{self.diversity_ratio:.3g} of the training images' diversity"
        if settings.min_diversity_ratio is not None:
            text += f" (trainer.min_diversity_ratio={settings.min_diversity_ratio:g})"
        if self._predictor is not None:
            text += f", {self.modes_covered} of {self._predictor.num_modes} modes covered"
        if settings.min_modes_covered is not None:
            text += f" (trainer.min_modes_covered={settings.min_modes_covered})"
        return text

    def report(self) -> dict[str, Any]:
        """Return the state of the watch for summary.json; measures are null before the first check."""
        report: dict[str, Any] = {
            "alarm": self.is_alarmed,
            "first_step": self.first_step,
            "diversity_ratio": self.diversity_ratio,
            "modes_covered": self.modes_covered,
            "bounds": {
                "min_diversity_ratio": self._settings.min_diversity_ratio,
                "min_modes_covered": self._settings.min_modes_covered,
            },
            "num_images": self._settings.watch_images,
        }
        if self._predictor is not None:
            report |= {"num_modes": self._predictor.num_modes, "classifier": self._predictor.name}
        return report

    def state_dict(self) -> dict[str, Any]:
        return {name: getattr(self, name) for name in _STATE}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        for name in _STATE:
            setattr(self, name, state[name])
        if self.diversity_ratio is not None:
            self.is_alarmed = self._is_below_a_bound()  # this start may have other bounds
        self.run.summary.collapse = self.report()

    def _require_reachable_bounds(self) -> None:
        bound = self._settings.min_modes_covered
        if bound is None:
            return
        if self._predictor is None:
            raise ConfigurationError(
                f"trainer.min_modes_covered needs a classifier to count modes with, got {bound}: set "
                "trainer.watch_classifier to auto or to the run of one, or the bound to null"
            )
        num_modes, num_images = self._predictor.num_modes, self._settings.watch_images
        most = min(num_modes, num_images)
        if bound > most:
            raise ConfigurationError(
                f"trainer.min_modes_covered must be at most {most} (trainer.watch_images={num_images}, {num_modes} "
                f"modes), got {bound}"
            )
