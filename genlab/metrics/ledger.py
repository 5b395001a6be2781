"""The ledger: numbers with the facts that must be equal for a comparison."""

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any, Literal

from genlab.data.dataset import Dataset, Split
from genlab.data.image_set import ImageSet
from genlab.measures import GIVEN_CLASS, NOT_DECLARED, OF_REAL_IMAGES, Measure
from genlab.tables import aligned
from genlab.training.evaluation import Average

Weights = Literal["trained", "averaged", "none", "unknown"]


@dataclass(frozen=True, kw_only=True)
class Source:
    """The identity of measured images."""

    name: str
    """Of the data set, the folder or the file."""
    binarization: str
    """As in :class:`genlab.data.dataset.Dataset`."""
    fingerprint: str
    """SHA-256 of the images."""

    @classmethod
    def of(cls, images: Dataset | ImageSet, split: Split | None = None) -> "Source":
        """Return the identity of a data set or of images of files.

        Args:
            images: The data set, or the images.
            split: The only one that is measured. Its images do not depend on which of the others are trained on.
        """
        measured = images.unreduced if isinstance(images, Dataset) and split in ("validation", "test") else images
        return cls(name=images.name, binarization=images.binarization, fingerprint=measured.fingerprint)


@dataclass(frozen=True, kw_only=True)
class Estimate:
    """A measure of generated images, before it is entered."""

    name: str
    measure: Measure
    value: float | list[float]
    standard_error: float | None
    """None if no standard error is known, as for the Frechet distance."""
    protocol: str
    """The choices of the measure itself, such as "k=5"; "" if there are no choices."""
    features: str | None
    """Identity of the extractor; None if the images themselves were measured."""
    num_generated: int
    """Number of images of the model, or of the real images in a baseline."""
    num_reference: int
    """Images of the reference split; 0 if no reference image is used."""


@dataclass(frozen=True, kw_only=True)
class Entry:
    """One line of the ledger."""

    name: str
    value: float | list[float]
    """A number, or the points of a curve."""
    standard_error: float | list[float] | None
    measure: Measure | None
    """Its declaration; None if it is not declared."""
    split: Split | Literal["files"]
    """Split on which it was measured; that of the reference for generated images."""
    num_examples: int
    """Images of that split."""
    num_importance_samples: int | None
    weights: Weights
    seed: int
    dataset: str
    binarization: str
    dataset_fingerprint: str
    num_generated: int | None = None
    """Generated images that were measured; None if no generated image was measured."""
    features: str | None = None
    protocol: str | None = None

    @property
    def unit(self) -> str:
        """The declared unit of the value."""
        return NOT_DECLARED if self.measure is None else self.measure.unit

    @property
    def kind(self) -> str:
        """The declared kind of the value: exact, a bound, or an estimate."""
        return NOT_DECLARED if self.measure is None else self.measure.kind


def _known_error(average: Average) -> float | list[float] | None:
    """Return the standard error; None for one example, or one batch of a model that couples its images."""
    values = average.standard_error if isinstance(average.standard_error, list) else [average.standard_error]
    return None if average.num_examples < 2 or any(map(math.isnan, values)) else average.standard_error


def entries_from(
    averages: Mapping[str, Average],
    declarations: Mapping[str, Measure],
    *,
    dataset: Dataset,
    split: Split,
    seed: int,
    weights: Weights,
    num_importance_samples: int = 0,
    protocol: str | None = None,
) -> list[Entry]:
    """Enter the averages of one evaluation into the ledger.

    Args:
        averages: By name.
        declarations: By name; an average without one is entered as NOT_DECLARED.
        dataset: Dataset of the measured images.
        split: Of it.
        seed: Of the evaluation.
        weights: Of the model.
        num_importance_samples: K of the measures that depend on it.
        protocol: The composition of batches; None if it makes no difference. If it does, an exact measure of
            an image in its batch is an estimate of what other batches would give.
    """
    source = Source.of(dataset, split)
    return [
        Entry(
            name=name,
            value=average.mean,
            standard_error=_known_error(average),
            measure=(declared := _as_measured(declarations.get(name), protocol)),
            split=split,
            num_examples=average.num_examples,
            num_importance_samples=(
                num_importance_samples if declared is not None and declared.is_importance_weighted else None
            ),
            weights=weights,
            seed=seed,
            dataset=source.name,
            binarization=source.binarization,
            dataset_fingerprint=source.fingerprint,
            protocol=protocol,
        )
        for name, average in averages.items()
    ]


def _as_measured(declared: Measure | None, protocol: str | None) -> Measure | None:
    """Return the declaration of a measure as an estimate if it depends on the composition of batches."""
    if declared is None or protocol is None or declared.kind != "exact":
        return declared
    return replace(declared, kind="estimate")


