"""The models under test, built from their own configurations, and a trainer without files around each."""

import functools
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from benchmarks import composed
from benchmarks.noise import noise_dataset, random_levels
from benchmarks.recorded_graph import RecordedGraphs
from genlab.config.schema import RunConfiguration
from genlab.data.dataset import Dataset
from genlab.models.base import Model
from genlab.run.record import build_model
from genlab.training.compilation import compile_networks
from genlab.training.trainer import Trainer
from genlab.types import ImageSpec

_QUIET = (
    *("trainer.validation_interval=0", "trainer.sample_interval=0", "trainer.test_at_end=false"),
    *("trainer.watch_interval=0", "trainer.num_steps=1000000"),
)


@dataclass(frozen=True, kw_only=True)
class Subject:
    """A model, by overrides of the configuration, and images of its kind."""

    overrides: tuple[str, ...]
    channels: int = 1
    side: int = 28
    num_levels: int = 256
    binarization: Any = "none"
    num_classes: int = 0

    def spec(self) -> ImageSpec:
        return noise_images(self, num_images=1).spec


def noise_images(subject: Subject, *, num_images: int = 2048) -> Dataset:
    """Return a dataset of random levels that do not repeat."""
    shape = (num_images, subject.channels, subject.side, subject.side)
    levels = random_levels(*shape, num_levels=subject.num_levels)
    return noise_dataset(
        levels, num_levels=subject.num_levels, binarization=subject.binarization, num_classes=subject.num_classes
    )


@functools.cache
def configuration_of(*overrides: str, quiet: bool = True) -> RunConfiguration:
    """Compose a run's configuration; a quiet one has no end and nothing but steps."""
    return composed.configuration_of(*overrides, *(_QUIET if quiet else ()))


def build_on(subject: Subject, device: torch.device, *overrides: str) -> Model:
    """Return the model with weights that are the same on every device."""
    configuration = configuration_of(*subject.overrides, *overrides)
    torch.manual_seed(0)
    return build_model(configuration, subject.spec()).to(device)


def trainer_of(
    subject: Subject, device: torch.device, *, captured: bool, compiled: bool = False, overrides: tuple[str, ...] = ()
) -> Trainer:
    """Return a trainer whose steps are those of ``genlab train``, with weights that are the same in every call."""
    is_cuda = device.type == "cuda"
    setting = f"trainer.cuda_graph={str(captured and is_cuda).lower()}"
    configuration = configuration_of(*subject.overrides, "trainer.precision=float32", *overrides, setting)
    graphs = RecordedGraphs() if captured and not is_cuda else None
    folder = Path(tempfile.gettempdir())
    trainer = composed.trainer_of(configuration, noise_images(subject), folder, device=device, graphs=graphs)
    trainer.state.initialize()
    if compiled:
        if is_cuda:
            compile_networks(trainer.model)
        else:  # a rehearsal of what is traced, not of what a compiler makes of it
            for module in trainer.model.compilable():
                module.compile(backend="eager")
    return trainer


def step(trainer: Trainer) -> dict[str, Tensor]:
    """Take one training step as the loop does; return its metrics."""
    trainer.metrics.take()
    trainer._training_step()
    trainer.step += 1
    return {name: values.mean() for name, values in trainer.metrics.state_dict().items()}


def weights_of(trainer: Trainer) -> list[Tensor]:
    return [value.clone() for value in trainer.model.state_dict().values() if value.is_floating_point()]


def gradients_of(trainer: Trainer) -> list[Tensor]:
    """Gradients of every phase on the first batch, from the noise of the first step, which are put aside again."""
    found: list[Tensor] = []
    batch = trainer._stream.batch(0)
    received: list[object] = []
    for update in trainer.state.updates:
        trainer._frozen_outside.enter(update)
        torch.manual_seed(2)
        _, _, received = update._collect_gradients(batch, received)
        found += [parameter.grad.clone() for parameter in update.parameters if parameter.grad is not None]
        update.optimizer.zero_grad(set_to_none=True)
        trainer._frozen_outside.leave(update)
    return found
