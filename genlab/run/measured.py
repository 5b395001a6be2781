"""The measures of a run as stored on disk, each with the conditions that decide which others it is ranked with.

Unit, kind, direction and quantity are read as declared (:mod:`genlab.measures`), never inferred from a name.
"""

import hashlib
import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, TypeGuard, get_args

from genlab.measures import NOT_DECLARED, Direction

UNKNOWN = "unknown"
MAX_NUMBER = 1e100
"""Upper limit of the size of a number, above any measure; whole numbers in JSON have no limit of their own."""
VALIDATION = "validation/"
QUALITY = "quality/"
_DIGITS_OF_A_HASH = 8
_TEXTS = (
    *("name", "split", "weights", "dataset"),
    *("binarization", "dataset_fingerprint", "features", "protocol"),
)
# Storage, and training alone.
_BESIDE_THE_DATA = (
    *("cache", "download", "num_workers"),
    *("flip", "fresh_clutter", "num_training", "num_labels_per_class", "label_seed"),
)
# Conditions implied by the others, which are named only if none of the others differs.
_IMPLIED = ("fingerprint of the data", "number of images")
_OF_THE_DATA = ("dataset", "binarisation", "split")
_COUNTS = ("num_examples", "num_importance_samples", "seed", "num_generated")


@dataclass(frozen=True, kw_only=True)
class Record:
    """One number of one run; an unknown field is None, or "unknown" for a text.

    The fields are those of evaluation.json, written by :func:`genlab.metrics.ledger.as_json`. Files may be incomplete.
    """

    name: str
    value: float
    quantity: str
    """Quantity that is measured; an exact likelihood and a bound on it are one quantity with different `kind`."""
    unit: str
    kind: str
    direction: str
    """Direction of better values, or NOT_DECLARED."""
    standard_error: float | None = None
    split: str = UNKNOWN
    num_examples: int | None = None
    num_importance_samples: int | None = None
    weights: str = UNKNOWN
    seed: int | None = None
    dataset: str = UNKNOWN
    binarization: str = UNKNOWN
    dataset_fingerprint: str | None = None
    num_generated: int | None = None
    features: str | None = None
    protocol: str | None = None
    monitored: bool = False
    """Seen on validation images during training: named ``validation/...``, and ranked in a column of its own."""

    @property
    def is_declared(self) -> bool:
        """Return True if the measure was declared."""
        return self.direction != NOT_DECLARED

    @property
    def is_bound(self) -> bool:
        """Return True if the value is a bound: the true value is at least as good."""
        return (self.kind, self.direction) in (("upper bound", "lower"), ("lower bound", "higher"))

    @property
    def words(self) -> tuple[str, ...]:
        """Return the qualifiers to show beside the value, which ranks with values that lack them."""
        words = (
            (NOT_DECLARED, not self.is_declared),
            ("bound", self.is_bound),
            ("EMA", self.weights == "averaged"),
        )
        return tuple(word for word, holds in words if holds)

    @property
    def conditions(self) -> Mapping[str, str] | None:
        """Return the properties that two values must share to be ranked, by name; None for an unknown one.

        Being a bound, averaged weights (both among `words`) and the seed are not included: values that differ in
        them may be ranked.
        """
        if self.dataset_fingerprint is None:
            return None
        stated = {
            "quantity": self.quantity,
            "unit": self.unit,
            "direction": self.direction,
            "dataset": self.dataset,
            "binarisation": self.binarization,
            "split": self.split,
            "number of images": _stated(self.num_examples, "all"),
            "fingerprint of the data": self.dataset_fingerprint[:_DIGITS_OF_A_HASH],
            "importance samples": _stated(self.num_importance_samples, "none"),
            "features": self.features or "pixels",
            "number of samples": _stated(self.num_generated, "none"),
            "protocol": self.protocol or "none",
        }
        if self.monitored and self.num_examples is not None and self.seed is not None:
            stated["seed of the choice of images"] = str(self.seed)
        return stated


