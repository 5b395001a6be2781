"""A small two-phase model with every kind of state a run must keep: batch norm, dropout noise, two optimisers."""

import functools
from collections.abc import Callable, Mapping
from dataclasses import asdict
from pathlib import Path
from types import MappingProxyType
from typing import Any

import pytest
import torch
from torch import nn
from torch.nn import functional as F
from torch.optim.lr_scheduler import LambdaLR

from genlab.checks.training import TINY_SETTINGS
from genlab.data.dataset import SPLITS, Dataset
from genlab.data.preparation import Preparation, RawDataset
from genlab.data.store import Store
from genlab.graphs import CudaGraphs
from genlab.models.base import GenerativeModel
from genlab.training.collapse import ClassPredictor
from genlab.training.observer import ObserverFactory
from genlab.training.optimization import OptimizerFactory
from genlab.training.settings import TrainerSettings
from genlab.training.trainer import Trainer
from genlab.types import UNLABELLED, Batch, Loss, Phase


class TinyGAN(GenerativeModel):
    selection_measure = "gap_nats"

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(5)
        self.generator = nn.Sequential(nn.Linear(3, 16), nn.BatchNorm1d(16), nn.ReLU(), nn.Linear(16, 16))
        self.discriminator = nn.Sequential(nn.Linear(16, 16), nn.Dropout(0.3), nn.LeakyReLU(0.2), nn.Linear(16, 1))

    def phases(self) -> tuple[Phase, ...]:
        return (
            Phase(name="discriminator", modules=(self.discriminator,), loss=self.discriminator_loss, repeats=2),
            Phase(name="generator", modules=(self.generator,), loss=self.generator_loss),
        )

    def fakes(self, num: int) -> torch.Tensor:
        return self.generator(torch.randn(num, 3))

    def discriminator_loss(self, batch: Batch) -> Loss:
        real = self.discriminator(batch.images.flatten(1))
        fake = self.discriminator(self.fakes(len(batch.images)))
        value = F.softplus(-real).mean() + F.softplus(fake).mean()
        return Loss(value=value, metrics={"adversarial_nats": value})

    def generator_loss(self, batch: Batch) -> Loss:
        value = F.softplus(-self.discriminator(self.fakes(len(batch.images)))).mean()
        return Loss(value=value, metrics={"adversarial_nats": value})

    def evaluate(self, batch: Batch) -> dict[str, torch.Tensor]:
        return {"gap_nats": F.softplus(-self.discriminator(batch.images.flatten(1)))[:, 0]}

    def sample(self, num_samples, *, labels=None, generator=None):
        return torch.sigmoid(self.generator(torch.randn(num_samples, 3, generator=generator))).view(-1, 1, 4, 4)

    def visualize(self, batch, *, num_samples, generator=None):
        return {"samples": self.sample(num_samples, generator=generator)}


class PoisonOnce(TinyGAN):
    """The discriminator's loss is infinite in some of its updates, which a tensor counts."""

    def __init__(self, *bad_updates: int, device: str = "cpu") -> None:
        super().__init__()
        self.update = torch.zeros((), dtype=torch.long, device=device)
        self.factor = torch.ones(200, device=device)
        self.factor[list(bad_updates)] = torch.inf

    def discriminator_loss(self, batch: Batch) -> Loss:
        loss = super().discriminator_loss(batch)
        factor = self.factor.index_select(0, self.update.reshape(1)).squeeze(0)
        self.update += 1
        return Loss(value=factor * loss.value, metrics=loss.metrics)


def make_dataset(
    *, num_images: int = 37, binarization: Any = "stochastic", num_labels_per_class: int | None = None
) -> Dataset:
    """Noise; in two classes where labels are asked for."""
    levels = torch.randint(0, 5, (num_images, 1, 4, 4), dtype=torch.uint8, generator=torch.Generator().manual_seed(1))
    labels = torch.arange(num_images) % 2 if num_labels_per_class else torch.full((num_images,), UNLABELLED)
    raw = RawDataset(
        name="noise",
        stores={split: Store(levels, labels) for split in SPLITS},
        num_levels=5,
        class_names=("even", "odd") if num_labels_per_class else (),
        source="noise",
    )
    return Preparation(
        binarization=binarization,
        threshold=0.5,
        classes=None,
        num_labels_per_class=num_labels_per_class,
        label_seed=0,
    ).apply(raw)


DEFAULTS: dict[str, Any] = asdict(TINY_SETTINGS) | {
    "num_steps": 20,
    "batch_size": 8,
    "log_interval": 3,
    "validation_interval": 5,
    "checkpoint_interval": 4,
    "watch_images": 16,
    "test_at_end": True,
}


def make_settings(**changes: Any) -> TrainerSettings:
    return TrainerSettings(**(DEFAULTS | changes))


def cosine(optimizer: torch.optim.Optimizer, *, num_steps: int) -> LambdaLR:
    return LambdaLR(optimizer, lambda step: 1 - step / (num_steps + 1))


def make_trainer(
    folder: Path,
    model: nn.Module | None = None,
    lr: float = 1e-2,
    dataset: Dataset | None = None,
    class_predictor: ClassPredictor | None = None,
    observers: Mapping[str, ObserverFactory] = MappingProxyType({}),
    optimizer: OptimizerFactory | None = None,
    graphs: CudaGraphs | None = None,
    device: str = "cpu",
    **changes: Any,
) -> Trainer:
    model = model if model is not None else TinyGAN()
    optimizer = optimizer or functools.partial(torch.optim.Adam, lr=lr, betas=(0.5, 0.9))
    return Trainer(
        model=model,
        dataset=dataset or make_dataset(),
        optimizers={phase.name: optimizer for phase in model.phases()},
        schedule=cosine,
        settings=make_settings(**changes),
        run_folder=folder,
        device=torch.device(device),
        seed=3,
        hyperparameters={"model": "tiny", "optimizer.lr": lr, "flag": True},
        class_predictor=class_predictor,
        observers=observers,
        graphs=graphs,
    )


@pytest.fixture
def run_folder(tmp_path: Path) -> Callable[[str], Path]:
    def make(name: str) -> Path:
        folder = tmp_path / name
        folder.mkdir(exist_ok=True)
        return folder

    return make
