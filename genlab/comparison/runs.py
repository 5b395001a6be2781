"""Reading of run folders; a missing or damaged file becomes a remark on its run and never an error."""

import json
import logging
import math
import os
import re
import shlex
import statistics
import time
from array import array
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from genlab.comparison.charts import thinned
from genlab.config.plain_yaml import read_plain
from genlab.errors import ConfigurationError
from genlab.printing import describe_seconds
from genlab.run.folder import is_abandoned
from genlab.run.formats import CONFIG_FORMAT, FORMAT_KEY, newer_format
from genlab.run.hyperparameters import UNKNOWN, Origin, Scalar, flat, read_origin
from genlab.run.measured import (
    Record,
    is_number,
    records_of_evaluation,
    records_of_summary,
    records_of_validation,
)
from genlab.run.names import CONFIG_NAME, is_export, named_place, nearest_folder
from genlab.storage import leads_out, opened_within, read_json, read_within

# A running process writes its log line more often than this.
SILENCE_SECONDS = 600
_CURVES = "metrics.jsonl"
# Keys of config.yaml that belong to one start, or were measured from the data.
_NO_SETTINGS = ("resume", "allow_other_data", "logger", "spec", "dataset_fingerprint")
_OWNERS = {"optimizer": "optimizer.default"}  # the node of a group whose own name is not that of its node
_MARKS_OF_TRAINING = ("summary.json", CONFIG_NAME, _CURVES, ".hydra")
_MARKS = (*_MARKS_OF_TRAINING, "evaluation.json")
_SPEED = "speed/images_per_second"
_log = logging.getLogger(__name__)
_NUMBER_OF_CARD = re.compile(r"(?<=^cuda):\d+")


@dataclass(frozen=True, kw_only=True)
class Run:
    """The properties of one run that its files give; the others are None or empty."""

    folder: Path
    name: str
    """The folder as far as it differs from those of the other runs."""
    status: str
    reason: str | None
    """The reason of the run's end, as the run wrote it."""
    problems: tuple[str, ...]
    """Problems with its files, one line each."""
    model: str | None
    dataset: str | None
    experiment: str | None
    overrides: tuple[str, ...]
    """Of its first start."""
    commands: tuple[str, ...]
    """The command lines that repeat it: the first start, and every resumption."""
    commit: str | None
    """The first digits of the commit, with "+" where the clone had changes."""
    hardware: str | None
    configuration: Mapping[str, Scalar]
    """By dotted key; a list stands as its JSON, an option in the place of the class that it chose."""
    classes: Mapping[str, Scalar]
    """The classes that options chose, by key; empty where the options are not known, as of an export."""
    step: int | None
    num_steps: int | None
    seconds: float | None
    images_per_second: float | None
    """The median over the lines of its log."""
    num_parameters: int | None
    records: tuple[Record, ...]
    baselines: tuple[Record, ...]
    """Measures that need no model, on the same test images."""
    measured_step: int | None
    """Of the weights that were measured on test images."""
    is_outdated: bool
    """True if the run has gone on since, and has other weights now."""
    best_step: int | None
    """Of the weights that a validation has chosen."""
    provenance: str | None
    """Of the data that they were measured on."""

    @property
    def seed(self) -> Scalar:
        """Return the seed of training."""
        return self.configuration.get("seed")


def read_runs(places: Iterable[Path]) -> list[Run]:
    """Return every run at or below some folders once, in the order given and sorted by path below each.

    Raises:
        ConfigurationError: A folder does not exist or contains no run.
    """
    folders: dict[Path, Path] = {}
    for place in places:
        found = list(folders_of_runs(named_place(str(place))))
        if not found:
            raise ConfigurationError(_nothing_in(place))
        for folder in found:
            folders.setdefault(folder.resolve(), folder)
    shared = os.path.commonpath([path.parent for path in folders])
    return [read_run(folder, name=path.relative_to(shared).as_posix()) for path, folder in folders.items()]


