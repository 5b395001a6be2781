"""The measures of a run as numbers on disk, each with what decides which others it may be ranked with."""

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from itertools import islice
from typing import Any

from genlab.metrics.names import Direction, direction_of, kind_of, unit_of

UNKNOWN = "unknown"
MAX_MEASURES = 1000
"""Of a file; a ledger of ours has some dozens."""
MAX_NUMBER = 1e100
"""Beyond any measure, and near enough to zero to calculate with; whole numbers in JSON know no end."""
VALIDATION = "validation/"
_NEGATIVE_LOG_LIKELIHOOD = ("nll_nats", "nll_upper_bound_nats")
_DIGITS_OF_A_HASH = 8
_TEXTS = (
    *("name", "unit", "kind", "split", "weights", "dataset"),
    *("binarization", "dataset_fingerprint", "features", "protocol"),
)
_BESIDE_THE_DATA = ("cache", "download")  # where they are kept, and how they came there
_COUNTS = ("num_examples", "num_importance_samples", "seed", "num_generated")


@dataclass(frozen=True, kw_only=True)
class Record:
    """One number of one run; what is not known is None, or "unknown" for a text.

    The fields are those of :class:`genlab.metrics.ledger.Measure`, of which this is the reading half: it trusts no
    file to be complete.
    """

    name: str
    value: float
    standard_error: float | None = None
    unit: str = "1"
    kind: str = UNKNOWN
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
    def quantity(self) -> str:
        """What is measured: an exact likelihood and a bound of it are the same quantity, told apart by `kind`."""
        name = self.name.removeprefix(VALIDATION)
        name = "nll_nats" if name in _NEGATIVE_LOG_LIKELIHOOD else name
        return f"{VALIDATION}{name}" if self.monitored else name

    @property
    def direction(self) -> Direction | None:
        """Which values are better; None of a quantity that orders no models."""
        return direction_of(self.quantity.removeprefix(VALIDATION))

    @property
    def is_bound(self) -> bool:
        """Whether the true value may be lower."""
        return self.kind == "upper bound"

    @property
    def words(self) -> tuple[str, ...]:
        """What must stand beside the value wherever it is shown, for it ranks with others that lack it."""
        words = (("bound", self.is_bound), ("EMA", self.weights == "averaged"))
        return tuple(word for word, holds in words if holds)

    @property
    def conditions(self) -> Mapping[str, str] | None:
        """What must be equal for two values of a quantity to be ranked, by its name; None where nothing is known.

        Not among them, for a rank makes sense all the same: whether it is a bound and whether the weights are averaged
        (`words` tells both), and the seed.
        """
        if self.dataset_fingerprint is None:
            return None
        stated = {
            "unit": self.unit,
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
        if self.monitored and self.num_examples is not None:
            stated["seed of the choice of images"] = str(self.seed)
        if self.quantity == "parzen_log_likelihood_nats":
            del stated["protocol"]  # the bandwidth, which is fitted to each model
        return stated


def records_of_evaluation(evaluation: Mapping[str, Any], problems: list[str]) -> list[Record]:
    """The measures of evaluation.json that are one number.

    Args:
        evaluation: Its content; empty where there is none.
        problems: A remark is added for entries that cannot be read.
    """
    records, num_unreadable = [], 0
    entries = evaluation.get("measures", [])
    entries = entries if isinstance(entries, list) else []
    if len(entries) > MAX_MEASURES:
        problems.append(f"evaluation.json: only {MAX_MEASURES:,} of {len(entries):,} measures are read")
    for entry in entries[:MAX_MEASURES]:
        record = _record(entry)
        if record is not None:
            records.append(record)
        elif not (isinstance(entry, Mapping) and isinstance(entry.get("value"), list)):
            num_unreadable += 1
    if num_unreadable:
        problems.append(f"evaluation.json: {num_unreadable} measures cannot be read")
    return records


def records_of_summary(summary: Mapping[str, Any], configuration: Mapping[str, Any]) -> list[Record]:
    """The test that ended training, of which summary.json keeps no more than the values: shown, and not ranked."""
    values = _numbers(summary.get("test"), "test/")
    weights = _weights(configuration)
    return [
        Record(name=name, value=value, split="test", kind=kind_of(name, values), weights=weights)
        for name, value in values.items()
    ]


def records_of_validation(summary: Mapping[str, Any], configuration: Mapping[str, Any]) -> list[Record]:
    """What the best checkpoint was chosen by, or the last validation where nothing was chosen.

    The data are identified by their configuration.
    """
    values = _numbers(summary.get("best"), VALIDATION) or _numbers(summary.get("final"), VALIDATION)
    trainer, dataset = configuration.get("trainer"), configuration.get("dataset")
    if not isinstance(dataset, Mapping) or not isinstance(trainer, Mapping):
        return []
    seed, limit = configuration.get("seed"), trainer.get("validation_images")
    told = {key: value for key, value in dataset.items() if key not in _BESIDE_THE_DATA}
    identity = hashlib.sha256(json.dumps(told, sort_keys=True, default=str).encode()).hexdigest()
    return [
        Record(
            name=f"{VALIDATION}{name}",
            value=value,
            unit=unit_of(name),
            kind=kind_of(name, values),
            split="validation",
            num_examples=limit if isinstance(limit, int) else None,
            weights=_weights(configuration),
            seed=seed if isinstance(seed, int) else None,
            dataset=str(dataset.get("_target_", UNKNOWN)).rpartition(".")[2],
            binarization=str(dataset.get("binarization", UNKNOWN)),
            dataset_fingerprint=identity,
            monitored=True,
        )
        for name, value in values.items()
    ]


def _record(entry: Any) -> Record | None:
    """An entry of the ledger with the fields that are as they should be; None where it has no name or no number."""
    if not isinstance(entry, Mapping) or not isinstance(entry.get("name"), str) or not is_number(entry.get("value")):
        return None
    texts = [name for name in _TEXTS if isinstance(entry.get(name), str)]
    counts = [name for name in _COUNTS if isinstance(entry.get(name), int) and is_number(entry[name])]
    known: dict[str, Any] = {"value": float(entry["value"])} | {name: entry[name] for name in (*texts, *counts)}
    if is_number(entry.get("standard_error")):
        known["standard_error"] = float(entry["standard_error"])
    return Record(**known)


def _numbers(values: Any, prefix: str) -> dict[str, float]:
    if not isinstance(values, Mapping):
        return {}
    return {
        str(tag).removeprefix(prefix): float(value)
        for tag, value in islice(values.items(), MAX_MEASURES)
        if str(tag).startswith(prefix) and is_number(value)
    }


def is_number(value: Any) -> bool:
    """Whether it is a number to show and to calculate with."""
    return isinstance(value, int | float) and not isinstance(value, bool) and abs(value) <= MAX_NUMBER


def _weights(configuration: Mapping[str, Any]) -> str:
    trainer = configuration.get("trainer")
    if not isinstance(trainer, Mapping):
        return UNKNOWN
    return "trained" if trainer.get("ema_decay") is None else "averaged"


def _stated(count: int | None, otherwise: str) -> str:
    return otherwise if count is None else f"{count:,}"
