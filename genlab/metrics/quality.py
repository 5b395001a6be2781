"""Every measure of a model's samples, from drawing them to the entries of the ledger.

Dimensions: N images, C channels, H height, W width, F features, K classes.
"""

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from types import MappingProxyType

import torch
from jaxtyping import Float, Int
from torch import Tensor
from tqdm import tqdm

from genlab.data.dataset import Dataset, Split
from genlab.data.randomness import permutation
from genlab.measures import OF_REAL_IMAGES, SAMPLE_MEASURES, Direction, Measure
from genlab.metrics.distances import nearest
from genlab.metrics.features import ClassifierFeatures, Description, FeatureExtractor, describe_all
from genlab.metrics.frechet import fit_gaussian, frechet_distance
from genlab.metrics.generation import draw_images, draw_labels, training_classes
from genlab.metrics.inception_score import NUM_PARTS, inception_style_score
from genlab.metrics.kernel import kernel_distance
from genlab.metrics.ledger import Estimate
from genlab.metrics.manifold import NEIGHBOURS_OF_DENSITY, NEIGHBOURS_OF_PRECISION, manifold_scores
from genlab.metrics.modes import class_histogram, histogram_divergence, modes_covered
from genlab.metrics.parzen import BANDWIDTHS, parzen_estimate
from genlab.metrics.sample_measure import SampleMeasure
from genlab.models.base import GenerativeModel
from genlab.parallel.collectives import alone
from genlab.randomness import derive_seed
from genlab.sampling.comparisons import beside, with_neighbours

LEAST_IMAGES = 50
"""Below it a measure of samples says nothing."""
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
    """The settings of a comparison, besides the model and the data."""

    num_generated: int
    reference_split: Split
    num_reference: int | None
    """A random choice of so many reference images; None takes all."""
    seed: int
    batch_size: int
    parzen: bool


@dataclass(kw_only=True)
class Report:
    """The results so far."""

    estimates: list[Estimate] = field(default_factory=list)
    baselines: list[Estimate] = field(default_factory=list)
    """The same measures of real images of another split in the place of the generated ones."""
    histogram: Int[Tensor, " K"] | None = None
    """Samples in each class of the classifier; None without one."""
    pictures: dict[str, Float[Tensor, "C h w"]] = field(default_factory=dict)


@dataclass(frozen=True, kw_only=True)
class _Look:
    """The output of one extractor for all images."""

    extractor: FeatureExtractor
    reference: Description
    generated: Description
    real: Description | None
    """Of real images in the place of the generated ones; None if there are too few."""


