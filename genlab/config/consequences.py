"""Consequences of the user's choices: the data set that a model selects, and the settings that its recipe changes."""

from collections.abc import Iterable, Mapping, Sequence
from functools import cache
from pathlib import Path

from genlab.config.location import config_directory
from genlab.config.plain_yaml import load_plain


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
    return any(word.partition("=")[0] == "dataset" for word in overrides)


@cache
def _default_dataset() -> str:
    """Return the data set of a run whose model does not choose one."""
    defaults = load_plain((config_directory() / "train.yaml").read_text(encoding="utf-8"))["defaults"]
    return str(next(entry["dataset"] for entry in defaults if isinstance(entry, dict) and "dataset" in entry))
