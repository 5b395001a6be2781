"""The hyper-parameters of a run as a flat mapping, for tables of runs."""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from genlab.config.plain_yaml import read_plain

Scalar = bool | int | float | str | None

# The first follows from the choices of the two, the second is no part of the training.
_NOT_CHOSEN = ("recipe@optimizer", "logger")
_NO_SETTINGS = ("resume", "allow_other_data", "logger")
_FIRST = ("model", "dataset", "objective", "techniques")


@dataclass(frozen=True, kw_only=True)
class Origin:
    """The choices and overrides of which a configuration was composed."""

    choices: Mapping[str, str]
    """Config groups with the chosen option, such as ``model/objective: hinge``."""
    overrides: tuple[str, ...]
    """Overrides of the command line, as typed."""
    folders: tuple[Path, ...] = ()
    """Configuration trees that were searched; empty for a resumed run."""


UNKNOWN = Origin(choices={}, overrides=())


def read_origin(run_folder: Path) -> Origin:
    """Read the choices and overrides of a run's first start, as recorded by Hydra.

    Raises:
        OSError: It cannot be read.
        ValueError: It is damaged or not plain YAML.
    """
    content = read_plain(run_folder, ".hydra/hydra.yaml")
    try:
        choices, overrides = content["hydra"]["runtime"]["choices"], content["hydra"]["overrides"]["task"]
        return Origin(choices=chosen(choices), overrides=tuple(map(str, overrides)))
    except (LookupError, TypeError, AttributeError) as error:
        raise ValueError(".hydra/hydra.yaml is damaged") from error


def chosen(choices: Mapping[Any, Any]) -> dict[str, str]:
    """Return the options that were chosen in the groups of genlab, without those of Hydra."""
    return {
        str(group): option
        for group, option in choices.items()
        if isinstance(option, str) and not str(group).startswith("hydra/") and group not in _NOT_CHOSEN
    }


def hyperparameters(configuration: Mapping[str, Any], origin: Origin) -> dict[str, bool | int | float | str]:
    """Return the columns of a run in TensorBoard's HPARAMS: the choices, then the overrides, then the rest.

    Args:
        configuration: Of the run, as plain values.
        origin: What it was composed of.
    """
    choices = {group.rpartition("/")[2].partition("@")[0]: option for group, option in origin.choices.items()}
    techniques = configuration["model"].get("techniques")
    if isinstance(techniques, Mapping):
        choices["techniques"] = ",".join(map(str, techniques)) or "none"
    first = [name for name in _FIRST if name in choices]
    settings = {name: value for name, value in configuration.items() if name not in _NO_SETTINGS}
    numbers = {key: value for key, value in flat(settings).items() if value is not None}
    typed = [key for override in origin.overrides if (key := override.lstrip("+~").partition("=")[0]) in numbers]
    columns: dict[str, bool | int | float | str] = {name: choices[name] for name in [*first, *sorted(choices)]}
    return columns | {key: numbers[key] for key in [*typed, *numbers] if key not in columns}


def flat(node: Mapping[str, Any], parent: str = "") -> dict[str, Scalar]:
    """Return nested plain data by dotted key; ``model._target_`` becomes ``model``, a list its JSON."""
    found: dict[str, Scalar] = {}
    for name, value in node.items():
        key = f"{parent}.{name}" if parent else str(name)
        if isinstance(value, Mapping):
            found |= flat(value, key)
        elif name == "_target_":
            found[parent] = str(value)
        elif name != "_partial_":
            found[key] = value if isinstance(value, Scalar) else json.dumps(value, default=str)
    return found
