"""Declarations of measures: unit, kind and direction, stated by the code that computes it, never inferred from a name.

A model declares the keys of its ``evaluate`` in :attr:`genlab.models.base.Model.measures`. A number without a
declaration is shown as NOT_DECLARED and ranked with no other.
"""

from dataclasses import dataclass, replace
from types import MappingProxyType
from typing import Literal, get_args

Kind = Literal["exact", "upper bound", "lower bound", "part of a bound", "estimate"]
Direction = Literal["lower", "higher", "neither"]

NOT_DECLARED = "not declared"
"""Placeholder for unit, kind and direction in tables and files."""

# Quantities that several measures share: an exact value and a bound on it stand in one column.
NEGATIVE_LOG_LIKELIHOOD = "nll_nats"
IMPORTANCE_WEIGHTED = "nll_importance_weighted_nats"
BITS_PER_DIM = "bits_per_dim"
GIVEN_CLASS = "_given_class"
"""Suffix of the quantity of a likelihood given the class, which is higher by the information of an image on its class
in the mean, and ranked with none of the image alone."""
LIKELIHOODS = frozenset(
    quantity + suffix
    for quantity in (NEGATIVE_LOG_LIKELIHOOD, IMPORTANCE_WEIGHTED, BITS_PER_DIM)
    for suffix in ("", GIVEN_CLASS)
)


@dataclass(frozen=True, kw_only=True)
class Measure:
    """The declaration of a measure.

    Raises:
        ValueError: The kind or the direction is not one of those above.
    """

    unit: str
    """Such as "nats/image" or "bits/dim"; "1" for a plain ratio."""
    kind: Kind
    """An "estimate" is a random draw or depends on a choice of samples; a bound holds in expectation."""
    direction: Direction
    """Direction of better values; "neither" for values that order no models, such as a discriminator's scores."""
    quantity: str | None = None
    """Column of a comparison to which the measure belongs; None is a column of its own name. Measures of one quantity
    are ranked with each other. Those of LIKELIHOODS are of the integer levels and are shown beside baselines."""
    is_importance_weighted: bool = False
    """True if the value depends on ``num_importance_samples`` of ``diagnose``."""
    needs_label: bool = False
    """True if an image without a label has no value: the average is that of the labelled images."""

    def __post_init__(self) -> None:
        for name, choices in (("kind", get_args(Kind)), ("direction", get_args(Direction))):
            if getattr(self, name) not in choices:
                raise ValueError(f"{name} of a measure must be one of {', '.join(choices)}, got {getattr(self, name)}")


WATCH_MEASURES = MappingProxyType(
    {
        "watch/diversity_ratio": Measure(unit="1", kind="estimate", direction="higher"),
        "modes/covered": Measure(unit="modes", kind="estimate", direction="higher"),
    }
)
"""Measures of the collapse watch (:mod:`genlab.training.collapse`), by tag."""


SAMPLE_MEASURES = MappingProxyType(
    {
        "frechet_distance": Measure(unit="1", kind="estimate", direction="lower"),
        "kernel_distance": Measure(unit="1", kind="estimate", direction="lower"),
        "inception_style_score": Measure(unit="1", kind="estimate", direction="higher"),
        "precision": Measure(unit="1", kind="estimate", direction="higher"),
        "recall": Measure(unit="1", kind="estimate", direction="higher"),
        "density": Measure(unit="1", kind="estimate", direction="higher"),
        "coverage": Measure(unit="1", kind="estimate", direction="higher"),
    }
)
"""Measures of generated images, by name without the suffix of the features."""


OF_REAL_IMAGES = "baseline_real_"
"""Prefix of the name of a measure of real images instead of samples."""
QUALITY_MEASURES = MappingProxyType(
    {
        f"quality/{prefix}{name}_{features}": replace(SAMPLE_MEASURES[name], direction="neither")
        if prefix
        else SAMPLE_MEASURES[name]
        for features in ("classifier", "random_network", "inception")
        for name in ("frechet_distance", "kernel_distance", "precision", "recall")
        for prefix in ("", OF_REAL_IMAGES)
    }
)
"""Measures of samples during training, by tag."""


def negative_log_likelihood(kind: Literal["exact", "upper bound"], *, given_class: bool = False) -> Measure:
    """Declare -log p(x) of the integer levels of an image, or a bound on it, in nats per image.

    Args:
        kind: Of the value.
        given_class: True for -log p(x | y) given the class y of the image.
    """
    quantity = NEGATIVE_LOG_LIKELIHOOD + given_class * GIVEN_CLASS
    return Measure(unit="nats/image", kind=kind, direction="lower", quantity=quantity)


def bits_per_dim(kind: Literal["exact", "upper bound"], *, given_class: bool = False) -> Measure:
    """Declare -log2 p(x) of the integer levels of an image, or a bound on it, over the number of its sub-pixels.

    Args:
        kind: Of the value.
        given_class: True for -log2 p(x | y) given the class y of the image.
    """
    return Measure(unit="bits/dim", kind=kind, direction="lower", quantity=BITS_PER_DIM + given_class * GIVEN_CLASS)
