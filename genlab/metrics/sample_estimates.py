"""Estimates of sample quality from the features of an extractor, with names and declarations.

Dimensions: N images, K classes.
"""

import math
from dataclasses import replace

from jaxtyping import Float, Int
from torch import Tensor

from genlab.measures import OF_REAL_IMAGES, SAMPLE_MEASURES, Direction, Measure
from genlab.metrics.features import ClassifierFeatures, Description, FeatureExtractor
from genlab.metrics.frechet import fit_gaussian, frechet_distance
from genlab.metrics.inception_score import NUM_PARTS, inception_style_score
from genlab.metrics.kernel import kernel_distance
from genlab.metrics.ledger import Estimate
from genlab.metrics.manifold import NEIGHBOURS_OF_DENSITY, NEIGHBOURS_OF_PRECISION, manifold_scores
from genlab.metrics.modes import class_histogram, histogram_divergence, modes_covered


def distribution_estimates(
    extractor: FeatureExtractor, reference: Description, generated: Description
) -> list[Estimate]:
    """Return Frechet and kernel distance, precision, recall, density and coverage; a score if there are classes."""

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
    score = []
    if generated.logits.shape[1] > 1:
        found = estimate("inception_style_score", *inception_style_score(generated.logits), f"{NUM_PARTS} parts")
        score = [replace(found, num_reference=0)]
    scores = manifold_scores(reference.features, generated.features)
    entries = [
        estimate("frechet_distance", frechet, None),
        estimate("kernel_distance", *kernel_distance(reference.features, generated.features), "cubic, all pairs"),
        *score,
    ]
    for name, error in scores.standard_errors.items():
        neighbours = NEIGHBOURS_OF_PRECISION if name in ("precision", "recall") else NEIGHBOURS_OF_DENSITY
        entries.append(estimate(name, float(getattr(scores, name).mean()), error, f"k={neighbours}"))
    return entries


def class_estimates(
    extractor: ClassifierFeatures,
    predictions: Int[Tensor, " N"],
    *,
    training_counts: Int[Tensor, " K"] | None,
    labels: Int[Tensor, " N"] | None,
) -> list[Estimate]:
    """Return shares of the classes, classes covered, divergences from uniform and training set, and the accuracy.

    Args:
        extractor: Extractor of the classes.
        predictions: The class of each image.
        training_counts: Training images in each class; None leaves their divergence out.
        labels: The requested class of each image; None leaves the accuracy out.
    """
    num_modes = extractor.classifier.spec.num_classes
    counts = class_histogram(predictions, num_modes=num_modes)

    def estimate(
        name: str, value: float | list[float], measure: Measure, protocol: str = "", *, error: float | None = None
    ) -> Estimate:
        return Estimate(
            name=f"{name}_{extractor.name}",
            measure=measure,
            value=value,
            standard_error=error,
            protocol=protocol,
            features=extractor.identity,
            num_generated=len(predictions),
            num_reference=0,
        )

    covered = float(modes_covered(predictions, num_modes=num_modes))
    divergence = estimated("lower", unit="nats")
    entries = [
        estimate("class_histogram", (counts.double() / len(predictions)).tolist(), estimated("neither")),
        estimate("modes_covered", covered, estimated("higher", unit="modes"), f"of {num_modes:,}"),
        estimate("modes_kl_to_uniform_nats", histogram_divergence(counts), divergence),
    ]
    # Infinite where a class occurs that training lacks, which no ledger can hold.
    if training_counts is not None and training_counts[counts > 0].all():
        entries.append(
            estimate("modes_kl_to_training_nats", histogram_divergence(counts, training_counts.double()), divergence)
        )
    if labels is not None:
        accuracy, error = _mean_and_error((predictions == labels).double())
        entries.append(estimate("conditional_accuracy", accuracy, estimated("higher"), "training labels", error=error))
    return entries


def estimated(direction: Direction, *, unit: str = "1") -> Measure:
    """Return the declaration of an estimate."""
    return Measure(unit=unit, kind="estimate", direction=direction)


def _mean_and_error(values: Float[Tensor, " N"]) -> tuple[float, float]:
    return float(values.mean()), float(values.std()) / math.sqrt(len(values))


def as_baseline(estimate: Estimate) -> Estimate:
    """Return a measure of real images instead of samples, under its own name."""
    return replace(estimate, name=f"{OF_REAL_IMAGES}{estimate.name}")


def neighbour_estimate(
    distances: Float[Tensor, "N k"], extractor: FeatureExtractor | None, num_training: int
) -> Estimate:
    """Return the mean distance to the nearest training image, by pixels if no extractor is given."""
    value, error = _mean_and_error(distances[:, 0])
    return Estimate(
        name=f"nearest_training_distance_{'pixels' if extractor is None else extractor.name}",
        measure=estimated("neither"),  # near is memorised, far may be noise
        value=value,
        standard_error=error,
        protocol=f"of {num_training:,} training",
        features=None if extractor is None else extractor.identity,
        num_generated=len(distances),
        num_reference=0,
    )