def records_of_evaluation(evaluation: Mapping[str, Any], problems: list[str]) -> list[Record]:
    """Return the measures of evaluation.json that are one number.

    Args:
        evaluation: Its content; empty where there is none.
        problems: A remark is added for entries that cannot be read.
    """
    records, num_unreadable = [], 0
    entries = evaluation.get("measures", [])
    entries = entries if isinstance(entries, list) else []
    for entry in entries:
        record = _record(entry)
        if record is not None:
            records.append(record)
        elif not (isinstance(entry, Mapping) and isinstance(entry.get("value"), list)):
            num_unreadable += 1
    if num_unreadable:
        problems.append(f"evaluation.json: {num_unreadable} measures cannot be read")
    return records


def records_of_summary(summary: Mapping[str, Any], configuration: Mapping[str, Any]) -> list[Record]:
    """Return the measures of the test at the end of training, which are not ranked: summary.json keeps values only."""
    values = _numbers(summary.get("test"), "test/")
    weights = _weights(configuration)
    return [
        Record(name=name, value=value, split="test", weights=weights, **_declared(name, summary))
        for name, value in values.items()
    ]


def records_of_validation(summary: Mapping[str, Any], configuration: Mapping[str, Any]) -> list[Record]:
    """Return the measure that chose the best checkpoint, or those of the last validation if no checkpoint was chosen.

    A measure of samples that chose it is ranked with no other: its features are not known.
    """
    if not all(isinstance(configuration.get(key), Mapping) for key in ("trainer", "dataset")):
        return []
    chosen = str(summary.get("selected_by"))
    best, final = (_numbers(summary.get(part), "") for part in ("best", "final"))
    of_samples = [tag for tag in best if tag == chosen and tag.startswith(QUALITY)]
    values = next((part for part in (best, final) if any(tag.startswith(VALIDATION) for tag in part)), {})
    records = [record_of(tag, best[tag], summary, configuration) for tag in of_samples]
    return [replace(record, dataset_fingerprint=None, features=None) for record in records] + [
        record_of(tag, value, summary, configuration) for tag, value in values.items() if tag.startswith(VALIDATION)
    ]


def record_of(tag: str, value: float, summary: Mapping[str, Any], configuration: Mapping[str, Any]) -> Record:
    """Return a value of summary.json, whose data are identified by their configuration.

    Measures of samples are ranked if the runs have the same settings of features, as the jobs of a sweep do.

    Args:
        tag: Of the value.
        value: The number.
        summary: Of the run.
        configuration: Of the run; the data are unknown if it cannot be read.
    """
    part, _, name = tag.partition("/")
    is_validation, is_of_model = part == "validation", part in ("validation", "test")
    about: dict[str, Any] = {"split": "test" if part == "test" else "validation", "monitored": part != "test"}
    trainer, dataset, quality = (configuration.get(key) for key in ("trainer", "dataset", "quality"))
    if isinstance(dataset, Mapping) and isinstance(trainer, Mapping):
        facts = {key: value for key, value in dataset.items() if key not in _BESIDE_THE_DATA}
        about |= {
            "dataset": str(dataset.get("_target_", UNKNOWN)).rpartition(".")[2],
            "binarization": str(dataset.get("binarization", UNKNOWN)),
            "dataset_fingerprint": hashlib.sha256(json.dumps(facts, sort_keys=True, default=str).encode()).hexdigest(),
        }
        seed, limit = configuration.get("seed"), trainer.get("validation_images")
        if part != "test" and isinstance(limit, int):
            about["num_examples"] = limit
        if is_validation and isinstance(seed, int):
            about["seed"] = seed
    if tag.startswith(QUALITY) and isinstance(quality, Mapping):
        about["features"] = str(quality.get("inception_weights") or quality.get("features"))
        if isinstance(num := quality.get("num_samples"), int):
            about["num_generated"] = num
    return Record(
        name=tag,
        value=value,
        **_declared(name if is_of_model else tag, summary, prefix=f"{part}/" if is_of_model else ""),
        weights=_weights(configuration),
        **about,
    )


