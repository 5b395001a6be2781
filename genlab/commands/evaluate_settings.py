"""The settings of `genlab evaluate`, and their valid combinations."""

from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any, Literal

from genlab.config.build import TARGET, bind, build, parameters_of
from genlab.config.location import config_directory
from genlab.config.targets import find_target
from genlab.data.dataset import Dataset, Split
from genlab.errors import ConfigurationError
from genlab.metrics.quality import LEAST_IMAGES
from genlab.metrics.sample_measure import SampleMeasure
from genlab.printing import shown
from genlab.run.record import EVALUATION_NAME, evaluation_name, require_root_alone

_KEYS_OF_GIVEN_IMAGES = frozenset(
    {
        *("run", "images", "against", "label", "out", "checkpoint", "num_importance_samples", "batch_size", "seed"),
        *("device", "devices", "num_threads"),
    }
)
_KEYS_OF_GIVEN_SAMPLES = frozenset(
    {
        *("samples", "reference", "dataset", "reference_split", "num_images", "classifier", "inception_weights"),
        *("measure", "parzen", "nearest_training", "out", "batch_size", "seed", "device", "devices", "num_threads"),
    }
)


_WITHOUT_SAMPLES = {
    "reference": "null",
    "measure": "empty",
    "classifier": "null",
    "inception_weights": "null",
    "parzen": "false",
}
"""The settings that ask for samples, and their values where none are measured."""

_KEYS_ABOUT_SAMPLES = ("num_generated", "reference_split", "nearest_training")
"""The settings that ask for samples where they are typed: each of their values is one of a measurement of samples."""


@dataclass(frozen=True, kw_only=True)
class EvaluateSettings:
    """The keys of configs/evaluate.yaml.

    Raises:
        ValueError: A value is out of its range.
    """

    run: str | None
    checkpoint: Literal["best", "last"]
    split: Split
    num_images: int | None
    num_importance_samples: int
    samples: bool | str | None
    """True or False for samples of the run; a folder or an NPZ for those of any program."""
    num_generated: int
    reference: str | None
    reference_split: Split
    classifier: str | None
    inception_weights: str | None
    parzen: bool
    nearest_training: bool
    images: str | None
    against: str | None
    label: int | str | None
    """The number of a class, or its name."""
    dataset: Mapping[str, Any]
    allow_other_data: bool
    out: str | None
    batch_size: int | None
    seed: int | None
    device: str
    devices: int
    num_threads: int | None
    measure: dict[str, dict[str, Any] | None]
    """Further measures of samples by name, each a node; null takes one away."""
    typed: frozenset[str] = field(default=frozenset(), compare=False)
    """The first parts of the keys of the command line."""

    @property
    def ledger_name(self) -> str:
        """The file name of the ledger."""
        return EVALUATION_NAME if self.run is None else evaluation_name(self.split, self.reference_split)

    @cached_property
    def further_measures(self) -> dict[str, SampleMeasure]:
        """The further measures of samples, built."""
        return {
            name: build(node, f"measure.{name}", expects=SampleMeasure)
            for name, node in self.measure.items()
            if node is not None
        }

    @property
    def requests_of_samples(self) -> dict[str, str]:
        """The settings that ask for samples of a model with a likelihood too, and the rule for each without samples."""
        by_value = {key: f"{key} must be {value}" for key, value in _WITHOUT_SAMPLES.items() if getattr(self, key)}
        return by_value | {key: f"{key} must be left out" for key in _KEYS_ABOUT_SAMPLES if key in self.typed}

    def __post_init__(self) -> None:
        if self.num_importance_samples < 0:
            raise ValueError(f"num_importance_samples must be 0 or more, got {self.num_importance_samples}")
        if not isinstance(self.samples, str):
            if TARGET in self.dataset:
                raise ValueError("dataset must be null with run, whose data are taken; reference names other images")
            require_root_alone(self.dataset)
        if self.devices < 1:
            raise ValueError(f"devices must be at least 1, got {self.devices}")
        for key, what in (("against", "whose likelihoods it compares"), ("label", "whose class it is")):
            if getattr(self, key) is not None and self.images is None:
                raise ValueError(f"{key} must be null without images=FOLDER, {what}, got {getattr(self, key)}")
        for key in ("batch_size", "num_images", "num_threads"):
            value = getattr(self, key)
            if value is not None and value < 1:
                raise ValueError(f"{key} must be null or at least 1, got {value}")
        if self.num_generated < LEAST_IMAGES:
            raise ValueError(f"num_generated must be at least {LEAST_IMAGES}, got {self.num_generated}")


def require_consistent(settings: EvaluateSettings) -> None:
    """Refuse settings that exclude each other.

    Args:
        settings: Checked one by one.

    Raises:
        ConfigurationError: One lacks another, or has no effect beside another.
    """
    given = settings.typed
    if settings.samples is False:
        for key, rule in settings.requests_of_samples.items():
            value = ", ".join(settings.measure) if key == "measure" else getattr(settings, key)
            raise ConfigurationError(f"{rule} with samples=false, got {shown(value)}")
    if isinstance(settings.samples, str):
        if settings.run is not None and not Path(settings.samples).exists():
            raise ConfigurationError(
                f"samples must be null, true or false, or without run a folder or an .npz file, got {settings.samples}"
            )
        _require_effect(given - _KEYS_OF_GIVEN_SAMPLES, "the measures of given samples: leave it out, or samples")
        _check_given_samples(settings)
    elif settings.run is None:
        raise ConfigurationError("run must be given: add run=...; samples=FOLDER measures images of another program")
    elif settings.images is not None:
        _require_effect(given - _KEYS_OF_GIVEN_IMAGES, "the likelihoods of given images: leave it out, or images")
    if settings.reference is not None and "reference_split" in given:
        raise ConfigurationError("reference_split has no effect with reference: leave one of the two out")
    name = settings.reference or ""
    if not Path(name).exists() and (config_directory() / "dataset" / f"{name}.yaml").is_file():
        raise ConfigurationError(
            f"reference must be a folder or an .npz file, got {name}; did you mean dataset={name}?"
        )


def _require_effect(keys: Collection[str], what: str) -> None:
    if keys:
        raise ConfigurationError(f"{min(keys)} has no effect on {what}")


def _check_given_samples(settings: EvaluateSettings) -> None:
    node = dataset_of_samples(settings)
    if node is not None:
        bind(node, "dataset", expects=Dataset)
    elif settings.dataset["root"] is not None:
        raise ConfigurationError(
            "dataset.root needs dataset=NAME with samples=FOLDER, for there is no run that names it"
        )
    elif settings.reference is None:
        raise ConfigurationError(
            "reference must name a folder or an .npz file of real images, or dataset=NAME a data set, to compare "
            f"samples={settings.samples} with"
        )
    elif settings.parzen:
        raise ConfigurationError("parzen must be false without dataset=NAME, which chooses its bandwidth")
    if settings.out is None:
        raise ConfigurationError("out must name the folder for evaluation.json with samples=FOLDER, got null")


def dataset_of_samples(settings: EvaluateSettings) -> dict[str, Any] | None:
    """Return the node of the data set that was chosen for given samples; None without one."""
    if TARGET not in settings.dataset:
        return None
    node = dict(settings.dataset)
    if node["root"] is None and "root" not in parameters_of(find_target(node[TARGET], "dataset")):
        del node["root"]  # the key of data that moved, which a run's data may have
    return node
