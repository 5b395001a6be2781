"""A model or an experiment in full: paper, sizes, parameters, cost, published and reached values, a picture."""

import re
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

from genlab.comparison.published import Experiment, read_experiment, read_experiments
from genlab.config.build import TARGET
from genlab.config.catalogue import files_of, head_of, keys_of, with_inherited
from genlab.config.compose import open_composer, plain
from genlab.config.key_help import comments_of, leaves
from genlab.config.location import config_directory
from genlab.config.schema import read_run_configuration
from genlab.config.suggestions import suggestion
from genlab.errors import ConfigurationError, GenlabError
from genlab.paths import from_here
from genlab.printing import shown
from genlab.run.banner import describe_parameters
from genlab.run.record import build_model
from genlab.tables import described

_PAPER = re.compile(r"arXiv:(\d{4}\.\d{4,5})")
_FIELDS = ("command", "cost", "differs", "ours", "twin")


def model_in_full(name: str, folders: Sequence[Path]) -> str:
    """Return the description of a model.

    Args:
        name: An option of ``model=``.
        folders: Configuration trees, in order of precedence.

    Raises:
        ConfigurationError: There is no such model.
    """
    path = _file("model", name, folders)
    experiments = [each for each in read_experiments(folders, []) if each.model == name]
    values, comments = _composed(f"model={name}", folders)
    trainer, optimizer = values["trainer"], values["optimizer"]["default"]
    rate = f"{optimizer[TARGET].rpartition('.')[2]} at {optimizer['lr']:g}"
    rows = [
        ("train", f"genlab train model={name}"),
        *_papers(head_of(path)),
        ("class", values["model"][TARGET]),
        ("parameters", _parameters(values)),
        ("training", f"{trainer['num_steps']:,} steps of {trainer['batch_size']} images, {rate}"),
        *(_picture(each) for each in experiments if each.picture),
    ]
    sizes = [(f"{key}={shown(value)}", comments.get(key, "")) for key, value in leaves({"model": values["model"]})]
    results = [
        (each.name, "; ".join([*(" ".join(filter(None, result)) for result in _results(each)), f"cost: {each.cost}"]))
        for each in experiments
    ]
    head = [_block(name, [("", " ".join(head_of(path)))]), described(rows)]
    blocks = [*head, _block("sizes", sizes), _block("experiments", results)]
    return "\n\n".join(block for block in blocks if block)


def experiment_in_full(name: str, folders: Sequence[Path]) -> str:
    """Return the description of an experiment.

    Args:
        name: An option of ``experiment=``.
        folders: Configuration trees, in order of precedence.

    Raises:
        ConfigurationError: There is no such experiment.
    """
    path = _file("experiment", name, folders)
    experiment = read_experiment(path)
    values, comments = _composed(f"experiment={name}", folders)
    rows = [
        *_papers([experiment.title]),
        *((field, getattr(experiment, field)) for field in _FIELDS if getattr(experiment, field)),
        ("parameters", _parameters(values)),
        *([_picture(experiment)] if experiment.picture else []),
    ]
    sets = {key: value for file in with_inherited(path) for key, value, _ in keys_of(file) if value}
    settings = [(f"{key}={value}", comments.get(key, "")) for key, value in sets.items()]
    results = [(f"{field} {measure}".strip(), text) for field, measure, text in _results(experiment)]
    blocks = [
        _block(name, [("", experiment.title)]),
        described(rows),
        _block("results", results),
        _block("settings", settings),
    ]
    return "\n\n".join(block for block in blocks if block)


def _file(group: str, name: str, folders: Sequence[Path]) -> Path:
    files = files_of(group, folders)
    if name not in files:
        raise ConfigurationError(f"there is no {group} '{name}'; {suggestion(name, list(files), kind=f'{group}s')}")
    return files[name]


def _papers(lines: Iterable[str]) -> list[tuple[str, str]]:
    """Return the papers that a text names, the first one first."""
    found = dict.fromkeys(_PAPER.findall(" ".join(lines)))
    return [("paper", f"https://arxiv.org/abs/{number}") for number in found]


def _parameters(values: dict[str, Any]) -> str:
    """Return the numbers of parameters for the data that the configuration names, nothing downloaded."""
    dataset = {**values["dataset"], **({"download": False} if "download" in values["dataset"] else {})}
    try:
        configuration = read_run_configuration({**values, "dataset": dataset})
        spec = configuration.bound_dataset.build().spec
    except GenlabError as error:
        return f"unknown without the data: {str(error).partition(' in ')[0]}"
    size = f"{spec.channels}x{spec.height}x{spec.width}"
    numbers = describe_parameters(build_model(configuration, spec)).replace(" parameters", "", 1)
    return f"{numbers}, for images of {size}"


def _picture(experiment: Experiment) -> tuple[str, str]:
    path = config_directory().parent / str(experiment.picture)
    return "picture", str(from_here(path)) if path.exists() else f"{experiment.picture} of the repository"


def _results(experiment: Experiment) -> Iterator[tuple[str, str, str]]:
    """Yield the values of the paper and of a run of ours, as field, measure and value."""
    if experiment.remark:
        yield "published", "", experiment.remark
    for field, entries in (("published", experiment.published), ("expected", experiment.expected)):
        for measure, entry in entries.items():
            yield field, measure, entry.text


def _block(title: str, rows: Sequence[tuple[str, str]]) -> str:
    return f"{title}\n{described(rows)}" if rows else ""


def _composed(override: str, folders: Sequence[Path]) -> tuple[dict[str, Any], dict[str, str]]:
    """Return the values of a configuration, and the comments of its keys."""
    own = [folder for folder in folders if folder != config_directory()]
    with open_composer("train", config_dir=str(own[0]) if own else None) as composer:
        composed = composer.compose([override])
        return plain(composed), comments_of(composed)