def folders_of_runs(place: Path) -> Iterator[Path]:
    """Yield the sorted run folders at or below a folder, including those of failed starts."""
    if any((place / mark).exists() for mark in _MARKS):
        yield place
    elif place.is_dir():
        for below in sorted(place.iterdir()):
            if below.is_dir() and not below.is_symlink() and not below.name.startswith("."):
                try:
                    yield from folders_of_runs(below)
                except PermissionError as error:  # somebody else's
                    _log.warning("%s is left out: %s", below, error.strerror)


def read_run(folder: Path, *, name: str) -> Run:
    """Return one run.

    Args:
        folder: A run folder, in any state.
        name: Its name in tables.
    """
    problems: list[str] = []
    has_evaluation = (folder / "evaluation.json").exists()
    evaluation = _read(folder, "evaluation.json", problems) if has_evaluation else {}
    samples = _node(evaluation, "samples")  # of a program that may not be genlab, of which nothing else is known
    # A folder that training did not write lacks its files.
    kind = "given samples" if samples else "export" if is_export(folder) else None
    if kind is None and has_evaluation and not any((folder / mark).exists() for mark in _MARKS_OF_TRAINING):
        kind = "evaluation"
    of_training = problems if kind is None else []
    summary = _read(folder, "summary.json", of_training)
    environment = _read(folder, "environment.json", of_training)
    configuration = _read(folder, CONFIG_NAME, problems if kind == "export" else of_training)
    if told := newer_format(folder / CONFIG_NAME, configuration.get(FORMAT_KEY), CONFIG_FORMAT):
        problems.append(told)
    origin = _origin(folder)
    at = _whole(evaluation.get("step"))
    step = at if kind is not None else _whole(summary.get("step"))
    measured = records_of_evaluation(evaluation, problems)
    if not measured:
        measured = records_of_summary(summary, configuration)
    speed = _speed(folder, problems)
    is_of_last = str(evaluation.get("checkpoint")).startswith("last.")
    best = _number(_node(summary, "best").get("step"))
    best_step = None if best is None else int(best)
    newest = step if is_of_last else best_step
    is_outdated = bool(measured) and at is not None and newest is not None and at < newest
    if is_outdated:
        where = "the run is at" if is_of_last else "the best checkpoint is of"
        problems.append(f"evaluation.json is of step {at:,}, {where} step {newest:,}: genlab evaluate run={folder}")
    status, reason = _status(folder, summary)
    settings = flat({key: value for key, value in configuration.items() if key not in _NO_SETTINGS})
    options = _options(settings, origin)
    return Run(
        folder=folder,
        name=name,
        status=kind or status,
        reason=reason,
        problems=tuple(problems),
        model=(
            origin.choices.get("model")
            or _last_part(_node(configuration, "model").get("_target_"))
            or _text(samples.get("name"))
        ),
        dataset=(
            origin.choices.get("dataset")
            or _last_part(_node(configuration, "dataset").get("_target_"))
            or next((record.dataset for record in measured if kind is not None), None)
        ),
        experiment=origin.choices.get("experiment"),
        overrides=origin.overrides,
        commands=_commands(origin.overrides, environment, has_overrides=bool(origin.choices)),
        commit=_commit(environment),
        hardware=_hardware(environment),
        configuration={**settings, **options},
        classes={key: settings[key] for key in options},
        step=step,
        num_steps=_whole(_node(configuration, "trainer").get("num_steps")),
        seconds=_number(summary.get("seconds")),
        images_per_second=speed,
        num_parameters=_whole(summary.get("num_parameters")),
        records=(*measured, *records_of_validation(summary, configuration)),
        baselines=tuple(records_of_evaluation({"measures": evaluation.get("baselines", [])}, [])),
        measured_step=at,
        is_outdated=is_outdated,
        best_step=best_step,
        provenance=_text(evaluation.get("provenance")),
    )


def _options(settings: Mapping[str, Scalar], origin: Origin) -> dict[str, Scalar]:
    """Return the options that chose the classes of a run, by the dotted key of the class."""
    typed = {override.lstrip("+~").partition("=")[0] for override in origin.overrides}
    chosen = {_OWNERS.get(group, group.replace("/", ".")): option for group, option in origin.choices.items()}
    return {key: option for key, option in chosen.items() if key in settings and f"{key}._target_" not in typed}