def comparable_groups(conditions: Mapping[int, Mapping[str, str]]) -> list[tuple[Mapping[str, str], list[int]]]:
    """Return the groups of numbered values that can be ranked, with the conditions of each; the largest comes first."""
    groups: dict[tuple[tuple[str, str], ...], list[int]] = {}
    for number, stated in conditions.items():
        groups.setdefault(tuple(stated.items()), []).append(number)
    return [(dict(stated), members) for stated, members in sorted(groups.items(), key=lambda item: -len(item[1]))]


def refusals(groups: Sequence[tuple[Mapping[str, str], list[int]]], told: Callable[[Sequence[int]], str]) -> list[str]:
    """Return why each further group is not ranked with the first, one line each.

    Args:
        groups: Of :func:`comparable_groups`.
        told: Returns the names of numbered values.
    """
    return [
        f"{told(members)} not ranked with {told(groups[0][1])}: {'; '.join(_differences(conditions, groups[0][0]))}"
        for conditions, members in groups[1:]
    ]


def _differences(ours: Mapping[str, str], theirs: Mapping[str, str]) -> list[str]:
    names = [name for name in ours if ours[name] != theirs.get(name)]
    # A measure of all images has no seed of their choice.
    names = [name for name in names if name in theirs] or names
    if any(name in _OF_THE_DATA for name in names):
        names = [name for name in names if name not in _IMPLIED]
    return [f"{name} {ours[name]}, not {theirs.get(name, UNKNOWN)}" for name in names]


def _record(entry: Any) -> Record | None:
    """Return an entry of the ledger with its valid fields; None if it has no name or no number."""
    if not isinstance(entry, Mapping) or not isinstance(entry.get("name"), str) or not is_number(entry.get("value")):
        return None
    texts = [name for name in _TEXTS if isinstance(entry.get(name), str)]
    counts = [name for name in _COUNTS if isinstance(entry.get(name), int) and is_number(entry[name])]
    known: dict[str, Any] = {"value": float(entry["value"])} | {name: entry[name] for name in (*texts, *counts)}
    if is_number(entry.get("standard_error")):
        known["standard_error"] = float(entry["standard_error"])
    return Record(**known, **_as_declared(entry["name"], entry))


def _declared(name: str, summary: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """Return the declaration of one measure in summary.json."""
    found = summary.get("measures")
    declared = found.get(name) if isinstance(found, Mapping) else None
    return _as_declared(name, declared if isinstance(declared, Mapping) else {}, prefix)


def _as_declared(name: str, stated: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """Return the declared fields of a record that have a known form."""
    unit, kind, direction, quantity = (stated.get(key) for key in ("unit", "kind", "direction", "quantity"))
    return {
        "unit": unit if isinstance(unit, str) else NOT_DECLARED,
        "kind": kind if isinstance(kind, str) else NOT_DECLARED,
        "direction": direction if direction in get_args(Direction) else NOT_DECLARED,
        "quantity": f"{prefix}{quantity if isinstance(quantity, str) else name}",
    }


def _numbers(values: Any, prefix: str) -> dict[str, float]:
    if not isinstance(values, Mapping):
        return {}
    return {
        str(tag).removeprefix(prefix): float(value)
        for tag, value in values.items()
        if str(tag).startswith(prefix) and is_number(value)
    }


def is_number(value: Any) -> TypeGuard[float]:
    """Return True if the value is a number that can be shown and calculated with."""
    return isinstance(value, int | float) and not isinstance(value, bool) and abs(value) <= MAX_NUMBER


def _weights(configuration: Mapping[str, Any]) -> str:
    trainer = configuration.get("trainer")
    if not isinstance(trainer, Mapping):
        return UNKNOWN
    return "trained" if trainer.get("ema_decay") is None else "averaged"


def _stated(count: int | None, otherwise: str) -> str:
    return otherwise if count is None else f"{count:,}"
