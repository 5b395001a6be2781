"""The measures of a model's samples, from drawing to the entries of the ledger.

Dimensions: N images, C channels, H height, W width, F features, K classes.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from types import MappingProxyType

import torch
from jaxtyping import Float, Int, UInt8
from torch import Tensor
from tqdm import tqdm

from genlab.data.dataset import Dataset, Split
from genlab.data.image_set import ImageSet
from genlab.data.randomness import permutation
from genlab.functional import from_bytes, to_bytes
from genlab.metrics.distances import nearest
from genlab.metrics.features import ClassifierFeatures, Description, FeatureExtractor, describe_all
from genlab.metrics.generation import IMAGES_AT_ONCE, Generated, training_classes
from genlab.metrics.ledger import Estimate, Source
from genlab.metrics.modes import class_histogram
from genlab.metrics.parzen import BANDWIDTHS, parzen_estimate
from genlab.metrics.sample_estimates import (
    as_baseline,
    class_estimates,
    distribution_estimates,
    estimated,
    neighbour_estimate,
)
from genlab.metrics.sample_measure import SampleMeasure
from genlab.parallel.collectives import alone
from genlab.randomness import derive_seed
from genlab.sampling.comparisons import beside, with_neighbours

LEAST_IMAGES = 50
"""Least number of images for a measure of samples."""
# Splits of the baseline's real images; the first that is not the reference is used. The classifier has learned the
# training images by heart, so they look better to it than a perfect model's samples would.
_SPLITS_FOR_THE_BASELINE: tuple[Split, ...] = ("validation", "test", "train")
_IMAGES_WITH_NEIGHBOURS = 1000
_IMAGES_SHOWN_WITH_NEIGHBOURS = 10
_NEIGHBOURS_SHOWN = 3
_IMAGES_SHOWN_BESIDE = 64
_IMAGES_TO_CHOOSE_A_BANDWIDTH = 1000


@dataclass(frozen=True, kw_only=True)
class Protocol:
    """The settings of a comparison, besides the images."""

    seed: int
    batch_size: int
    parzen: bool
    nearest_training: bool
    """True to look through all training images for the nearest ones."""


@dataclass(frozen=True, kw_only=True)
class Reference:
    """Real images that samples are compared with."""

    levels: UInt8[Tensor, "N C H W"]
    source: Source
    split: Split | None
    """Split of the data set that they come from; None for images of other files."""

    @classmethod
    def of_split(cls, dataset: Dataset, split: Split, num_images: int | None, *, seed: int) -> "Reference":
        """Return a random choice of images of a split; all images for None."""
        levels = list(_batches_of(dataset, split, num_images, seed))
        empty = torch.zeros(0, dataset.spec.channels, dataset.spec.height, dataset.spec.width, dtype=torch.uint8)
        return cls(levels=torch.cat([empty, *levels]), source=Source.of(dataset, split), split=split)

    @classmethod
    def of_files(cls, images: ImageSet, num_images: int | None, *, seed: int) -> "Reference":
        """Return a random choice of images; all images for None."""
        levels = images.levels
        if num_images is not None and num_images < len(levels):
            levels = levels[permutation(len(levels), seed=derive_seed(seed, "reference"))[:num_images].sort().values]
        return cls(levels=levels, source=Source.of(images), split=None)


@dataclass(kw_only=True)
class Report:
    """The results so far."""

    estimates: list[Estimate] = field(default_factory=list)
    baselines: list[Estimate] = field(default_factory=list)
    """The same measures of real images of another split instead of the generated ones."""
    histogram: Int[Tensor, " K"] | None = None
    """Samples in each class of the classifier; None without one."""
    pictures: dict[str, Float[Tensor, "C h w"]] = field(default_factory=dict)
    remarks: list[str] = field(default_factory=list)


@dataclass(frozen=True, kw_only=True)
class _Look:
    """The output of one extractor for all images."""

    extractor: FeatureExtractor
    reference: Description
    generated: Description
    real: Description | None
    """Output for real images instead of the generated ones; None if there are too few."""


class Comparison:
    """Generated images and the real images to compare them with, all with the 256 levels of files.

    Several processes make one together and share the looking through extractors. Any of them can then report alone.

    Args:
        generated: Samples, and their classes among those of the data set.
        reference: Real images of the same shape.
        extractors: Feature extractors.
        protocol: Settings of the comparison.
        dataset: Data set with training images of the same shape, for what needs more than the reference: nearest
            neighbours, frequencies of classes, the Parzen window, real images in the samples' place; None without one.
        device: Device of the extractors.
        measures: Further measures, by name.
    """

    def __init__(
        self,
        generated: Generated,
        reference: Reference,
        extractors: Sequence[FeatureExtractor],
        protocol: Protocol,
        *,
        dataset: Dataset | None,
        device: torch.device,
        measures: Mapping[str, SampleMeasure] = MappingProxyType({}),
    ) -> None:
        self.generated = generated
        self.reference = reference
        self.extractors = extractors
        self.protocol = protocol
        self.dataset = dataset
        self.device = device
        self.measures = measures
        self.class_counts = None if dataset is None else training_classes(dataset)
        self._split_of_real = None if dataset is None else self._other_split(dataset)
        self.real: UInt8[Tensor, "N C H W"] | None = None
        if dataset is not None and self._split_of_real is not None:
            self.real = self._real(dataset, self._split_of_real, len(generated.levels))
        self._looks = [
            _Look(
                extractor=extractor,
                reference=describe_all(extractor, self._in_batches(reference.levels)),
                generated=describe_all(extractor, self._in_batches(generated.levels)),
                real=None if self.real is None else describe_all(extractor, self._in_batches(self.real)),
            )
            for extractor in extractors
        ]

    @alone()
    def report(self) -> Report:
        """Return all measures, computed in this process only."""
        report = Report()
        if self._split_of_real == "train":
            report.remarks.append("of real: training images, since the other splits have too few")
        for look in self._looks:
            self._measure(look, report)
        for name, measure in self.measures.items():
            self._measure_further(name, measure, report)
        if self.dataset is not None:
            if self.protocol.parzen:
                self._add_parzen(report, self.dataset)
            if self.protocol.nearest_training:
                self._find_neighbours(report, self.dataset)
        report.baselines = [as_baseline(estimate) for estimate in report.baselines]
        shown = from_bytes(self._some_of_reference(_IMAGES_SHOWN_BESIDE))
        report.pictures["real_beside_generated"] = beside(
            shown, from_bytes(self.generated.levels[:_IMAGES_SHOWN_BESIDE])
        )
        return report

    def _add_parzen(self, report: Report, dataset: Dataset) -> None:
        chooser: Split = "train"
        if dataset.num_images("validation") > 0 and self.reference.split != "validation":
            chooser = "validation"
        choosing = from_bytes(self._real(dataset, chooser, _IMAGES_TO_CHOOSE_A_BANDWIDTH))
        report.estimates.extend(self._parzen(self.generated.levels, choosing))
        if "train" not in (self.reference.split, chooser):
            report.baselines.extend(self._parzen(self._real(dataset, "train", len(self.generated.levels)), choosing))

    def _other_split(self, dataset: Dataset) -> Split | None:
        """Return the split of the real images that are measured in place of the samples; None if all are too small."""
        splits = (split for split in _SPLITS_FOR_THE_BASELINE if split != self.reference.split)
        return next((split for split in splits if dataset.num_images(split) >= LEAST_IMAGES), None)

    def _measure(self, look: _Look, report: Report) -> None:
        """Compute every measure on the features of one extractor."""
        extractor = look.extractor
        for images, labels, estimates in (
            (look.generated, self.generated.labels, report.estimates),
            (look.real, None, report.baselines),
        ):
            if images is None:
                continue
            estimates.extend(distribution_estimates(extractor, look.reference, images))
            if isinstance(extractor, ClassifierFeatures):
                classes = images.logits.argmax(1)
                estimates.extend(class_estimates(extractor, classes, training_counts=self.class_counts, labels=labels))
        if isinstance(extractor, ClassifierFeatures):
            num_modes = extractor.classifier.spec.num_classes
            report.histogram = class_histogram(look.generated.logits.argmax(1), num_modes=num_modes)

    def _measure_further(self, name: str, measure: SampleMeasure, report: Report) -> None:
        """Compute a measure of the pixels, or of the features of every extractor."""
        views: list[tuple[FeatureExtractor | None, Tensor, Tensor, Tensor | None]]
        if measure.of_features:
            views = [
                (look.extractor, look.reference.features, look.generated.features, look.real and look.real.features)
                for look in self._looks
            ]
        else:
            real_images = None if self.real is None else from_bytes(self.real)
            views = [(None, from_bytes(self.reference.levels), from_bytes(self.generated.levels), real_images)]
        for extractor, reference, generated, real in views:
            found = Estimate(
                name=name if extractor is None else f"{name}_{extractor.name}",
                measure=measure.declaration,
                value=float(measure.compute(generated, reference)),
                standard_error=None,
                protocol=measure.protocol,
                features=None if extractor is None else extractor.identity,
                num_generated=len(generated),
                num_reference=len(reference),
            )
            report.estimates.append(found)
            if real is not None:
                of_real = float(measure.compute(real, reference))
                report.baselines.append(replace(found, value=of_real, num_generated=len(real)))

    def _find_neighbours(self, report: Report, dataset: Dataset) -> None:
        """Compute distances to the nearest training images, by pixels and by classifier features, and a picture."""
        classifiers = [extractor for extractor in self.extractors if isinstance(extractor, ClassifierFeatures)]
        generated = self.generated.levels
        count = min(_IMAGES_WITH_NEIGHBOURS, len(generated))
        # At random, for a model may draw its classes in turn.
        levels = generated[permutation(len(generated), seed=derive_seed(self.protocol.seed, "neighbours"))][:count]
        if self.reference.split != "train":
            levels = torch.cat((levels, self._some_of_reference(_IMAGES_WITH_NEIGHBOURS)))
        shown = []
        for extractor in (None, *classifiers):
            distances, numbers = self._nearest_training(levels, extractor, dataset)
            num_training = dataset.num_images("train")
            report.estimates.append(neighbour_estimate(distances[:count], extractor, num_training))
            if len(levels) > count:
                report.baselines.append(neighbour_estimate(distances[count:], extractor, num_training))
            chosen = numbers[:_IMAGES_SHOWN_WITH_NEIGHBOURS]
            images = dataset.at("train", chosen.flatten(), self.protocol.seed, torch.device("cpu")).images
            shown.append(images.view(*chosen.shape, *images.shape[1:]))
        report.pictures["nearest_neighbours"] = with_neighbours(
            from_bytes(levels[:_IMAGES_SHOWN_WITH_NEIGHBOURS]), shown
        )

    def _nearest_training(
        self, levels: UInt8[Tensor, "N C H W"], extractor: FeatureExtractor | None, dataset: Dataset
    ) -> tuple[Float[Tensor, "N k"], Int[Tensor, "N k"]]:
        """Return distances and indices of the nearest training images, by pixels if no extractor is given."""
        batch_size, seed = self.protocol.batch_size, self.protocol.seed
        stream = tqdm(
            map(from_bytes, _batches_of(dataset, "train", None, seed, batch_size=batch_size)),
            total=-(-dataset.num_images("train") // batch_size),
            desc="nearest",
            unit="batch",
            leave=False,
            disable=None,
        )
        if extractor is None:
            points = from_bytes(levels).flatten(1)
            return nearest(points, (batch.flatten(1) for batch in stream), num_neighbours=_NEIGHBOURS_SHOWN)
        points = describe_all(extractor, self._in_batches(levels)).features
        candidates = (describe_all(extractor, [batch.to(self.device)]).features for batch in stream)
        return nearest(points, candidates, num_neighbours=_NEIGHBOURS_SHOWN)

    def _parzen(self, centres: UInt8[Tensor, "N C H W"], choosing: Float[Tensor, "M C H W"]) -> list[Estimate]:
        """Return the log-likelihood, and the bandwidth that was fitted for it."""
        found = parzen_estimate(from_bytes(centres), validation=choosing, test=from_bytes(self.reference.levels))
        likelihood = Estimate(
            name="parzen_log_likelihood_nats",
            measure=estimated("higher", unit="nats"),
            value=found.log_likelihood_nats,
            standard_error=found.standard_error,
            protocol=f"best of {len(BANDWIDTHS)} bandwidths",
            features=None,
            num_generated=len(centres),
            num_reference=len(self.reference.levels),
        )
        bandwidth = replace(
            likelihood,
            name="parzen_bandwidth",
            measure=estimated("neither"),
            value=found.bandwidth,
            standard_error=None,
        )
        return [likelihood, bandwidth]

    def _some_of_reference(self, limit: int) -> UInt8[Tensor, "N C H W"]:
        """Return a random choice of real images like those of the reference."""
        split, levels, seed = self.reference.split, self.reference.levels, self.protocol.seed
        if split is not None and self.dataset is not None:
            return self._real(self.dataset, split, limit)
        return levels[permutation(len(levels), seed=derive_seed(seed, "reference"))[:limit]]

    def _real(self, dataset: Dataset, split: Split, limit: int) -> UInt8[Tensor, "N C H W"]:
        return torch.cat(list(_batches_of(dataset, split, limit, self.protocol.seed)))

    def _in_batches(self, levels: UInt8[Tensor, "N C H W"]) -> Iterator[Float[Tensor, "B C H W"]]:
        parts = tqdm(
            torch.split(levels, self.protocol.batch_size), desc="looking", unit="batch", leave=False, disable=None
        )
        return (from_bytes(part.to(self.device)) for part in parts)


def _batches_of(
    dataset: Dataset, split: Split, limit: int | None, seed: int, *, batch_size: int = IMAGES_AT_ONCE
) -> Iterator[UInt8[Tensor, "B C H W"]]:
    """Yield real images on the CPU, batch by batch, with the levels of files."""
    batches = dataset.batches(split, batch_size=batch_size, seed=seed, device=torch.device("cpu"), limit=limit)
    return (to_bytes(batch.images) for batch in batches)
