"""The ledger: a number together with everything that decides what it may be compared with."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any, Literal

from genlab.data.dataset import Dataset, Split
from genlab.metrics.names import Kind, kind_of, unit_of
from genlab.tables import aligned
from genlab.training.evaluation import Average

Weights = Literal["trained", "averaged", "none"]
OF_REAL_IMAGES = "baseline_real_"
"""Begins the name of a measure of real images that stand in the place of samples."""


@dataclass(frozen=True, kw_only=True)
class Estimate:
    """A measure of generated images, before it is entered."""

    name: str
    value: float | list[float]
    standard_error: float | None
    """None where none is known, as of the Frechet distance."""
    unit: str
    protocol: str
    """The choices of the measure itself, such as "k=5"; "" where there are none."""
    features: str | None
    """Identity of the extractor; None where the images themselves were looked at."""
    num_generated: int
    """Images of the model, or of the real images that take their place in a baseline."""
    num_reference: int
    """Images of the reference split; 0 where none is looked at."""


@dataclass(frozen=True, kw_only=True)
class Measure:
    """One line of the ledger."""

    name: str
    value: float | list[float]
    """A number, or the points of a curve."""
    standard_error: float | list[float] | None
    unit: str
    kind: Kind
    split: Split
    """Where it was measured; of generated images, the reference split."""
    num_examples: int
    """Images of that split."""
    num_importance_samples: int | None
    weights: Weights
    seed: int
    dataset: str
    binarization: str
    dataset_fingerprint: str
    num_generated: int | None = None
    """Generated images that were measured; None where none were."""
    features: str | None = None
    protocol: str | None = None


def measures_from(
    averages: Mapping[str, Average],
    *,
    dataset: Dataset,
    split: Split,
    seed: int,
    weights: Weights,
    num_importance_samples: int = 0,
    protocol: str | None = None,
) -> list[Measure]:
    """Enter the averages of one evaluation into the ledger; the protocol is how the images were measured."""
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
            protocol=protocol,
        )
        for name, average in averages.items()
    ]


def measures_of_samples(
    estimates: Iterable[Estimate], *, dataset: Dataset, split: Split, seed: int, weights: Weights
) -> list[Measure]:
    """Enter measures of generated images into the ledger; `split` is the reference split."""
    return [
        Measure(
            name=estimate.name,
            value=estimate.value,
            standard_error=estimate.standard_error,
            unit=estimate.unit,
            kind="estimate",
            split=split,
            num_examples=estimate.num_reference,
            num_importance_samples=None,
            weights=weights,
            seed=seed,
            dataset=dataset.name,
            binarization=dataset.binarization,
            dataset_fingerprint=dataset.fingerprint,
            num_generated=estimate.num_generated,
            features=estimate.features,
            protocol=estimate.protocol,
        )
        for estimate in estimates
    ]


def as_json(measures: Sequence[Measure]) -> list[dict[str, Any]]:
    """Plain values, one object per measure."""
    return [asdict(measure) for measure in measures]


Column = tuple[str, Callable[[Measure], str]]

_COLUMNS: tuple[Column, ...] = (
    ("measure", lambda measure: _with_importance_samples(measure)),
    ("value", lambda measure: _rounded(measure)),
    ("+- s.e.", lambda measure: f"{measure.standard_error:.3f}"),
    ("unit", lambda measure: measure.unit),
    ("kind", lambda measure: measure.kind),
    ("split", lambda measure: measure.split),
    ("images", lambda measure: f"{measure.num_examples:,}"),
    ("binarisation", lambda measure: measure.binarization),
)


def format_table(measures: Sequence[Measure]) -> str:
    """The measures that are one number, as aligned text: of given images, then of samples; curves follow."""
    numbers = [measure for measure in measures if not isinstance(measure.value, list)]
    of_samples = [measure for measure in numbers if measure.num_generated is not None]
    blocks = [_table([measure for measure in numbers if measure.num_generated is None], _COLUMNS)]
    real = {measure.name: measure for measure in of_samples if measure.name.startswith(OF_REAL_IMAGES)}
    blocks.append(_table([measure for measure in of_samples if measure.name not in real], _columns_of_samples(real)))
    curves = [
        f"{measure.name}: " + " ".join(f"{point:.2f}" for point in measure.value)
        for measure in measures
        if isinstance(measure.value, list) and measure.num_generated is None
    ]
    blocks[0] += "".join(f"\n{note}" for note in _notes_on_protocols(measures))
    return "\n\n".join(block for block in blocks if block) + "".join(f"\n{curve}" for curve in curves)


def _notes_on_protocols(measures: Sequence[Measure]) -> list[str]:
    """Say of given images how they were measured, below their table: most measures have nothing to say here."""
    names: dict[str, list[str]] = {}
    for measure in measures:
        if measure.num_generated is None and measure.protocol:
            names.setdefault(measure.protocol, []).append(measure.name)
    return [f"measured {protocol}: {', '.join(measured)}" for protocol, measured in names.items()]


def _columns_of_samples(real: Mapping[str, Measure]) -> tuple[Column, ...]:
    """The last of the numbers is that of real images, by name in `real`, in the place of the samples."""

    def of_real(measure: Measure) -> str:
        found = real.get(f"{OF_REAL_IMAGES}{measure.name}")
        return "" if found is None else f"{_rounded(found)} ({found.num_generated:,})"

    return (
        ("measure of samples", lambda measure: measure.name),
        ("value", lambda measure: _rounded(measure)),
        ("+- s.e.", lambda measure: "" if measure.standard_error is None else f"{measure.standard_error:.2g}"),
        ("of real (images)", of_real),
        ("unit", lambda measure: measure.unit),
        ("protocol", lambda measure: measure.protocol or ""),
        ("features", lambda measure: measure.features or "pixels"),
        ("samples", lambda measure: f"{measure.num_generated:,}"),
        ("reference", lambda measure: f"{measure.num_examples:,} {measure.split}" if measure.num_examples else ""),
        ("seed", lambda measure: str(measure.seed)),
    )


def _table(measures: Sequence[Measure], columns: Sequence[Column]) -> str:
    if not measures:
        return ""
    heads = [[header for header, _ in columns]]
    return aligned(heads, [[cell(measure) for _, cell in columns] for measure in measures])


def _with_importance_samples(measure: Measure) -> str:
    return measure.name + ("" if measure.num_importance_samples is None else f" (K={measure.num_importance_samples})")


def _rounded(measure: Measure) -> str:
    assert not isinstance(measure.value, list)
    if measure.unit == "modes":
        return f"{measure.value:.0f}"
    return f"{measure.value:.4f}" if abs(measure.value) < 10 else f"{measure.value:.2f}"