def _origin(folder: Path) -> Origin:
    """Return the options and overrides of the run; empty for an export, and where they cannot be read."""
    try:
        return read_origin(folder)
    except (OSError, ValueError):
        return UNKNOWN


def curves(folder: Path) -> dict[str, list[tuple[int, float | None]]]:
    """Return the curve of each tag of metrics.jsonl: at most MAX_POINTS evenly chosen (step, value), sorted by step.

    A value that was not finite is None.
    """
    # A tuple for each number of a log would take ten times the memory of the log.
    found: dict[str, tuple[array[int], array[float]]] = {}
    for record in metrics_of(folder, []):
        step = _whole(record.get("step"))
        if step is None:
            continue
        for tag, value in record.items():
            if "/" in tag and (value is None or is_number(value)):
                steps, values = found.setdefault(tag, (array("q"), array("d")))
                steps.append(step)
                values.append(math.nan if value is None else value)
    return {tag: _drawn(*points) for tag, points in found.items()}


def _drawn(steps: Sequence[int], values: Sequence[float]) -> list[tuple[int, float | None]]:
    chosen = thinned(sorted(range(len(steps)), key=steps.__getitem__))
    return [(steps[index], None if math.isnan(values[index]) else values[index]) for index in chosen]


def newest_samples(folder: Path) -> Path | None:
    """Return the last grid of samples that training drew."""
    newest = max((folder / "samples").glob("step_*.png"), default=None)
    return None if newest is None or leads_out(newest, folder) else newest


def quality_pictures(folder: Path) -> list[Path]:
    """Return the pictures of the newest measurement of quality while the run trained."""
    found = sorted((folder / "samples").glob("quality_*.png"), reverse=True)  # the samples first
    return [path for path in found if not leads_out(path, folder)]


def metrics_of(folder: Path, problems: list[str]) -> Iterator[dict[str, Any]]:
    """Yield the records of metrics.jsonl; an incomplete last line is skipped."""
    try:
        with opened_within(folder, _CURVES) as file:
            for line in file:
                try:
                    record = json.loads(line)
                except (ValueError, RecursionError):
                    continue
                if isinstance(record, dict):
                    yield record
    except FileNotFoundError:
        return
    except (OSError, ValueError) as error:
        problems.append(_cannot_be_read(_CURVES, error))


def _speed(folder: Path, problems: list[str]) -> float | None:
    speeds = [speed for record in metrics_of(folder, problems) if (speed := _number(record.get(_SPEED))) is not None]
    return statistics.median(speeds) if speeds else None


def _read(folder: Path, name: str, problems: list[str]) -> dict[str, Any]:
    try:
        return read_plain(folder, name) if name == CONFIG_NAME else read_json(folder, name)
    except FileNotFoundError:
        problems.append(f"no {name}")
    except (OSError, ValueError) as error:
        problems.append(_cannot_be_read(name, error))
    return {}


def _cannot_be_read(name: str, error: Exception) -> str:
    """Return the problem with a file, and its reason where genlab itself refuses the file."""
    is_ours = type(error) is ValueError
    return f"{name} cannot be read{f': {error}' if is_ours else ''}"


def _status(folder: Path, summary: Mapping[str, Any]) -> tuple[str, str | None]:
    """Return the status of a run and its reason: its own, or as a sweep recorded it."""
    status, reason = _text(summary.get("status")), _text(summary.get("reason"))
    job = _job_of_sweep(folder)
    in_sweep = _text(job.get("status"))
    # A run that was resumed by hand and has ended tells of itself.
    is_told = in_sweep in ("killed", "failed", "pruned", "interrupted")
    if is_told and (status in (None, "running") or (status, in_sweep) == ("interrupted", "pruned")):
        return str(in_sweep), _text(job.get("reason")) or reason
    return _own_status(folder, status), reason or (None if summary else _last_error(folder))


