"""`genlab train --help`: every key of a composed configuration with its value and its comment, the common ones first.

Comments are those of the YAML files that were composed; keys without one take the description of the JSON schemas,
which comes from the docstrings of the constructors.
"""

import json
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from genlab.config.build import PARTIAL, TARGET
from genlab.config.catalogue import keys_of, with_inherited
from genlab.config.compose import Composed, Composer, unresolved
from genlab.config.fields import join
from genlab.config.location import config_directory
from genlab.printing import shown
from genlab.tables import described

_COMMON = (
    ("model", "the model; genlab models NAME describes one"),
    ("dataset", "the data set; genlab datasets NAME inspects one"),
    ("experiment", "settings of a published result; genlab experiments lists them"),
    ("trainer", "default: minutes on two CPU cores; smoke: seconds; gpu; paper"),
    ("trainer.num_steps", ""),
    ("trainer.batch_size", ""),
    ("optimizer.default.lr", ""),
    ("seed", ""),
    ("device", ""),
    ("resume", ""),
)
_TITLES = {
    "": "The run",
    "model": "The model",
    "dataset": "The data",
    "trainer": "The training",
    "optimizer": "The optimiser",
    "schedule": "The learning-rate schedule",
    "quality": "The quality of samples during the training of a GAN",
    "logger": "Loggers",
    "observer": "Observers",
    "sweep": "A sweep (-m)",
}
_HIDDEN_GROUPS = ("recipe", "dataset/preparation")


def training_help(composer: Composer, overrides: Sequence[str]) -> str:
    """Return the help of `genlab train` for the choices and values of a command line.

    Args:
        composer: Of the command.
        overrides: Of the command line.
    """
    composed = composer.compose(overrides)
    values = dict(leaves(unresolved(composed)))
    chosen = {str(group): option for group, option in composed.hydra.runtime.choices.items()}
    comments = comments_of(composed)
    own = [group for group in chosen if not group.startswith("hydra") and "@" not in group]
    listed = sorted({*own, *composer.groups_of_lists(), "experiment"} - {*_HIDDEN_GROUPS})
    groups = {group: ", ".join(composer.options(group)) for group in listed}
    groups["experiment"] = f"{groups['experiment'].count(',') + 1} published results and quick twins"
    lines = [
        "genlab train [group=choice ...] [key=value ...] [-m] [-v] [-q] [--cfg job]",
        "Trains a model, or resumes a run with resume=RUN. The values below are those of",
        "this command line; choices before --help change them:",
        "genlab train model=dcgan --help.",
        "",
        "The common ones",
    ]
    rows = [
        (f"{key}={shown(chosen.get(key) if key in groups else values[key])}", words or comments.get(key, ""))
        for key, words in _COMMON
    ]
    lines.append(described(rows))
    lines += ["", "Choices: group=choice"]
    lines.append(described(groups.items()))
    for parent, title in _TITLES.items():
        keys = [key for key in values if key.rpartition(".")[0].partition(".")[0] == parent]
        if keys:
            lines += ["", title]
            lines.append(described([(f"{key}={shown(values[key])}", comments.get(key, "")) for key in keys]))
    lines += [
        "",
        "genlab train --hydra-help shows Hydra's options. docs/configuration.md",
    ]
    return "\n".join(lines)


def comments_of(composed: Composed) -> dict[str, str]:
    """Return the comments of the keys of a composed configuration."""
    folders = [Path(source.path) for source in composed.hydra.runtime.config_sources if source.schema == "file"]
    chosen = {str(group): option for group, option in composed.hydra.runtime.choices.items()}
    return {**_of_targets(unresolved(composed)), **_of_files(chosen, folders)}


def leaves(node: Any, parent: str = "") -> Iterator[tuple[str, Any]]:
    """Yield the dotted keys of plain nested data with their values, except for targets."""
    if isinstance(node, Mapping) and node:
        for name, value in node.items():
            if name not in (TARGET, PARTIAL):
                yield from leaves(value, join(parent, str(name)))
    else:
        yield parent, node


def _of_files(chosen: Mapping[str, Any], folders: Sequence[Path]) -> dict[str, str]:
    """Return the comments of the files that were composed, by full key."""
    found: dict[str, str] = {}
    options = [("trainer", "base"), ("dataset/preparation", "default")]
    options += [(group.partition("@")[0], option) for group, option in chosen.items() if isinstance(option, str)]
    paths = [(group, folder / group / f"{option}.yaml") for group, option in options for folder in folders]
    paths += [("", folder / "train.yaml") for folder in folders]
    for group, path in paths:
        if path.is_file() and not group.startswith("hydra"):
            package = "dataset" if group == "dataset/preparation" else group.replace("/", ".")
            head = path.read_text(encoding="utf-8").partition("\n")[0]
            if head.startswith("# @package "):
                package = head.removeprefix("# @package ").strip().removeprefix("_global_")
            for file in with_inherited(path):
                found |= {join(package, key): comment for key, _, comment in keys_of(file) if comment}
    return found


def _of_targets(node: Mapping[str, Any]) -> dict[str, str]:
    """Return the descriptions in the JSON schemas of the arguments of every target, by full key."""
    schemas = [json.loads(path.read_text(encoding="utf-8")) for path in (config_directory() / "schema").glob("*.json")]
    arguments = {target: schema["properties"] for each in schemas for target, schema in each.get("$defs", {}).items()}

    def inside(node: Any, key: str) -> Iterator[tuple[str, str]]:
        if isinstance(node, Mapping):
            known = arguments.get(str(node.get(TARGET)), {})
            for name, value in node.items():
                if "description" in known.get(name, {}):
                    yield join(key, str(name)), known[name]["description"]
                yield from inside(value, join(key, str(name)))

    return dict(inside(node, ""))
