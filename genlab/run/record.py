"""Runs on disk: their configuration as plain data, which is untrusted."""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import yaml  # type: ignore[import-untyped]

from genlab.config.build import TARGET, Bound
from genlab.config.fields import check_fields, fit
from genlab.config.plain_yaml import read_plain
from genlab.config.schema import RunConfiguration, read_run_configuration
from genlab.data.dataset import Dataset
from genlab.errors import ConfigurationError, DataError, StorageError
from genlab.metrics.ledger import Entry, as_json
from genlab.metrics.quality_settings import DOWNLOADED
from genlab.models.base import Model
from genlab.paths import absolute
from genlab.printing import one_line
from genlab.run.environment import git_state
from genlab.run.formats import CONFIG_FORMAT, FORMAT_KEY, newer_format
from genlab.run.names import CONFIG_NAME, find_run
from genlab.storage import json_bytes, replace_atomically, require_contained
from genlab.types import ImageSpec

EVALUATION_NAME = "evaluation.json"
LIKELIHOODS_NAME = "likelihoods.json"
SPEC_KEY = "spec"
FINGERPRINT_KEY = "dataset_fingerprint"
_LEAST_OF_SPEC = {"channels": 1, "height": 1, "width": 1, "num_levels": 2, "num_classes": 0}
_DIGITS_SHOWN = 12
ROOT_KEY = "dataset.root"
_PATHS_OF_DATA = ("root", "cache")


@dataclass(frozen=True, kw_only=True)
class SavedRun:
    """A run folder's checked configuration, and the measured facts of its data."""

    folder: Path
    configuration: RunConfiguration
    spec: ImageSpec
    dataset_fingerprint: str | None
    """Fingerprint of the data that it was trained on; None if an older version did not record it."""

    def require_same_data(self, dataset: Dataset, *, allows_other: bool) -> None:
        """Refuse other data than those of training.

        Args:
            dataset: Read by the run's configuration, perhaps from another place.
            allows_other: Take others too, of images of the same kind.

        Raises:
            DataError: They are not those of training.
        """
        if dataset.spec != self.spec:
            raise DataError(
                f"dataset {dataset.name} must hold {_described(self.spec)}, as in training, got "
                f"{_described(dataset.spec)}"
            )
        if allows_other or self.dataset_fingerprint in (None, dataset.fingerprint):
            return
        raise DataError(
            f"dataset {dataset.name} must deliver the data of training, whose fingerprint is "
            f"{str(self.dataset_fingerprint)[:_DIGITS_SHOWN]}, got {dataset.fingerprint[:_DIGITS_SHOWN]}; "
            "dataset.root=FOLDER names the folder that holds them now, allow_other_data=true takes these"
        )


def build_model(configuration: RunConfiguration, spec: ImageSpec) -> Model:
    """Return the model of a configuration for images of a given kind: with new weights, made without the data.

    Raises:
        ConfigurationError: The target refuses a value.
    """
    model: Model = configuration.bound_model.build(spec=spec)
    return model


def load_run(folder: str | Path) -> SavedRun:
    """Read and check a run folder. Its data are read from the folder that it names, which is not written to.

    Raises:
        ConfigurationError: There is no such run, or its configuration is damaged, refused or of a newer format.
        StorageError: The configuration must not be read.
    """
    path = find_run(folder)
    require_contained(path)
    try:
        values = read_plain(path, CONFIG_NAME)
    except PermissionError as error:
        raise StorageError(f"{path / CONFIG_NAME} cannot be read: {error.strerror}") from error
    except (OSError, ValueError) as error:
        raise ConfigurationError(f"{path / CONFIG_NAME} cannot be used: {one_line(str(error))}") from error
    if told := newer_format(path / CONFIG_NAME, values.pop(FORMAT_KEY, None), CONFIG_FORMAT):
        raise ConfigurationError(told)
    spec, fingerprint = values.pop(SPEC_KEY, None), values.pop(FINGERPRINT_KEY, None)
    if spec is None:
        raise ConfigurationError(f"{path / CONFIG_NAME} holds no {SPEC_KEY}, so the model cannot be rebuilt")
    try:
        configuration = read_run_configuration(values, is_trusted=False)
        measured = check_fields(ImageSpec, spec, SPEC_KEY)
        for name, least in _LEAST_OF_SPEC.items():
            if (value := getattr(measured, name)) < least:
                raise ConfigurationError(f"{SPEC_KEY}.{name} must be at least {least}, got {value}")
        if (node := _writing_nowhere(configuration.dataset)) != configuration.dataset:
            configuration = configuration.changed(dataset=node)
        fingerprint = fit(fingerprint, str | None, FINGERPRINT_KEY)
        return SavedRun(folder=path, configuration=configuration, spec=measured, dataset_fingerprint=fingerprint)
    except ConfigurationError as error:
        raise ConfigurationError(f"{path / CONFIG_NAME}: {error}") from error


def _writing_nowhere(dataset: Mapping[str, Any]) -> dict[str, Any]:
    """Return the node of a data set that reads the same files and writes only to the user's own folders.

    An untrusted run could otherwise decode images, or download data, to any folder.
    """
    ours = dict(dataset)
    if str(ours.get(TARGET)).startswith("genlab."):
        if "cache" in ours:
            ours["cache"] = None
        if "download" in ours and ours.get("root") is not None:
            ours["download"] = False
    return ours