def entries_of_samples(
    estimates: Iterable[Estimate], *, source: Source, split: Split | Literal["files"], seed: int, weights: Weights
) -> list[Entry]:
    """Enter measures of generated images into the ledger; `source` and `split` are those of the reference."""
    return [
        Entry(
            name=estimate.name,
            value=estimate.value,
            standard_error=estimate.standard_error,
            measure=estimate.measure,
            split=split,
            num_examples=estimate.num_reference,
            num_importance_samples=None,
            weights=weights,
            seed=seed,
            dataset=source.name,
            binarization=source.binarization,
            dataset_fingerprint=source.fingerprint,
            num_generated=estimate.num_generated,
            features=estimate.features,
            protocol=estimate.protocol,
        )
        for estimate in estimates
    ]


def as_json(entries: Sequence[Entry]) -> list[dict[str, Any]]:
    """Return plain values, one object per entry."""
    return [_as_plain(entry) for entry in entries]


def _as_plain(entry: Entry) -> dict[str, Any]:
    values = asdict(entry)
    declared = {
        "unit": entry.unit,
        "kind": entry.kind,
        "direction": NOT_DECLARED if entry.measure is None else entry.measure.direction,
        "quantity": entry.name if entry.measure is None else entry.measure.quantity or entry.name,
    }
    del values["measure"]
    return {"name": values.pop("name"), **declared, **values}


def _title(entry: Entry) -> str:
    is_given_class = entry.measure is not None and (entry.measure.quantity or "").endswith(GIVEN_CLASS)
    samples = "" if entry.num_importance_samples is None else f" (K={entry.num_importance_samples})"
    return entry.name + is_given_class * " (given class)" + samples


def _rounded(entry: Entry) -> str:
    assert not isinstance(entry.value, list)
    if entry.unit == "modes":
        return f"{entry.value:.0f}"
    return f"{entry.value:.4f}" if abs(entry.value) < 10 else f"{entry.value:.2f}"


Column = tuple[str, Callable[[Entry], str]]

_COLUMNS: tuple[Column, ...] = (
    ("measure", _title),
    ("value", _rounded),
    ("+- s.e.", lambda entry: "" if entry.standard_error is None else f"{entry.standard_error:.3f}"),
    ("unit", lambda entry: entry.unit),
    ("kind", lambda entry: entry.kind),
    ("split", lambda entry: entry.split),
    ("images", lambda entry: f"{entry.num_examples:,}"),
    ("binarisation", lambda entry: entry.binarization),
)


def format_table(measures: Sequence[Entry], baselines: Sequence[Entry] = ()) -> str:
    """Return scalar measures as aligned text: of given images, then of samples; curves follow.

    Args:
        measures: Of a model.
        baselines: Of what needs none. Those of real images stand beside the samples' measures.
    """
    numbers = [entry for entry in (*measures, *baselines) if not isinstance(entry.value, list)]
    blocks = [_table([entry for entry in numbers if entry.num_generated is None], _COLUMNS)]
    real = {entry.name: entry for entry in baselines if entry.num_generated is not None}
    of_samples = [entry for entry in numbers if entry.num_generated is not None and entry.name not in real]
    blocks.append(_table(of_samples, _columns_of_samples(real)))
    curves = [
        f"{entry.name}: " + " ".join(f"{point:.2f}" for point in entry.value)
        for entry in measures
        if isinstance(entry.value, list) and entry.num_generated is None
    ]
    blocks[0] += "".join(f"\n{note}" for note in _notes_on_protocols(measures))
    return "\n\n".join(block for block in blocks if block) + "".join(f"\n{curve}" for curve in curves)


def _notes_on_protocols(entries: Sequence[Entry]) -> list[str]:
    """Return notes on the protocols of measures of given images, to print below their table."""
    names: dict[str, list[str]] = {}
    for entry in entries:
        if entry.num_generated is None and entry.protocol:
            names.setdefault(entry.protocol, []).append(entry.name)
    return [f"measured {protocol}: {', '.join(measured)}" for protocol, measured in names.items()]


def _columns_of_samples(real: Mapping[str, Entry]) -> tuple[Column, ...]:
    """Return the columns of a measure of samples; the last number is that of real images, by name in `real`."""

    def of_real(entry: Entry) -> str:
        found = real.get(f"{OF_REAL_IMAGES}{entry.name}")
        return "" if found is None else f"{_rounded(found)} ({found.num_generated:,})"

    return (
        ("measure of samples", lambda entry: entry.name),
        ("value", _rounded),
        ("+- s.e.", lambda entry: "" if entry.standard_error is None else f"{entry.standard_error:.2g}"),
        ("of real (images)", of_real),
        ("unit", lambda entry: entry.unit),
        ("protocol", lambda entry: entry.protocol or ""),
        ("features", lambda entry: entry.features or "pixels"),
        ("samples", lambda entry: f"{entry.num_generated:,}"),
        ("reference", lambda entry: f"{entry.num_examples:,} {entry.split}" if entry.num_examples else ""),
        ("seed", lambda entry: str(entry.seed)),
    )


def _table(entries: Sequence[Entry], columns: Sequence[Column]) -> str:
    if not entries:
        return ""
    heads = [[header for header, _ in columns]]
    return aligned(heads, [[cell(entry) for _, cell in columns] for entry in entries])
