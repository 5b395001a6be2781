"""A trained model back from its run folder, or from what `genlab export` made of it, without its data."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import torch
from torch import Tensor

from genlab.config.devices import choose_device
from genlab.config.fields import fit
from genlab.data.dataset import Dataset
from genlab.errors import CheckpointError
from genlab.metrics.ledger import Weights
from genlab.models.base import Model
from genlab.run.checkpoint import BEST, LAST, PREVIOUS, CheckpointFolder, model_fingerprint
from genlab.run.exported import Origin, load_weights
from genlab.run.names import WEIGHTS_NAME, is_export
from genlab.run.record import SavedRun, load_run
from genlab.storage import require_writable
from genlab.training.averaging import averaged_weights
from genlab.training.fitting import require_fitting


@dataclass(frozen=True, kw_only=True)
class TrainedModel:
    """A model in evaluation mode and where its weights come from."""

    run: SavedRun
    model: Model
    checkpoint: str
    step: int
    weights: Weights


def load_trained(folder: Path, *, checkpoint: str, device: torch.device) -> TrainedModel:
    """Rebuild a model with the weights of one of its run's checkpoints; the averaged weights where they were kept.

    Args:
        folder: A run, or an export, which has the weights of one checkpoint only.
        checkpoint: ``best`` (the last where no measure chose one) or ``last``.
        device: Where the model goes.

    Raises:
        ConfigurationError: The folder is no run, or its configuration is refused.
        CheckpointError: The checkpoint does not verify, or it belongs to another model.
    """
    run = load_run(folder)
    kind: Weights
    origin: Origin | None = None
    average: Mapping[str, Tensor] | None = None
    if is_export(folder):
        weights, origin = load_weights(folder)
        name, step = origin.checkpoint, int(origin.step)
        kind = "averaged" if origin.weights == "averaged" else "trained"
    else:
        checkpoints = CheckpointFolder(folder / "checkpoints")
        # The previous one is the last one where a kill came within a save. A damaged one is refused, and no other taken
        # in its place: what is drawn or measured is said to be of the checkpoint that was asked for.
        names = (*((BEST,) if checkpoint == "best" else ()), LAST, PREVIOUS)
        name = next((name for name in names if checkpoints.has(name)), LAST)
        state = checkpoints.load(name, device=device)
        kind = "trained" if state.get("average") is None else "averaged"
        weights, average, step = state["model"], state.get("average"), state["step"]
    model = _with_weights(run, weights, average)
    if origin is not None and origin.model_fingerprint != model_fingerprint(model):
        raise CheckpointError(f"{folder / WEIGHTS_NAME} is refused: its model_fingerprint is that of another model")
    return TrainedModel(run=run, model=model.to(device).eval(), checkpoint=name, step=step, weights=kind)


def _with_weights(run: SavedRun, weights: Mapping[str, Tensor], average: Mapping[str, Tensor] | None) -> Model:
    """Return the run's model with these weights, averaged where an average was kept."""
    try:
        model = run.build_model()
        require_fitting(weights, model)
        if average is not None:
            weights = averaged_weights(weights, average, model)
    except CheckpointError as error:
        raise CheckpointError(f"{run.folder}: {error}") from error
    model.load_state_dict(weights)
    return model


def set_num_threads(num_threads: int | None, trained: TrainedModel) -> None:
    """Compute with so many threads, or where none are asked for with the run's, so that sums are rounded alike.

    Args:
        num_threads: None takes the run's, which may leave torch's choice.
        trained: Of the run.
    """
    chosen = trained.run.configuration.num_threads if num_threads is None else num_threads
    if chosen is not None:
        torch.set_num_threads(chosen)


def writable(folder: Path, out: str | None) -> Path:
    """Return the folder for what is made of a run, having looked whether it can be written: computing takes longer.

    Args:
        folder: Of the run, or in it.
        out: A folder to write to in its place.

    Raises:
        StorageError: It cannot.
    """
    chosen = folder if out is None else Path(out)
    require_writable(chosen, way_out="out=FOLDER writes elsewhere")
    return chosen


def build_dataset(run: SavedRun, *, allows_other: bool = False) -> Dataset:
    """The data that a run was trained on, read again.

    Args:
        run: Whose configuration says where they lie.
        allows_other: Take other data too, of images of the same kind.

    Raises:
        DataError: They are not at hand, or others are in their place.
    """
    dataset: Dataset = run.configuration.bound_dataset.build()
    run.require_same_data(dataset, allows_other=allows_other)
    return dataset


def load(run: str | Path, *, checkpoint: str = "best", device: str = "cpu") -> Model:
    """``genlab.load``: the trained model of a run or of an export, ready for ``sample`` and ``evaluate``.

    Args:
        run: A run folder, or one that `genlab export` wrote.
        checkpoint: ``best`` (the last where no measure chose one) or ``last``, of a run.
        device: ``auto``, ``cpu``, ``cuda``, ``cuda:N`` or ``mps``.

    Raises:
        ConfigurationError: The folder is no run, its configuration is refused, or the checkpoint or the device has a
            name that there is not.
        CheckpointError: The checkpoint does not verify, or it belongs to another model.
    """
    kind = fit(checkpoint, Literal["best", "last"], "checkpoint")
    return load_trained(Path(run), checkpoint=kind, device=choose_device(device)).model
