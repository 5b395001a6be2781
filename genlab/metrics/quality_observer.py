"""The quality of samples during training, for models whose losses do not order models, such as GANs.

At each look the averaged model draws the same noise, and its images are compared with the same validation images, in
one space of features: Frechet and kernel distance, precision and recall, each beside the value of real images that
take the samples' place. The Frechet distance chooses the best checkpoint. No image of the test split is looked at.

Pictures of each look, with the distance under them: the samples; for the first of them the nearest training images, of
as many as are drawn and in the same space of features; every class where there are classes. The newest stay in the run
folder.

Dimensions: N images, C channels, H height, W width, F features, h and w of a whole picture.
"""

import logging
import time
from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor

from genlab.compiler import uncompiled
from genlab.functional import from_bytes, to_bytes
from genlab.measures import OF_REAL_IMAGES, QUALITY_MEASURES
from genlab.metrics.distances import nearest
from genlab.metrics.features import FeatureExtractor, describe_all
from genlab.metrics.frechet import fit_gaussian, frechet_distance
from genlab.metrics.generation import IMAGES_AT_ONCE, draw_images, sample_labels
from genlab.metrics.kernel import kernel_distance
from genlab.metrics.manifold import precision_and_recall
from genlab.metrics.quality_settings import LEAST_IMAGES, QualitySettings
from genlab.models.base import GenerativeModel, Model, table_side
from genlab.parallel.processes import gathered
from genlab.run.checkpoint import first_not_finite
from genlab.sampling.comparisons import with_neighbours
from genlab.sampling.pictures import captioned, grid, save_picture
from genlab.training.logging import RunLog
from genlab.training.observer import Observer
from genlab.training.run import TrainingRun
from genlab.training.summary import StopReason

_FEW_IMAGES = 1000
_IMAGES_SHOWN = 64
_IMAGES_WITH_NEIGHBOURS = 8
_NEIGHBOURS_SHOWN = 5
_SEED = 0  # of the images and of the noise, so that the curves of all seeds compare
_FRECHET = "frechet_distance"
_MEASURES = (_FRECHET, "kernel_distance", "precision", "recall")

_log = logging.getLogger(__name__)


def is_measured_by_samples(model: Model) -> bool:
    """Return True if a model draws images and has, as every model of its class, no measure of held-out images."""
    return isinstance(model, GenerativeModel) and type(model).selection_measure is None


