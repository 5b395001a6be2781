"""Consequences of the user's choices: data that a model selects, settings that its recipe changes, idle keys."""

from collections.abc import Iterable, Mapping, Sequence
from functools import cache
from pathlib import Path
from typing import Any

from genlab.config.location import config_directory
from genlab.config.plain_yaml import load_plain
from genlab.errors import ConfigurationError

# Beginnings of keys, the keys that decide, and the values that all of these have where the first have no effect.
_WITHOUT_EFFECT = (
    ("trainer.watch_images", ("trainer.watch_interval",), (0,)),
    ("trainer.watch_classifier", ("trainer.watch_interval",), (0,)),
    ("trainer.min_diversity_ratio", ("trainer.watch_interval",), (0,)),
    ("trainer.min_modes_covered", ("trainer.watch_interval",), (0,)),
    ("trainer.max_skipped_steps", ("trainer.on_non_finite",), ("stop",)),
    ("dataset.threshold", ("dataset.binarization",), ("none", "stochastic")),
    ("dataset.label_seed", ("dataset.num_labels_per_class", "dataset.num_training"), (None,)),
    ("dataset.max_skipped", ("dataset.on_error",), ("fail",)),
    ("model.read_bias", ("model.read_size",), (None,)),
    ("model.write_bias", ("model.write_size",), (None,)),
)


def require_effect(configuration: Mapping[str, Any], overrides: Sequence[str]) -> None:
    """Refuse keys of the command line that have no effect beside the values of others.

    Args:
        configuration: Of the run, nested.
        overrides: Of the command line.

    Raises:
        ConfigurationError: The first such key, with those that decide.
    """
    for key in (override.lstrip("+").partition("=")[0] for override in overrides):
        for beginning, decisive, values in _WITHOUT_EFFECT:
            if not f"{key}.".startswith(f"{beginning}."):
                continue
            found = {each: _value(configuration, each) for each in decisive}
            if all(value in values for value in found.values()):
                told = " and ".join(f"{each} is {'null' if value is None else value}" for each, value in found.items())
                raise ConfigurationError(f"{key} has no effect while {told}: change that, or leave {key} out")


def _value(configuration: Mapping[str, Any], key: str) -> Any:
    group, _, name = key.partition(".")
    return (configuration.get(group) or {}).get(name, "")


def remarks(choices: Mapping[str, str], overrides: Sequence[str], folders: Sequence[Path]) -> list[str]:
    """Return one sentence for each consequence of a run's choices.

    Args:
        choices: Config groups with the chosen option.
        overrides: Of the command line.
        folders: Configuration trees.
    """
    found = []
    model, dataset = choices.get("model"), choices.get("dataset")
    if not _chooses_data(overrides) and "experiment" not in choices and dataset not in (None, _default_dataset()):
        found.append(f"model={model} chooses dataset={dataset}; dataset=NAME chooses another")
    recipe, optimizer = choices.get("recipe"), choices.get("optimizer")
    made_for = {path.stem for folder in folders for path in (folder / "recipe" / str(recipe)).glob("*.yaml")}
    if made_for and optimizer not in made_for:
        found.append(
            f"recipe={recipe} was made for optimizer={' or '.join(sorted(made_for))}; "
            f"with optimizer={optimizer} its settings of the optimiser are not applied"
        )
    return found


def differing_data(jobs: Iterable[Mapping[str, str]], overrides: Sequence[str]) -> str | None:
    """Return a sentence if the models of a sweep choose different data sets; None if the user chose the data.

    Args:
        jobs: Config groups with the chosen option, of jobs that together show every model.
        overrides: Of the command line.
    """
    if _chooses_data(overrides):
        return None
    models: dict[str, list[str]] = {}
    for choices in jobs:
        if "experiment" not in choices and choices["model"] not in models.setdefault(choices["dataset"], []):
            models[choices["dataset"]].append(choices["model"])
    if len(models) < 2:
        return None
    listed = ", ".join(f"{dataset} ({', '.join(names)})" for dataset, names in sorted(models.items()))
    return f"the models of this sweep train on different data: {listed}; dataset=NAME gives them the same"


def _chooses_data(overrides: Sequence[str]) -> bool:
    return any(override.partition("=")[0] == "dataset" for override in overrides)


@cache
def _default_dataset() -> str:
    """Return the data set of a run whose model does not choose one."""
    defaults = load_plain((config_directory() / "train.yaml").read_text(encoding="utf-8"))["defaults"]
    return str(next(entry["dataset"] for entry in defaults if isinstance(entry, dict) and "dataset" in entry))
