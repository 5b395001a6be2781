"""Runs on disk: their configuration as plain data, believed no more than one from a stranger."""

import json
import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import yaml  # type: ignore[import-untyped]
from omegaconf import OmegaConf
from omegaconf.errors import OmegaConfBaseException

from genlab.composition.composer import parse_overrides
from genlab.composition.environment import git_state
from genlab.composition.failures import one_line
from genlab.composition.fields import check_fields
from genlab.composition.plain_yaml import MAX_BYTES, require_plain
from genlab.composition.processes.worker import LAUNCHER_VARIABLE, this_worker
from genlab.composition.schema import RunConfiguration, read_run_configuration
from genlab.composition.suggestions import nearest
from genlab.composition.targets import allows_own_code
from genlab.data.dataset import Dataset
from genlab.errors import ConfigurationError
from genlab.metrics.ledger import Entry, as_json
from genlab.models.base import Model
from genlab.paths import expanded
from genlab.storage import read_within, replace_atomically, require_contained
from genlab.training.exported import is_export
from genlab.training.fitting import blueprint
from genlab.types import ImageSpec

CONFIG_NAME = "config.yaml"
EVALUATION_NAME = "evaluation.json"
LIKELIHOODS_NAME = "likelihoods.json"
SPEC_KEY = "spec"
# A convolution's weights do not tell the size of its images, so nothing else would stop a hostile one.
_RANGES_OF_SPEC = {
    "channels": (1, 64),
    "height": (1, 4096),
    "width": (1, 4096),
    "num_levels": (2, 65536),
    "num_classes": (0, 1_000_000),
}
_STARTED_NAME = ".hydra"
_RUNS_ROOT = "outputs"
_MAX_RUNS_LISTED = 5


@dataclass(frozen=True, kw_only=True)
class SavedRun:
    """A run folder's checked configuration, and what its data measured."""

    folder: Path
    configuration: RunConfiguration
    spec: ImageSpec

    def build_model(self) -> Model:
        """The model with fresh weights, made without the data.

        Raises:
            ConfigurationError: The configuration does not describe one.
        """
        return build_model(self.configuration, self.spec)

    def draft_model(self, num_bytes: int) -> Model | None:
        """The model without values (:func:`genlab.training.fitting.blueprint`), which weights of that size can be of.

        None where the user's own code may be part of it, which need not know how to be drafted.

        Raises:
            CheckpointError: It is larger.
            ConfigurationError: The configuration does not describe one.
        """
        return None if allows_own_code() else blueprint(self.build_model, num_bytes=num_bytes)


def build_model(configuration: RunConfiguration, spec: ImageSpec) -> Model:
    """The model of a configuration for images of a given kind.

    Raises:
        ConfigurationError: The target refuses a value.
    """
    model: Model = configuration.bound_model.build(spec=spec)
    return model


def load_run(folder: str | Path) -> SavedRun:
    """Read and check a run folder. Its data are read from where it says, and nothing is written there.

    Raises:
        ConfigurationError: There is no such run, or its configuration is damaged or refused.
    """
    path = find_run(folder)
    require_contained(path)
    values = read_plain_yaml(path / CONFIG_NAME)
    spec = values.pop(SPEC_KEY, None)
    if spec is None:
        raise ConfigurationError(f"{path / CONFIG_NAME} holds no {SPEC_KEY}, so the model cannot be rebuilt")
    try:
        configuration = read_run_configuration(values, is_trusted=False)
        measured = check_fields(ImageSpec, spec, SPEC_KEY)
        for name, (low, high) in _RANGES_OF_SPEC.items():
            if not low <= getattr(measured, name) <= high:
                value = getattr(measured, name)
                raise ConfigurationError(f"{SPEC_KEY}.{name} must be between {low:,} and {high:,}, got {value}")
        configuration = replace(configuration, dataset=_writing_nowhere(configuration.dataset))
        return SavedRun(folder=path, configuration=configuration, spec=measured)
    except ConfigurationError as error:
        raise ConfigurationError(f"{path / CONFIG_NAME}: {error}") from error


def _writing_nowhere(dataset: Mapping[str, Any]) -> dict[str, Any]:
    """The node of one of our data sets with no folder to write to but the user's own; what is read stays the same.

    A run from a stranger would otherwise have images decoded, or data downloaded, to wherever its maker likes.
    """
    ours = dict(dataset)
    if str(ours.get("_target_")).startswith("genlab."):
        ours |= {"cache": None} if "cache" in ours else {}
        ours |= {"download": False} if "download" in ours and ours.get("root") is not None else {}
    return ours


def save_configuration(folder: Path, configuration: RunConfiguration, spec: ImageSpec) -> None:
    """Write config.yaml: resolved and complete, so that the model can be rebuilt without the data."""
    values = configuration.as_dict()
    text = yaml.safe_dump({**values, "resume": None, SPEC_KEY: asdict(spec)}, sort_keys=False, allow_unicode=True)
    replace_atomically(folder / CONFIG_NAME, text.encode())


