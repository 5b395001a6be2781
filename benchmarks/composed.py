"""Configurations and trainers as `genlab train` makes them."""

from pathlib import Path
from typing import Any

import torch

from genlab.config.compose import open_composer, plain
from genlab.config.naming import register_resolvers
from genlab.config.schema import RunConfiguration, read_run_configuration
from genlab.data.dataset import Dataset
from genlab.graphs import CudaGraphs
from genlab.run.record import build_model
from genlab.training.trainer import Trainer


def values_of(*overrides: str) -> dict[str, Any]:
    """Return the resolved configuration of `genlab train OVERRIDES`."""
    register_resolvers()
    with open_composer("train", config_dir=None) as composer:
        return plain(composer.compose([*overrides]))


def configuration_of(*overrides: str) -> RunConfiguration:
    """Return the same, checked and bound."""
    return read_run_configuration(values_of(*overrides))


def trainer_of(
    configuration: RunConfiguration,
    dataset: Dataset,
    folder: Path,
    *,
    device: torch.device,
    graphs: CudaGraphs | None = None,
) -> Trainer:
    """Return the trainer of a run, with weights that are the same in every call."""
    torch.manual_seed(0)
    model = build_model(configuration, dataset.spec)
    return Trainer(
        model=model,
        dataset=dataset,
        optimizers={phase.name: configuration.bound_optimizer(phase.name).factory() for phase in model.phases()},
        schedule=configuration.bound_schedule,
        settings=configuration.settings,
        run_folder=folder,
        device=device,
        seed=0,
        hyperparameters={},
        graphs=graphs,
    )