def _own_status(folder: Path, status: str | None) -> str:
    if status is None:
        return "unknown"
    if status != "running":
        return status
    if is_abandoned(folder):
        return "killed"
    written = [path.stat().st_mtime for name in ("summary.json", "metrics.jsonl") if (path := folder / name).exists()]
    silence = time.time() - max(written, default=0.0)
    return "running" if silence < SILENCE_SECONDS else f"running, silent for {describe_seconds(silence)}"


def _job_of_sweep(folder: Path) -> Mapping[str, Any]:
    """Return the record that a sweep keeps of a run; empty for a run of no sweep."""
    number = re.match(r"\d{1,9}", folder.name, re.ASCII)
    job = _read(folder.parent, f"jobs/{int(number[0])}.json", []) if number else {}
    return job if job.get("folder") == folder.name else {}


def _last_error(folder: Path) -> str | None:
    """Return the error message in the log of a run that never started."""
    try:
        lines = read_within(folder, "train.log").decode(errors="replace").splitlines()
    except (OSError, ValueError):
        return None
    errors = [line.partition(" ERROR genlab: ")[2] for line in lines if " ERROR genlab: " in line]
    return errors[-1] if errors else None


def _commands(overrides: tuple[str, ...], environment: Mapping[str, Any], *, has_overrides: bool) -> tuple[str, ...]:
    lines = [line for command in _list(environment.get("commands")) if (line := _text(command)) is not None]
    resumptions = [line for line in lines if "resume=" in line]
    first = [line for line in lines if line not in resumptions][:1]
    if not first and has_overrides:  # environment.json was damaged
        first = [shlex.join(["genlab", "train", *overrides])]
    return (*first, *resumptions)


def _commit(environment: Mapping[str, Any]) -> str | None:
    git = _node(environment, "git")
    commit = _text(git.get("commit"))
    return None if commit is None else f"{commit[:7]}{'+' if git.get('is_dirty') else ''}"


def _hardware(environment: Mapping[str, Any]) -> str | None:
    """Return the device and the number of processes if several: "A CPU (AVX2), 2 processes, 1 thread each"."""
    device, threads = _text(environment.get("device")), _whole(environment.get("num_threads"))
    processes = _whole(environment.get("num_processes")) or 1
    if device is None:
        return None
    if device != "cpu":
        # Of "cuda:0 (NVIDIA H200)" the number is that of the first process alone.
        return device if processes == 1 else f"{processes} processes, {_NUMBER_OF_CARD.sub('', device)} each"
    features = _text(environment.get("cpu_capability"))  # the vector instructions that products are computed with
    parts = [(_text(environment.get("cpu")) or "cpu") + ("" if features is None else f" ({features})")]
    if processes > 1:
        parts.append(f"{processes} processes")
    if threads is not None:
        parts.append(f"{threads} thread{'' if threads == 1 else 's'}{' each' if processes > 1 else ''}")
    return ", ".join(parts)


def _nothing_in(place: Path) -> str:
    if not place.exists():
        beside = place.parent.iterdir() if place.parent.is_dir() else ()
        if guess := nearest_folder(place.name, beside):
            return f"there is no folder {place}; did you mean '{guess}'?"
    what = "no run in" if place.exists() else "no folder"
    return f"there is {what} {place}; train first, or name a run or a folder of runs"


def _node(values: Mapping[str, Any], key: str) -> Mapping[str, Any]:
    node = values.get(key)
    return node if isinstance(node, Mapping) else {}


def _list(value: Any) -> list[Any]:
    return value if isinstance(value, list) else []


def _text(value: Any) -> str | None:
    return value if isinstance(value, str) and value else None


def _whole(value: Any) -> int | None:
    # A page sorts its tables by floats, which hold no larger ones exactly.
    return value if is_number(value) and isinstance(value, int) and abs(value) <= 2**53 else None


def _number(value: Any) -> float | None:
    return float(value) if is_number(value) else None


def _last_part(target: Any) -> str | None:
    return target.rpartition(".")[2] if isinstance(target, str) else None
