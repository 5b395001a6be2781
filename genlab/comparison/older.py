"""Compatibility with early run folders without declarations: the meaning of genlab's own measure names.

Those files contain no directions and no quantities, and their units and kinds were inferred from names. Exact names are
looked up here; any other name is unknown.
"""

from collections.abc import Collection, Mapping
from dataclasses import asdict
from typing import Any

from genlab.measures import IMPORTANCE_WEIGHTED, NOT_DECLARED, Measure, bits_per_dim, negative_log_likelihood

_PART = Measure(unit="nats/image", kind="part of a bound", direction="neither")
_OF_AN_IMAGE = Measure(unit="1", kind="exact", direction="lower")
_OF_THE_GAME = Measure(unit="1", kind="exact", direction="neither")
_LOWER = Measure(unit="1", kind="estimate", direction="lower")
_HIGHER = Measure(unit="1", kind="estimate", direction="higher")
_OF_SAMPLES = {
    **dict.fromkeys(("frechet_distance", "kernel_distance", "modes_kl_to_uniform_nats"), _LOWER),
    "modes_kl_to_training_nats": _LOWER,
    **dict.fromkeys(("precision", "recall", "density", "coverage"), _HIGHER),
    **dict.fromkeys(("inception_style_score", "modes_covered", "conditional_accuracy"), _HIGHER),
    "nearest_training_distance": Measure(unit="1", kind="estimate", direction="neither"),
}
_MEASURES = {
    "nll_nats": negative_log_likelihood("exact"),
    "nll_upper_bound_nats": negative_log_likelihood("upper bound"),
    "nll_importance_weighted_nats": Measure(
        unit="nats/image", kind="upper bound", direction="lower", quantity=IMPORTANCE_WEIGHTED
    ),
    "bits_per_dim": bits_per_dim("exact"),
    "reconstruction_nats": _PART,
    "kl_nats": _PART,
    "cross_entropy_nats": Measure(unit="nats/image", kind="exact", direction="lower"),
    **dict.fromkeys(("error", "code_error_many_to_one", "code_error_one_to_one"), _OF_AN_IMAGE),
    **dict.fromkeys(("score_real", "score_fake", "accuracy_real", "accuracy_fake"), _OF_THE_GAME),
    **{f"{name}_{eyes}": measure for name, measure in _OF_SAMPLES.items() for eyes in ("classifier", "inception")},
    "nearest_training_distance_pixels": _OF_SAMPLES["nearest_training_distance"],
    "parzen_log_likelihood_nats": _HIGHER,
}
_UNKNOWN = dict.fromkeys(("unit", "kind", "direction"), NOT_DECLARED)


def declared_before(name: str, beside: Collection[str]) -> Mapping[str, Any]:
    """Return the declaration of a measure in an older summary.json.

    Args:
        name: The measure.
        beside: The measures of the same evaluation, which tell whether bits per dimension are a bound.
    """
    if name == "bits_per_dim" and "nll_upper_bound_nats" in beside:
        return asdict(bits_per_dim("upper bound"))
    return asdict(_MEASURES[name]) if name in _MEASURES else _UNKNOWN


def renewed(entry: Mapping[str, Any]) -> Mapping[str, Any]:
    """Return an entry of an older evaluation.json in today's form, with its own unit and kind where they are valid."""
    measure = _MEASURES.get(entry["name"])
    if measure is None:
        return {**entry, **_UNKNOWN}
    # The bandwidth stood there, which is fitted to each model.
    protocol = {"protocol": "best of 10 bandwidths"} if entry["name"] == "parzen_log_likelihood_nats" else {}
    return {**entry, **protocol, "direction": measure.direction, "quantity": measure.quantity}