class QualityObserver(Observer):
    """The distances between a model's samples and validation images.

    Args:
        run: To observe; of a model that draws images, on a validation split of LEAST_IMAGES or more.
        settings: When and on how many images.
        extractor: The space in which images are compared.
    """

    def __init__(self, run: TrainingRun, *, settings: QualitySettings, extractor: FeatureExtractor) -> None:
        super().__init__(run, interval=settings.interval or run.settings.validation_interval)
        self.extractor = extractor
        tags = [self._tag(name, of_real=of_real) for name in _MEASURES for of_real in (False, True)]
        self.measures = {tag: QUALITY_MEASURES[tag] for tag in tags}
        self.selects = self._tag(_FRECHET)
        dataset, limits = run.dataset, (settings.num_samples, run.settings.validation_images or settings.num_samples)
        self.num_images = min(*limits, dataset.num_images("validation"))
        images = dataset.subset("validation", 2 * self.num_images, seed=_SEED, device=run.device).images
        reference, real = images[: self.num_images], images[self.num_images :]
        training = dataset.subset("train", self.num_images, seed=_SEED, device=run.device).images
        self._training = to_bytes(training).cpu()
        self._of_training = self._features(training)
        self._reference = self._features(reference)
        self._gaussian = fit_gaussian(self._reference)
        # The classifier knows training images, so others are better.
        self._real_is_trained = len(real) < self.num_images
        of_real = self._of_training if self._real_is_trained else self._features(real)
        self._of_real = self._measured(of_real, of_real=True) if len(of_real) >= LEAST_IMAGES else {}
        assert isinstance(run.model, GenerativeModel)
        self._labels = sample_labels(run.model, dataset, self.num_images, seed=_SEED)
        self._began: tuple[int, float] | None = None  # the first step of this start, and its time
        self._has_logged_cost = False

    def due(self, step: int) -> bool:
        if self._began is None:
            self._began = step, time.monotonic()
        return super().due(step)

    def observe(self, step: int) -> StopReason | None:
        run, before = self.run, time.monotonic()
        model = run.evaluated_model()
        assert isinstance(model, GenerativeModel)
        with uncompiled():
            images = self._draw(model, self.num_images, self._labels)
            classes = self._class_grid(model)
        if first_not_finite(images) is not None:
            raise run.diverged("samples not finite, nothing saved")
        features = self._features(images)
        values = self._measured(features, of_real=False)
        values = gathered({**values, **self._of_real})[0]  # that of the first process, so that all choose the same step
        if run.log is not None:
            real = values.get(self._tag(_FRECHET, of_real=True), float("nan"))
            caption = f"step {step}: Frechet distance {values[self._tag(_FRECHET)]:.4g}, of real images {real:.4g}"
            near = f"{caption}; beside the nearest of {len(self._training)} training images by {self.extractor.name}"
            self._show("samples", grid(images[:_IMAGES_SHOWN]), caption, step, run.log)
            self._show("nearest_training_images", self._with_neighbours(images, features), near, step, run.log)
            if classes is not None:
                self._show("class_grid", classes, caption, step, run.log)
        self._tell(step, before, time.monotonic() - before)
        return run.report(values)

    def state_dict(self) -> dict[str, Any]:
        return {
            "features": self.extractor.identity,
            "num_images": self.num_images,
            "data": self.run.dataset.fingerprint,
        }

    def load_state_dict(self, state: Any) -> None:
        """Restore the state; reset the selection if earlier values are not comparable with new ones."""
        if state == self.state_dict() or self.run.selection.tag != self.selects:
            return
        _log.warning(
            "quality was measured on %s images by %s, and now on %s%s by %s: the best checkpoint is selected anew",
            state["num_images"],
            state["features"],
            self.num_images,
            " of other data" if state["data"] != self.run.dataset.fingerprint else "",
            self.extractor.identity,
        )
        self.run.selection.forget()

    def _tag(self, name: str, *, of_real: bool = False) -> str:
        return f"quality/{OF_REAL_IMAGES * of_real}{name}_{self.extractor.name}"

    def _draw(
        self, model: GenerativeModel, num_images: int, labels: Int[Tensor, " N"] | None
    ) -> Float[Tensor, "N C H W"]:
        return draw_images(model, num_images, labels=labels, seed=_SEED, device=self.run.device, shows_progress=False)

    def _class_grid(self, model: GenerativeModel) -> Float[Tensor, "C h w"] | None:
        """Return a picture with one class in each row and the same noise in each column; None without classes."""
        if model.num_classes == 0:
            return None
        side = table_side(model.num_classes, _IMAGES_SHOWN)
        rows = [self._draw(model, side, torch.full((side,), label)) for label in range(side)]
        return grid(torch.cat(rows), num_columns=side)

    def _with_neighbours(
        self, images: Float[Tensor, "N C H W"], features: Float[Tensor, "N F"]
    ) -> Float[Tensor, "C h w"]:
        """Return a row for each of the first samples: the sample, a gap, its nearest training images."""
        points = features[:_IMAGES_WITH_NEIGHBOURS]
        numbers = nearest(points, [self._of_training], num_neighbours=_NEIGHBOURS_SHOWN)[1]
        return with_neighbours(images[:_IMAGES_WITH_NEIGHBOURS], [from_bytes(self._training[numbers])])

    def _show(self, name: str, picture: Float[Tensor, "C h w"], caption: str, step: int, log: RunLog) -> None:
        log.picture(f"quality/{name}", captioned(picture, caption), step=step)
        save_picture(picture, self.run.run_folder / "samples" / f"quality_{name}.png", description=caption)

    def _features(self, images: Float[Tensor, "N C H W"]) -> Float[Tensor, "N F"]:
        batches = (batch.to(self.run.device) for batch in torch.split(images, IMAGES_AT_ONCE))
        return describe_all(self.extractor, batches).features

    def _measured(self, features: Float[Tensor, "N F"], *, of_real: bool) -> dict[str, float]:
        """Return the measures by tag, of images in the place of samples."""
        values = (
            frechet_distance(self._gaussian, fit_gaussian(features)),
            kernel_distance(self._reference, features)[0],
            *precision_and_recall(self._reference, features),
        )
        return {self._tag(name, of_real=of_real): value for name, value in zip(_MEASURES, values, strict=True)}

    def _tell(self, step: int, before: float, seconds: float) -> None:
        """Log once the images that are compared, and the cost of a measurement."""
        if self._has_logged_cost:
            return
        self._has_logged_cost = True
        share = ""
        if self._began is not None and step > self._began[0]:
            training = (before - self._began[1]) / (step - self._began[0]) * self.interval
            share = f", {100 * seconds / (training + seconds):.1f} % of the time"
        few = "; with so few images distances are too large, and comparable only at this number"
        _log.info(
            "quality: %d samples and as many validation images every %d steps, by %s%s; a measurement takes %.2g s%s%s",
            self.num_images,
            self.interval,
            self.extractor.identity,
            " (real: training images)" if self._real_is_trained else "",
            seconds,
            share,
            few if self.num_images < _FEW_IMAGES else "",
        )
