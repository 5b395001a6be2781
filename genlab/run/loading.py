"""Loading of a trained model from its run folder or from an export, without its data."""

import hashlib
import logging
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from os import PathLike
from pathlib import Path
from typing import Any, Literal, TypeVar, overload

import torch
from torch import Tensor

from genlab.config.devices import choose_device
from genlab.config.fields import fit
from genlab.data.dataset import Dataset
from genlab.errors import CheckpointError, ConfigurationError
from genlab.metrics.ledger import Weights
from genlab.models.base import GenerativeModel, Model
from genlab.numerics import own_arithmetic
from genlab.paths import from_here
from genlab.printing import printable
from genlab.run.checkpoint import BEST, LAST, PREVIOUS, CheckpointFolder, model_fingerprint
from genlab.run.exported import Origin, load_weights
from genlab.run.folder import is_dry_run, read_summary, require_free, resume_command
from genlab.run.names import WEIGHTS_NAME, is_export
from genlab.run.pretrained import outside
from genlab.run.record import SavedRun, build_model, load_run
from genlab.storage import require_writable
from genlab.training.averaging import averaged_weights
from genlab.training.compatibility import compatible_part, require_compatible

_log = logging.getLogger(__name__)

_Kind = TypeVar("_Kind", bound=Model)


@dataclass(frozen=True, kw_only=True)
class TrainedModel:
    """A model in evaluation mode, and the origin of its weights."""

    run: SavedRun
    model: Model
    checkpoint: str
    step: int
    weights: Weights

    @property
    def origin(self) -> dict[str, Any]:
        """The origin of the weights, for a record."""
        return {"checkpoint": self.checkpoint, "step": self.step, "weights": self.weights}

    def __str__(self) -> str:
        return f"{self.checkpoint} of step {self.step}, {self.weights} weights"


def load_trained(folder: Path, *, checkpoint: str, device: torch.device) -> TrainedModel:
    """Rebuild a model with the weights of a checkpoint, averaged if the run kept an average.

    Args:
        folder: A run, or an export, which contains the weights of one checkpoint.
        checkpoint: ``best`` (the last where no measure chose one) or ``last``.
        device: Where the model goes.

    Raises:
        ConfigurationError: The folder is no run, or its configuration is refused.
        CheckpointError: The checkpoint does not verify, or it belongs to another model.
        FolderInUseError: There is none yet, and the run is being trained.
    """
    run = load_run(folder)
    folder = run.folder
    kind: Weights
    origin: Origin | None = None
    average: Mapping[str, Tensor] | None = None
    if is_export(folder):
        weights, origin = load_weights(folder)
        name, step = origin.checkpoint, int(origin.step)
        kind = "averaged" if origin.weights == "averaged" else "trained"
    else:
        checkpoints = CheckpointFolder(folder / "checkpoints")
        # The previous one is the last one if a kill came within a save. A damaged one is refused and not replaced by
        # another: samples and measures must be of the requested checkpoint.
        names = (*((BEST,) if checkpoint == "best" else ()), LAST, PREVIOUS)
        found = [name for name in names if checkpoints.has(name)]
        if not found and (folder / "summary.json").exists():
            require_free(folder)  # a training that has yet to save
            summary = read_summary(folder)
            if summary.get("status") == "diverged":  # as it would again
                raise CheckpointError(f"{folder} diverged: {printable(str(summary.get('reason')))}")
            change = " trainer.dry_run=false" if is_dry_run(folder) else ""
            raise CheckpointError(f"{folder} has no checkpoint; to train it: {resume_command(folder)}{change}")
        name = found[0] if found else LAST
        state = checkpoints.load(name, device=device)
        kind = "trained" if state.get("average") is None else "averaged"
        weights, average, step = state["model"], state.get("average"), state["step"]
    model = _with_weights(run, weights, average)
    if origin is not None and origin.model_fingerprint != model_fingerprint(model):
        raise CheckpointError(f"{folder / WEIGHTS_NAME} is refused: its model_fingerprint is that of another model")
    return TrainedModel(run=run, model=model.to(device).eval(), checkpoint=name, step=step, weights=kind)


def _with_weights(run: SavedRun, weights: Mapping[str, Tensor], average: Mapping[str, Tensor] | None) -> Model:
    """Return the run's model with these weights, averaged if the run kept an average."""
    try:
        # The initial weights are replaced: what the caller has seeded draws the same after it.
        with torch.random.fork_rng(devices=[]), own_arithmetic():
            model = build_model(run.configuration, run.spec)
        require_compatible(weights, model)
        if average is not None:
            weights = averaged_weights(weights, average, model)
    except CheckpointError as error:
        raise CheckpointError(f"{run.folder}: {error}") from error
    model.load_state_dict(weights)
    return model


