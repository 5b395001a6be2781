"""The weights that a run or an export is loaded with: those of which checkpoint, and the average where there is one."""

from pathlib import Path
from typing import Literal

import pytest
import torch

from genlab.config.schema import RunConfiguration
from genlab.errors import CheckpointError
from genlab.run.checkpoint import BEST, LAST, PREVIOUS, CheckpointFolder, model_fingerprint
from genlab.run.exported import Origin, save_weights
from genlab.run.loading import load_trained
from genlab.run.record import build_model
from tests.run.conftest import SPEC

CPU = torch.device("cpu")


def save(folder: Path, configuration: RunConfiguration, step: int, *, has_average: bool = False) -> CheckpointFolder:
    """Save weights that are all equal to the step, and an average that is half a step ahead."""
    model = build_model(configuration, SPEC)
    weights = {name: torch.full_like(value, step) for name, value in model.state_dict().items()}
    average = {name: torch.full_like(value, step + 0.5) for name, value in model.named_parameters()}
    checkpoints = CheckpointFolder(folder / "checkpoints")
    checkpoints.prepare()
    checkpoints.save_last({"model": weights, "average": average if has_average else None}, step=step)
    return checkpoints


def loaded(folder: Path, checkpoint: str) -> tuple[str, int, str, set[float]]:
    trained = load_trained(folder, checkpoint=checkpoint, device=CPU)
    assert not trained.model.training
    values = {value for parameter in trained.model.parameters() for value in parameter.flatten().tolist()}
    return trained.checkpoint, trained.step, trained.weights, values


def test_the_best_checkpoint_is_the_last_where_there_is_none_and_the_previous_stands_for_the_last(
    run_folder: Path, configuration: RunConfiguration
) -> None:
    save(run_folder, configuration, 1)
    assert loaded(run_folder, "best") == loaded(run_folder, "last") == (LAST, 1, "trained", {1.0})
    save(run_folder, configuration, 2).save_best()
    save(run_folder, configuration, 3)
    assert loaded(run_folder, "best") == (BEST, 2, "trained", {2.0})
    assert loaded(run_folder, "last") == (LAST, 3, "trained", {3.0})
    (run_folder / "checkpoints" / LAST).unlink()
    assert loaded(run_folder, "last") == (PREVIOUS, 2, "trained", {2.0})


def test_the_average_is_loaded_where_there_is_one(run_folder: Path, configuration: RunConfiguration) -> None:
    save(run_folder, configuration, 1, has_average=True)
    assert loaded(run_folder, "last") == (LAST, 1, "averaged", {1.5})


@pytest.mark.parametrize("weights", ["averaged", "trained"])
def test_an_export_says_which_weights_it_holds_and_of_which_model(
    run_folder: Path, configuration: RunConfiguration, weights: Literal["averaged", "trained"]
) -> None:
    model = build_model(configuration, SPEC)
    for fingerprint in (model_fingerprint(model), "0" * 64):
        origin = Origin(step="7", checkpoint=BEST, weights=weights, model_fingerprint=fingerprint)
        save_weights(run_folder, model.state_dict(), origin)
        if fingerprint == "0" * 64:
            with pytest.raises(CheckpointError, match="its model_fingerprint is that of another model"):
                loaded(run_folder, "best")
        else:
            assert loaded(run_folder, "best")[:3] == (BEST, 7, weights)
