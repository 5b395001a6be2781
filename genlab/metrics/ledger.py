"""The ledger: a number together with everything that decides what it may be compared with."""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any, Literal

from genlab.data.dataset import Dataset, Split
from genlab.training.evaluation import Average

Kind = Literal["exact", "upper bound", "part of a bound"]
Weights = Literal["trained", "averaged", "none"]


@dataclass(frozen=True, kw_only=True)
class Measure:
    """One line of the ledger."""

    name: str
    value: float | list[float]
    """A number, or the points of a curve."""
    standard_error: float | list[float]
    unit: str
    kind: Kind
    split: Split
    num_examples: int
    num_importance_samples: int | None
    weights: Weights
    seed: int
    dataset: str
    binarization: str
    dataset_fingerprint: str


def unit_of(name: str) -> str:
    """The unit that a measure's name ends with; names without one are plain ratios."""
    if name.endswith("_nats"):
        return "nats/image"
    if name.endswith("bits_per_dim"):
        return "bits/dim"
    return "1"


def kind_of(name: str, beside: Collection[str] = ()) -> Kind:
    """Whether a measure is a bound: by its name, because house rules ask names to say so.

    Args:
        name: The measure.
        beside: The measures of the same evaluation: bits per dimension are what the nats beside them are.
    """
    if "upper_bound" in name or "importance_weighted" in name:
        return "upper bound"
    if name == "bits_per_dim" and "nll_upper_bound_nats" in beside:
        return "upper bound"
    return "part of a bound" if name in ("reconstruction_nats", "kl_nats", "kl_per_glimpse_nats") else "exact"


def measures_from(
    averages: Mapping[str, Average],
    *,
    dataset: Dataset,
    split: Split,
    seed: int,
    weights: Weights,
    num_importance_samples: int = 0,
) -> list[Measure]:
    """Enter the averages of one evaluation into the ledger."""
    return [
        Measure(
            name=name,
            value=average.mean,
            standard_error=average.standard_error,
            unit=unit_of(name),
            kind=kind_of(name, averages),
            split=split,
            num_examples=average.num_examples,
            num_importance_samples=num_importance_samples if "importance_weighted" in name else None,
            weights=weights,
            seed=seed,
            dataset=dataset.name,
            binarization=dataset.binarization,
            dataset_fingerprint=dataset.fingerprint,
        )
        for name, average in averages.items()
    ]


def as_json(measures: Sequence[Measure]) -> list[dict[str, Any]]:
    """Plain values, one object per measure."""
    return [asdict(measure) for measure in measures]


def format_table(measures: Sequence[Measure]) -> str:
    """The measures that are one number, as aligned text; curves follow, one line each."""
    header = ("measure", "value", "+- s.e.", "unit", "kind", "split", "images", "binarisation")
    rows = [header]
    curves = []
    for measure in measures:
        if isinstance(measure.value, list):
            curves.append(f"{measure.name}: " + " ".join(f"{point:.2f}" for point in measure.value))
            continue
        name = measure.name
        if measure.num_importance_samples is not None:
            name += f" (K={measure.num_importance_samples})"
        rows.append(
            (
                name,
                f"{measure.value:.4f}" if abs(measure.value) < 10 else f"{measure.value:.2f}",
                f"{measure.standard_error:.3f}",
                measure.unit,
                measure.kind,
                measure.split,
                f"{measure.num_examples:,}",
                measure.binarization,
            )
        )
    widths = [max(len(row[column]) for row in rows) for column in range(len(header))]
    lines = ["  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in rows]
    lines.insert(1, "  ".join("-" * width for width in widths))
    return "\n".join(lines + curves)