def initial_weights(
    folder: Path, model: Model, *, device: torch.device
) -> tuple[Mapping[str, Tensor], Mapping[str, Any]]:
    """Return the weights of a run's best checkpoint that are compatible with a model, and log the others.

    Args:
        folder: A run or an export; nothing is written there.
        model: Of the new run.
        device: Where the weights go.

    Returns:
        The compatible weights by name; and their origin with the names of the others, for environment.json.

    Raises:
        ConfigurationError: The run is of a model of another family, or no weight is compatible.
        CheckpointError: The checkpoint does not verify, or does not fit its own run.
    """
    trained = load_trained(folder, checkpoint="best", device=device)
    if not _family(model) & _family(trained.model):
        raise ConfigurationError(
            f"init_from must be a run of the family of {type(model).__name__}, got {from_here(folder)}, a run of "
            f"{type(trained.model).__name__}: choose its model= or another run"
        )
    compatible, others = compatible_part(trained.model.state_dict(), model)
    if not compatible:
        raise ConfigurationError(
            f"init_from must be a run with compatible weights, got {from_here(folder)}, a run of "
            f"{type(trained.model).__name__} without a tensor of the same name and shape: choose another run"
        )
    place = f"{printable(str(from_here(folder)))} ({trained})"
    rest = f"; these are not, and get new initial values: {printable(', '.join(others))}" if others else ""
    _log.info("init_from: %d tensors of %s are compatible%s", len(compatible), place, rest)
    return compatible, {"run": str(folder), **trained.origin, "num_tensors": len(compatible), "not_fitting": others}


def _family(model: Model) -> set[type]:
    """Return the classes of a model except those of every model and its capabilities, which families share."""
    return {each for each in type(model).__mro__ if issubclass(each, Model)} - set(GenerativeModel.__mro__)


def weights_id(model: Model) -> str:
    """Return eight hex digits of the SHA-256 of a model's weights."""
    digest = hashlib.sha256()
    for name, value in sorted(model.state_dict().items()):
        digest.update(name.encode())
        digest.update(value.detach().cpu().contiguous().flatten().view(torch.uint8).numpy().data)
    return digest.hexdigest()[:8]


def set_num_threads(num_threads: int | None, trained: TrainedModel) -> None:
    """Set the number of threads, by default that of the run, so that sums are rounded alike.

    Args:
        num_threads: None takes the run's, which may be torch's default.
        trained: Of the run.
    """
    chosen = trained.run.configuration.threads if num_threads is None else num_threads
    if chosen is not None:
        torch.set_num_threads(chosen)


def writable(folder: Path, out: str | None) -> Path:
    """Return the folder for the outputs of a command on a run, after checking that it can be written.

    Args:
        folder: Of the run, or in it.
        out: A folder to write to in its place.

    Raises:
        StorageError: It cannot.
    """
    chosen = outside(folder) if out is None else Path(out)
    require_writable(chosen)
    return chosen


def build_dataset(run: SavedRun, *, allows_other: bool = False) -> Dataset:
    """Return the data set that a run was trained on.

    Args:
        run: The run, whose configuration names their folder.
        allows_other: Take other data too, of images of the same kind.

    Raises:
        DataError: They are missing, or differ from those of the run.
    """
    dataset: Dataset = run.configuration.bound_dataset.build()
    run.require_same_data(dataset, allows_other=allows_other)
    return dataset


@overload
def load(
    run: str | PathLike[str], *, checkpoint: str = "best", device: str | torch.device = "cpu"
) -> GenerativeModel: ...


@overload
def load(
    run: str | PathLike[str], *, kind: type[_Kind], checkpoint: str = "best", device: str | torch.device = "cpu"
) -> _Kind: ...


def load(
    run: str | PathLike[str],
    *,
    kind: type[Model] = GenerativeModel,
    checkpoint: str = "best",
    device: str | torch.device = "cpu",
) -> Model:
    """Return the trained model of a run or of an export, ready for ``sample`` and ``evaluate``.

    Args:
        run: A run folder, or one that `genlab export` wrote, or the name of either or of a pretrained model; or a
            :class:`genlab.Run`.
        kind: The class of the model, for a classifier or for the type checker: ``kind=DRAW``.
        checkpoint: ``best`` (the last where no measure chose one) or ``last``, of a run.
        device: ``auto``, ``cpu``, ``cuda``, ``cuda:N`` or ``mps``.

    Raises:
        ConfigurationError: The folder is no run, its configuration is refused, the model is of another kind, or the
            checkpoint or the device has a name that there is not.
        CheckpointError: The checkpoint does not verify, or it belongs to another model.
        FolderInUseError: The run is being trained, and has no checkpoint yet.
        StorageError: A file cannot be read.
    """
    chosen = fit(checkpoint, Literal["best", "last"], "checkpoint")
    model = load_trained(Path(run), checkpoint=chosen, device=choose_device(str(device))).model
    if not isinstance(model, kind):
        name, place = type(model).__name__, type(model).__module__
        package = place.rpartition(".")[0]
        public = package if name in getattr(sys.modules.get(package), "__all__", ()) else place
        raise ConfigurationError(
            f"kind must be {name}, the model of {from_here(Path(run))}, or a base of it, got {kind.__name__}; "
            f"from {public} import {name}, and genlab.load(..., kind={name}) returns it"
        )
    return model