def save_configuration(
    folder: Path, configuration: RunConfiguration, spec: ImageSpec, *, dataset_fingerprint: str | None
) -> None:
    """Write config.yaml: resolved and complete, so that the model can be rebuilt without the data."""
    values = {**configuration.as_dict(), "resume": None, "allow_other_data": False}
    if (resumed := configuration.saved_run) is not None:
        values["logger"] = resumed.configuration.logger  # those that this start leaves out too
    measured = {SPEC_KEY: asdict(spec), FINGERPRINT_KEY: dataset_fingerprint}
    text = yaml.safe_dump({FORMAT_KEY: CONFIG_FORMAT, **values, **measured}, sort_keys=False, allow_unicode=True)
    replace_atomically(folder / CONFIG_NAME, text.encode())


def with_absolute_paths(configuration: RunConfiguration) -> RunConfiguration:
    """Return a configuration whose paths mean the same from any working directory.

    They are ``root`` and ``cache`` of the data, what a data set's or a model's signature annotates as a ``Path``, and
    the runs of ``trainer.watch_classifier`` and ``init_from``.

    Raises:
        ConfigurationError: There is no such run.
    """
    nodes = {
        "dataset": _absolute(configuration.dataset, configuration.bound_dataset, names=_PATHS_OF_DATA),
        "model": _absolute(configuration.model, configuration.bound_model, names=()),
        "trainer": dict(configuration.trainer),
    }
    watched, is_watched = configuration.settings.watch_classifier, configuration.settings.watch_interval > 0
    if watched not in (None, "auto"):
        found = find_run(watched) if is_watched else Path(watched)
        nodes["trainer"]["watch_classifier"] = str(absolute(found))
    quality = configuration.quality
    if quality is not None and quality["inception_weights"] not in (None, DOWNLOADED):
        nodes["quality"] = {**quality, "inception_weights": str(absolute(quality["inception_weights"]))}
    changed = {name: node for name, node in nodes.items() if node != getattr(configuration, name)}
    if configuration.init_from is not None and configuration.resume is None:
        changed["init_from"] = str(absolute(find_run(configuration.init_from)))
    return configuration.changed(**changed) if changed else configuration


def _absolute(value: Any, bound: Any, *, names: Collection[str], name: str = "") -> Any:
    """Return plain data with absolute paths, which are recognised by the annotations that they were bound to."""
    if isinstance(bound, Bound):
        return {**value, **_absolute({key: value[key] for key in bound.arguments}, bound.arguments, names=names)}
    if isinstance(bound, Mapping):
        return {key: _absolute(value[key], item, names=names, name=str(key)) for key, item in bound.items()}
    if isinstance(bound, list):
        return [_absolute(*pair, names=names, name=name) for pair in zip(value, bound, strict=True)]
    is_path = isinstance(bound, Path) or (isinstance(bound, str) and bound != "" and name in names)
    return str(absolute(bound)) if is_path else value


def require_root_alone(dataset: Mapping[str, object]) -> None:
    """Refuse changes of a trained run's data, except of their folder.

    Raises:
        ConfigurationError: As said.
    """
    for name in dataset:
        if name != "root":
            raise ConfigurationError(f"dataset.{name} must be that of the run; {ROOT_KEY} alone can be another")


def moved(run: SavedRun, root: str | None) -> SavedRun:
    """Return a run with the folder of its data changed.

    Args:
        run: Of data that lie in a folder.
        root: The folder; None if it did not change.

    Raises:
        ConfigurationError: Its data set has no folder.
    """
    if root is None:
        return run
    if "root" not in run.configuration.dataset:
        target = run.configuration.dataset[TARGET]
        raise ConfigurationError(f"{ROOT_KEY} must be null for a run of {target}, which reads no folder, got {root}")
    dataset = {**run.configuration.dataset, "root": str(absolute(root))}
    return replace(run, configuration=run.configuration.changed(dataset=dataset))


def evaluation_name(*splits: str) -> str:
    """Return the file name of a ledger of some splits: evaluation.json is of test images alone."""
    other = next((split for split in splits if split != "test"), None)
    return EVALUATION_NAME if other is None else f"evaluation_{other}.json"


def save_evaluation(
    folder: Path,
    *,
    name: str = EVALUATION_NAME,
    command: str,
    checkpoint: str | None,
    step: int | None,
    provenance: str,
    measures: Sequence[Entry],
    baselines: Sequence[Entry],
    classifier: Mapping[str, Any] | None = None,
    samples: Mapping[str, Any] | None = None,
) -> Path:
    """Write the ledger of the newest test or evaluation, which replaces the previous one of the same name.

    Args:
        folder: The run, or another, which is made if need be.
        name: Of :func:`evaluation_name`.
        command: The command line of the evaluation.
        checkpoint: File name of the weights; None for samples of another program.
        step: Of the weights.
        provenance: One line about the data that were measured.
        measures: Of the model.
        baselines: Measures that need no model.
        classifier: Description of the classifier whose features were used.
        samples: Description of the samples, where they are not those of the run.
    """
    record = {
        "command": command,
        "git": git_state(),
        "checkpoint": checkpoint,
        "step": step,
        "provenance": provenance,
        "classifier": classifier,
        **({} if samples is None else {"samples": samples}),
        "measures": as_json(measures),
        "baselines": as_json(baselines),
    }
    return _save_record(folder / name, record)


def save_likelihoods(folder: Path, *, command: str, record: Mapping[str, Any]) -> Path:
    """Write likelihoods.json for the last given images, in place of the previous ones.

    Args:
        folder: The run, or another, which is made if need be.
        command: The command line that measured.
        record: The measures and their settings.
    """
    return _save_record(folder / LIKELIHOODS_NAME, {"command": command, "git": git_state(), **record})


def _save_record(path: Path, record: Mapping[str, Any]) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    replace_atomically(path, json_bytes(record) + b"\n")
    return path


def _described(spec: ImageSpec) -> str:
    size = f"{spec.channels}x{spec.height}x{spec.width}"
    return f"images of {size} with {spec.num_levels} levels and {spec.num_classes} classes"
