"""Likelihoods of single images of the user; the ledger holds averages."""

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from genlab.measures import LIKELIHOODS, Measure
from genlab.models.base import Model
from genlab.parallel.processes import dealt
from genlab.tables import aligned
from genlab.types import Batch


@dataclass(frozen=True, kw_only=True)
class Likelihood:
    """One measure of every image."""

    name: str
    values: Float[Tensor, " N"]
    measure: Measure
    num_importance_samples: int | None

    @property
    def mean(self) -> float:
        """The mean over the images."""
        return self.values.mean().item()

    @property
    def standard_error(self) -> float | None:
        """The standard error of the mean; None for a single image."""
        count = len(self.values)
        return self.values.std().item() / math.sqrt(count) if count > 1 else None

    @property
    def head(self) -> tuple[str, str, str]:
        """The name, the unit (with the number of importance samples, if any) and the kind."""
        samples = "" if self.num_importance_samples is None else f" (K={self.num_importance_samples})"
        return self.name, self.measure.unit + samples, self.measure.kind


def has_likelihood(model: Model) -> bool:
    """Return True if a model declares a likelihood of an image, or a bound on it."""
    return any(declared.quantity in LIKELIHOODS for declared in model.measures.values())


@torch.no_grad()
def likelihoods(model: Model, batches: Iterable[Batch], *, num_importance_samples: int) -> list[Likelihood]:
    """Return the measures of each image that are declared as likelihoods, under their names in the ledger.

    Several processes take the batches in turn, and all get all.

    Args:
        model: A model that has a likelihood (see `has_likelihood`).
        batches: The images, in order.
        num_importance_samples: K of an importance-weighted bound, where the model has one; 0 leaves it out.
    """
    declared = {name: measure for name, measure in model.measures.items() if measure.quantity in LIKELIHOODS}

    def measure(batch: Batch) -> dict[str, Tensor]:
        return {
            name: values.to("cpu", torch.float64)
            for name, values in model.diagnose(batch, num_importance_samples=num_importance_samples).items()
            if name in declared and values.dim() == 1  # no curves
        }

    found = dealt(batches, measure)
    return [
        Likelihood(
            name=name,
            values=torch.cat([measures[name] for measures in found]),
            measure=declared[name],
            num_importance_samples=num_importance_samples if declared[name].is_importance_weighted else None,
        )
        for name in found[0]
    ]


def format_likelihoods(names: Sequence[str], measures: Sequence[Likelihood]) -> str:
    """Return a line per file, then their mean and its standard error, under each measure's name, unit and kind."""
    titles, units, kinds = zip(*(measure.head for measure in measures), strict=True)
    heads = [("file", *titles), ("", *units), ("", *kinds)]
    rows = [
        (name, *(rounded(measure, value) for measure, value in zip(measures, values, strict=True)))
        for name, values in zip(names, torch.stack([measure.values for measure in measures], 1).tolist(), strict=True)
    ]
    feet = [
        (f"mean of {len(names):,}", *(rounded(measure, measure.mean) for measure in measures)),
        ("+- s.e.", *(rounded(measure, measure.standard_error) for measure in measures)),
    ]
    return aligned(heads, rows, feet)


def likelihoods_as_json(names: Sequence[str], measures: Sequence[Likelihood]) -> dict[str, Any]:
    """Return plain values: the declaration of each measure, and the measures of each file."""
    return {
        "measures": [
            {
                "name": measure.name,
                "mean": measure.mean,
                "standard_error": measure.standard_error,
                "unit": measure.measure.unit,
                "kind": measure.measure.kind,
                "num_importance_samples": measure.num_importance_samples,
            }
            for measure in measures
        ],
        "images": [
            {"file": name} | {measure.name: measure.values[index].item() for measure in measures}
            for index, name in enumerate(names)
        ],
    }


def rounded(measure: Likelihood, value: float | None) -> str:
    """Return a value with the digits of its unit; "" for None."""
    if value is None:
        return ""
    return f"{value:.2f}" if measure.measure.unit == "nats/image" else f"{value:.4f}"