class Comparison:
    """Generated images and the real ones that they are held against.

    Several processes make one together: they share the drawing, and the looking through extractors. Any of them can
    then report alone.

    Args:
        model: In evaluation mode, on the device.
        dataset: Real images; its reference and training splits have some.
        extractors: Feature extractors.
        protocol: Settings of the comparison.
        device: Device of the networks.
        measures: Further measures, by name.
    """

    def __init__(
        self,
        model: GenerativeModel,
        dataset: Dataset,
        extractors: Sequence[FeatureExtractor],
        protocol: Protocol,
        *,
        device: torch.device,
        measures: Mapping[str, SampleMeasure] = MappingProxyType({}),
    ) -> None:
        self.measures = measures
        self.dataset = dataset
        self.extractors = extractors
        self.protocol = protocol
        self.device = device
        self.class_counts = training_classes(dataset)
        count = protocol.num_generated
        self.labels: Int[Tensor, " N"] | None = None
        if model.num_classes > 0:
            counts = self.class_counts if self.class_counts is not None else torch.ones(model.num_classes).long()
            self.labels = draw_labels(counts, count, seed=protocol.seed)
        self.generated = draw_images(model, count, labels=self.labels, seed=protocol.seed, device=device)
        self.reference = torch.cat(list(self._real(protocol.reference_split, protocol.num_reference)))
        self.real = real = self._other_real_images()
        self._looks = [
            _Look(
                extractor=extractor,
                reference=describe_all(extractor, self._in_batches(self.reference)),
                generated=describe_all(extractor, self._in_batches(self.generated)),
                real=None if real is None else describe_all(extractor, self._in_batches(real)),
            )
            for extractor in extractors
        ]

    def report(self) -> Report:
        """Measure everything, in this process alone."""
        with alone():
            return self._report()

    def _report(self) -> Report:
        report = Report()
        for look in self._looks:
            self._measure(look, report)
        for name, measure in self.measures.items():
            self._measure_further(name, measure, report)
        if self.protocol.parzen:
            report.estimates.extend(self._parzen(self.generated, chooser=self._chooser_of_bandwidths))
            if "train" not in (self.protocol.reference_split, self._chooser_of_bandwidths):
                centres = torch.cat(list(self._real("train", len(self.generated))))
                baselines = self._parzen(centres, chooser=self._chooser_of_bandwidths)
                report.baselines.extend(_as_baseline(estimate) for estimate in baselines)
        self._find_neighbours(report)
        shown = torch.cat(list(self._real(self.protocol.reference_split, _IMAGES_SHOWN_BESIDE)))
        report.pictures["real_beside_generated"] = beside(shown, self.generated[:_IMAGES_SHOWN_BESIDE])
        return report

    def _other_real_images(self) -> Float[Tensor, "N C H W"] | None:
        """At most as many real images as were generated, from another split than the reference; None if too few."""
        for split in _SPLITS_FOR_THE_BASELINE:
            if split != self.protocol.reference_split and self.dataset.num_images(split) >= LEAST_IMAGES:
                return torch.cat(list(self._real(split, len(self.generated))))
        return None

    def _measure(self, look: _Look, report: Report) -> None:
        """Compute every measure that one extractor gives."""
        extractor = look.extractor
        report.estimates.extend(distribution_estimates(extractor, look.reference, look.generated))
        if look.real is not None:
            baselines = distribution_estimates(extractor, look.reference, look.real)
            report.baselines.extend(_as_baseline(estimate) for estimate in baselines)
        if not isinstance(extractor, ClassifierFeatures):
            return
        predictions = look.generated.logits.argmax(1)
        report.estimates.extend(class_estimates(extractor, predictions, training_counts=self.class_counts))
        if self.labels is not None:
            report.estimates.append(conditional_accuracy(extractor, predictions, self.labels))
        if look.real is not None:
            baselines = class_estimates(extractor, look.real.logits.argmax(1), training_counts=self.class_counts)
            report.baselines.extend(_as_baseline(estimate) for estimate in baselines)
        report.histogram = class_histogram(predictions, num_modes=extractor.classifier.spec.num_classes)

    def _measure_further(self, name: str, measure: SampleMeasure, report: Report) -> None:
        """Compute a measure of the pixels, or of the features of every extractor."""
        views: list[tuple[FeatureExtractor | None, Tensor, Tensor, Tensor | None]]
        views = [(None, self.reference, self.generated, self.real)]
        if measure.of_features:
            views = [
                (look.extractor, look.reference.features, look.generated.features, look.real and look.real.features)
                for look in self._looks
            ]
        for extractor, reference, generated, real in views:
            found = Estimate(
                name=name if extractor is None else f"{name}_{extractor.name}",
                measure=measure.declaration,
                value=measure.compute(generated, reference),
                standard_error=None,
                protocol=measure.protocol,
                features=None if extractor is None else extractor.identity,
                num_generated=len(generated),
                num_reference=len(reference),
            )
            report.estimates.append(found)
            if real is not None:
                of_real = replace(found, value=measure.compute(real, reference), num_generated=len(real))
                report.baselines.append(_as_baseline(of_real))

    def _find_neighbours(self, report: Report) -> None:
        """Distances to the nearest training images, by pixels and by the classifier's features, and a picture."""
        looks: list[FeatureExtractor | None] = [None]
        looks += [extractor for extractor in self.extractors if isinstance(extractor, ClassifierFeatures)]
        count = min(_IMAGES_WITH_NEIGHBOURS, len(self.generated))
        # At random, for a model may draw its classes in turn.
        images = self.generated[permutation(len(self.generated), seed=derive_seed(self.protocol.seed, "neighbours"))]
        images = images[:count]
        if self.protocol.reference_split != "train":
            images = torch.cat((images, *self._real(self.protocol.reference_split, _IMAGES_WITH_NEIGHBOURS)))
        shown = []
        for extractor in looks:
            distances, numbers = self._nearest_training(images, extractor)
            report.estimates.append(self._neighbour_estimate(distances[:count], extractor))
            if len(images) > count:
                baseline = self._neighbour_estimate(distances[count:], extractor)
                report.baselines.append(_as_baseline(baseline))
            shown.append(self._training_images(numbers[:_IMAGES_SHOWN_WITH_NEIGHBOURS]))
        report.pictures["nearest_neighbours"] = with_neighbours(images[:_IMAGES_SHOWN_WITH_NEIGHBOURS], shown)

    def _nearest_training(
        self, images: Float[Tensor, "N C H W"], extractor: FeatureExtractor | None
    ) -> tuple[Float[Tensor, "N k"], Int[Tensor, "N k"]]:
        """Return distances and indices of the nearest training images, by pixels if no extractor is given."""
        num_batches = -(-self.dataset.num_images("train") // self.protocol.batch_size)
        stream = tqdm(
            self._real("train", None), total=num_batches, desc="nearest", unit="batch", leave=False, disable=None
        )
        if extractor is None:
            return nearest(images.flatten(1), (batch.flatten(1) for batch in stream), num_neighbours=_NEIGHBOURS_SHOWN)
        points = describe_all(extractor, self._in_batches(images)).features
        candidates = (describe_all(extractor, [batch.to(self.device)]).features for batch in stream)
        return nearest(points, candidates, num_neighbours=_NEIGHBOURS_SHOWN)

    def _neighbour_estimate(self, distances: Float[Tensor, "N k"], extractor: FeatureExtractor | None) -> Estimate:
        return Estimate(
            name=f"nearest_training_distance_{'pixels' if extractor is None else extractor.name}",
            measure=_estimated("neither"),  # near is memorised, far may be noise
            **_mean_and_error(distances[:, 0]),
            protocol=f"of {self.dataset.num_images('train'):,} training",
            features=None if extractor is None else extractor.identity,
            num_generated=len(distances),
            num_reference=0,
        )

    def _training_images(self, numbers: Int[Tensor, "N k"]) -> Float[Tensor, "N k C H W"]:
        images = self.dataset.at("train", numbers.flatten(), self.protocol.seed, torch.device("cpu")).images
        return images.view(*numbers.shape, *images.shape[1:])

    @property
    def _chooser_of_bandwidths(self) -> Split:
        has_validation = self.dataset.num_images("validation") > 0
        return "validation" if has_validation and self.protocol.reference_split != "validation" else "train"

    def _parzen(self, centres: Tensor, *, chooser: Split) -> list[Estimate]:
        """Return the log-likelihood, and the bandwidth that was fitted for it."""
        choosing = torch.cat(list(self._real(chooser, _IMAGES_TO_CHOOSE_A_BANDWIDTH)))
        found = parzen_estimate(centres, validation=choosing, test=self.reference)
        likelihood = Estimate(
            name="parzen_log_likelihood_nats",
            measure=_estimated("higher", unit="nats"),
            value=found.log_likelihood_nats,
            standard_error=found.standard_error,
            protocol=f"best of {len(BANDWIDTHS)} bandwidths",
            features=None,
            num_generated=len(centres),
            num_reference=len(self.reference),
        )
        bandwidth = replace(
            likelihood,
            name="parzen_bandwidth",
            measure=_estimated("neither"),
            value=found.bandwidth,
            standard_error=None,
        )
        return [likelihood, bandwidth]

    def _real(self, split: Split, limit: int | None) -> Iterator[Tensor]:
        """Real images on the CPU, batch by batch."""
        protocol = self.protocol
        batches = self.dataset.batches(
            split, batch_size=protocol.batch_size, seed=protocol.seed, device=torch.device("cpu"), limit=limit
        )
        return (batch.images for batch in batches)

    def _in_batches(self, images: Tensor) -> Iterator[Tensor]:
        parts = tqdm(
            torch.split(images, self.protocol.batch_size), desc="looking", unit="batch", leave=False, disable=None
        )
        return (part.to(self.device) for part in parts)


def distribution_estimates(
    extractor: FeatureExtractor, reference: Description, generated: Description
) -> list[Estimate]:
    """Frechet and kernel distance, Inception-style score, precision, recall, density and coverage."""

    def estimate(name: str, value: float, error: float | None, protocol: str = "") -> Estimate:
        return Estimate(
            name=f"{name}_{extractor.name}",
            measure=SAMPLE_MEASURES[name],
            value=value,
            standard_error=error,
            protocol=protocol,
            features=extractor.identity,
            num_generated=len(generated.features),
            num_reference=len(reference.features),
        )

    frechet = frechet_distance(fit_gaussian(reference.features), fit_gaussian(generated.features))
    score, score_error = inception_style_score(generated.logits)
    without_reference = replace(
        estimate("inception_style_score", score, score_error, f"{NUM_PARTS} parts"), num_reference=0
    )
    scores = manifold_scores(reference.features, generated.features)
    entries = [
        estimate("frechet_distance", frechet, None),
        estimate("kernel_distance", *kernel_distance(reference.features, generated.features), "cubic, all pairs"),
        without_reference,
    ]
    for name, error in scores.standard_errors.items():
        neighbours = NEIGHBOURS_OF_PRECISION if name in ("precision", "recall") else NEIGHBOURS_OF_DENSITY
        entries.append(estimate(name, float(getattr(scores, name).mean()), error, f"k={neighbours}"))
    return entries


def class_estimates(
    extractor: ClassifierFeatures, predictions: Int[Tensor, " N"], *, training_counts: Int[Tensor, " K"] | None
) -> list[Estimate]:
    """Return shares of the classes, classes covered, and divergences from uniform and from the training set.

    Args:
        extractor: Extractor of the classes.
        predictions: The class of each image.
        training_counts: Training images in each class; None leaves their divergence out.
    """
    num_modes = extractor.classifier.spec.num_classes
    counts = class_histogram(predictions, num_modes=num_modes)

    def estimate(name: str, value: float | list[float], measure: Measure, protocol: str = "") -> Estimate:
        return Estimate(
            name=f"{name}_{extractor.name}",
            measure=measure,
            value=value,
            standard_error=None,
            protocol=protocol,
            features=extractor.identity,
            num_generated=len(predictions),
            num_reference=0,
        )

    covered = float(modes_covered(predictions, num_modes=num_modes))
    divergence = _estimated("lower", unit="nats")
    entries = [
        estimate("class_histogram", (counts.double() / len(predictions)).tolist(), _estimated("neither")),
        estimate("modes_covered", covered, _estimated("higher", unit="modes"), f"of {num_modes:,}"),
        estimate("modes_kl_to_uniform_nats", histogram_divergence(counts), divergence),
    ]
    # Infinite where a class occurs that training lacks, which no ledger can hold.
    if training_counts is not None and training_counts[counts > 0].all():
        entries.append(
            estimate("modes_kl_to_training_nats", histogram_divergence(counts, training_counts.double()), divergence)
        )
    return entries


def conditional_accuracy(
    extractor: ClassifierFeatures, predictions: Int[Tensor, " N"], labels: Int[Tensor, " N"]
) -> Estimate:
    """Return the share of the images whose class, by the classifier, is the one they were drawn for."""
    return Estimate(
        name=f"conditional_accuracy_{extractor.name}",
        measure=_estimated("higher"),
        **_mean_and_error((predictions == labels).double()),
        protocol="training labels",
        features=extractor.identity,
        num_generated=len(predictions),
        num_reference=0,
    )


def _estimated(direction: Direction, *, unit: str = "1") -> Measure:
    return Measure(unit=unit, kind="estimate", direction=direction)


def _mean_and_error(values: Float[Tensor, " N"]) -> dict[str, float]:
    return {"value": float(values.mean()), "standard_error": float(values.std()) / math.sqrt(len(values))}


def _as_baseline(estimate: Estimate) -> Estimate:
    return replace(estimate, name=f"{OF_REAL_IMAGES}{estimate.name}")
