"""What the name of a measure says of it: house rules ask names to tell unit and bound."""

from collections.abc import Collection
from typing import Literal

Kind = Literal["exact", "upper bound", "part of a bound", "estimate"]
Direction = Literal["lower", "higher"]

_LOWER = (
    *("nll_", "bits_per_dim", "cross_entropy_nats", "error", "code_error_"),
    *("frechet_distance_", "kernel_distance_", "modes_kl_to_"),
)
_HIGHER = (
    *("precision_", "recall_", "density_", "coverage_", "modes_covered_"),
    *("inception_style_score_", "conditional_accuracy_", "parzen_log_likelihood_nats"),
)


def unit_of(name: str) -> str:
    """The unit that a measure's name ends with; names without one are plain ratios."""
    if name.endswith("_nats"):
        return "nats/image"
    if name.endswith("bits_per_dim"):
        return "bits/dim"
    return "1"


def kind_of(name: str, beside: Collection[str] = ()) -> Kind:
    """Whether a measure is a bound.

    Args:
        name: The measure.
        beside: The measures of the same evaluation: bits per dimension are what the nats beside them are.
    """
    if "upper_bound" in name or "importance_weighted" in name:
        return "upper bound"
    if name == "bits_per_dim" and "nll_upper_bound_nats" in beside:
        return "upper bound"
    return "part of a bound" if name in ("reconstruction_nats", "kl_nats", "kl_per_glimpse_nats") else "exact"


def direction_of(name: str) -> Direction | None:
    """Which values are better; None of a measure that orders no models, such as a discriminator's score."""
    if name.startswith(_LOWER):
        return "lower"
    return "higher" if name.startswith(_HIGHER) else None