def save_evaluation(
    folder: Path,
    *,
    command: str,
    checkpoint: str,
    step: int,
    dataset: Dataset,
    measures: Sequence[Entry],
    baselines: Sequence[Entry],
    classifier: Mapping[str, Any] | None = None,
) -> Path:
    """Write evaluation.json: the ledger of the newest test or evaluation, in place of the one before.

    Args:
        folder: The run.
        command: The line that measured.
        checkpoint: File name of the weights.
        step: Of the weights.
        dataset: What was measured on.
        measures: Of the model.
        baselines: Of what needs no model.
        classifier: What is known of the classifier whose features were used.
    """
    record = {
        "command": command,
        "git": git_state(),
        "checkpoint": checkpoint,
        "step": step,
        "provenance": dataset.provenance,
        "classifier": classifier,
        "measures": as_json(measures),
        "baselines": as_json(baselines),
    }
    return _save_record(folder / EVALUATION_NAME, record)


def save_likelihoods(folder: Path, *, command: str, record: Mapping[str, Any]) -> Path:
    """Write likelihoods.json: of the images that were given last, in place of those before.

    Args:
        folder: The run.
        command: The line that measured.
        record: What was measured, and how.
    """
    return _save_record(folder / LIKELIHOODS_NAME, {"command": command, "git": git_state(), **record})


def _save_record(path: Path, record: Mapping[str, Any]) -> Path:
    replace_atomically(path, f"{json.dumps(record, indent=1)}\n".encode())
    return path


def resumed(run: SavedRun, overrides: Sequence[str]) -> RunConfiguration:
    """A run's own configuration with what may change on its way: ``trainer.*``, ``device`` and ``num_threads``.

    How many processes there are belongs to a start and not to a run: torchrun says it where it started them, and not
    the line of a start before.

    Args:
        run: The run to go on from.
        overrides: The command line, without Hydra's own keys.

    Raises:
        ConfigurationError: An override is of something else, or does not fit.
    """
    if is_export(run.folder):
        raise ConfigurationError(f"resume must be a training run, got {run.folder}, an export, which cannot go on")
    saved = run.configuration
    values = saved.as_dict()
    values["trainer"] = dict(saved.trainer)
    values["resume"] = str(run.folder)
    if this_worker() is not None and LAUNCHER_VARIABLE not in os.environ:
        values["trainer"]["devices"] = 1
    changed = set()
    for override in parse_overrides(overrides):
        key = override.key_or_group
        parent, _, name = key.rpartition(".")
        if key == "resume":
            continue
        if (
            override.is_delete()
            or override.is_sweep_override()
            or not (parent == "trainer" or key in ("device", "num_threads"))
        ):
            raise ConfigurationError(
                f"{key} cannot change on resume, which takes trainer.KEY, device and num_threads; "
                "for anything else start a new run"
            )
        (values["trainer"] if parent else values)[name] = override.value()
        changed.add(key)
    if values["trainer"].get("devices") == 1 and "trainer.max_restarts" not in changed:
        values["trainer"]["max_restarts"] = 0  # one process has none beside it that would notice its death
    return read_run_configuration(values, is_trusted=False)


def find_run(folder: str | Path) -> Path:
    """The path of an existing run folder.

    Raises:
        ConfigurationError: There is none; the message names those with the nearest names.
    """
    folder = expanded(str(folder), "run")
    path = Path(folder)
    if (path / CONFIG_NAME).is_file():
        return path
    if (path / _STARTED_NAME).is_dir():
        raise ConfigurationError(f"the run in {folder} ended before it began (no {CONFIG_NAME}): give its line again")
    known = {str(run): run for run in runs_under(Path(_RUNS_ROOT))}
    guess = nearest(folder, known) or _nearest_by_name(path.name, known)
    if guess:
        raise ConfigurationError(f"there is no run in {folder}; did you mean '{guess}'?")
    newest = sorted(known, key=lambda name: known[name].stat().st_mtime, reverse=True)[:_MAX_RUNS_LISTED]
    listed = f"the newest runs: {', '.join(newest)}" if newest else f"no runs in {_RUNS_ROOT}/ either"
    place = "this folder" if path == Path() else folder  # `run=` names none
    raise ConfigurationError(f"there is no run in {place} (no {CONFIG_NAME}); {listed}")


def runs_under(root: Path) -> Iterator[Path]:
    """Every run folder at or below a folder, sorted; without exports."""
    for path in sorted(root.rglob(CONFIG_NAME)):
        if path.parent.name != ".hydra" and not is_export(path.parent):
            yield path.parent


def read_plain_yaml(path: Path) -> dict[str, Any]:
    """A YAML mapping without anchors, tags or interpolations, of limited size.

    Raises:
        ConfigurationError: It is none.
    """
    try:
        text = read_within(path.parent, path.name, limit=MAX_BYTES).decode()
        require_plain(text)
        values = OmegaConf.to_container(OmegaConf.create(text), resolve=False)
    except (OSError, ValueError, yaml.YAMLError, OmegaConfBaseException, RecursionError) as error:
        raise ConfigurationError(f"{path} cannot be used: {one_line(str(error))}") from error
    if not isinstance(values, dict):
        raise ConfigurationError(f"{path} must hold keys and values")
    _refuse_interpolations(values, str(path))
    return {str(key): value for key, value in values.items()}


def _refuse_interpolations(value: Any, where: str) -> None:
    if isinstance(value, str) and "${" in value:
        raise ConfigurationError(f"{where} must be resolved, got {value}")
    if isinstance(value, Mapping):
        for name, item in value.items():
            _refuse_interpolations(item, f"{where}: {name}")
    elif isinstance(value, list):
        for item in value:
            _refuse_interpolations(item, where)


def _nearest_by_name(name: str, known: Mapping[str, Path]) -> str | None:
    guess = nearest(name, [path.name for path in known.values()])
    return next((text for text, path in known.items() if path.name == guess), None)
