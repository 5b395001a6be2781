"""Likelihoods image by image: what the ledger averages, of images that a user names."""

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from genlab.metrics.names import Kind, kind_of, unit_of
from genlab.models.base import Model
from genlab.tables import aligned
from genlab.training.processes import dealt
from genlab.types import Batch


@dataclass(frozen=True, kw_only=True)
class Likelihood:
    """One measure of every image."""

    name: str
    values: Float[Tensor, " N"]
    kind: Kind
    num_importance_samples: int | None

    @property
    def mean(self) -> float:
        """Over the images."""
        return self.values.mean().item()

    @property
    def standard_error(self) -> float | None:
        """Of the mean; None of a single image."""
        count = len(self.values)
        return self.values.std().item() / math.sqrt(count) if count > 1 else None

    @property
    def title(self) -> str:
        """The name, with the number of importance samples where there is one."""
        return self.name + ("" if self.num_importance_samples is None else f" (K={self.num_importance_samples})")


def has_likelihood(model: Model) -> bool:
    """Whether a model's images have a probability that can be computed or bounded."""
    return (model.selection_measure or "").startswith("nll_")


@torch.no_grad()
def likelihoods(model: Model, batches: Iterable[Batch], *, num_importance_samples: int) -> list[Likelihood]:
    """Negative log-likelihoods and bits per dimension of each image, under the names that the ledger has for them.

    Several processes take the batches in turn, and all get all.

    Args:
        model: A model that has a likelihood (see `has_likelihood`).
        batches: The images, in order.
        num_importance_samples: K of an importance-weighted bound, where the model has one; 0 leaves it out.
    """

    def measure(batch: Batch) -> dict[str, Tensor]:
        return {
            name: values.to("cpu", torch.float64)
            for name, values in model.diagnose(batch, num_importance_samples=num_importance_samples).items()
            if values.dim() == 1 and name.startswith(("nll_", "bits_per_dim"))  # neither curves nor parts of a bound
        }

    found = dealt(batches, measure)
    return [
        Likelihood(
            name=name,
            values=torch.cat([measures[name] for measures in found]),
            kind=kind_of(name, found[0]),
            num_importance_samples=num_importance_samples if "importance_weighted" in name else None,
        )
        for name in found[0]
    ]


def format_likelihoods(names: Sequence[str], measures: Sequence[Likelihood]) -> str:
    """A line per file, then their mean and its standard error, under each measure's name, unit and kind."""
    heads = [
        ("file", *(measure.title for measure in measures)),
        ("", *(unit_of(measure.name) for measure in measures)),
        ("", *(measure.kind for measure in measures)),
    ]
    rows = [
        (name, *(_rounded(measure.name, value) for measure, value in zip(measures, values, strict=True)))
        for name, values in zip(names, torch.stack([measure.values for measure in measures], 1).tolist(), strict=True)
    ]
    feet = [
        (f"mean of {len(names):,}", *(_rounded(measure.name, measure.mean) for measure in measures)),
        ("+- s.e.", *(_rounded(measure.name, measure.standard_error) for measure in measures)),
    ]
    return aligned(heads, rows, feet)


def likelihoods_as_json(names: Sequence[str], measures: Sequence[Likelihood]) -> dict[str, Any]:
    """Plain values: what is known of each measure, and the measures of each file."""
    return {
        "measures": [
            {
                "name": measure.name,
                "mean": measure.mean,
                "standard_error": measure.standard_error,
                "unit": unit_of(measure.name),
                "kind": measure.kind,
                "num_importance_samples": measure.num_importance_samples,
            }
            for measure in measures
        ],
        "images": [
            {"file": name} | {measure.name: measure.values[index].item() for measure in measures}
            for index, name in enumerate(names)
        ],
    }


def _rounded(name: str, value: float | None) -> str:
    if value is None:
        return ""
    return f"{value:.2f}" if unit_of(name) == "nats/image" else f"{value:.4f}"
