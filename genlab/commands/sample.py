"""`genlab sample`: pictures from a trained run, as its model allows."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import torch

from genlab.composition.application import JobContext
from genlab.composition.environment import choose_device
from genlab.composition.fields import check_fields
from genlab.data.dataset import Split
from genlab.errors import DataError
from genlab.loading import TrainedModel, build_dataset, load_trained
from genlab.randomness import derive_seed
from genlab.sampling.pictures import save_pictures
from genlab.training.randomness import generator_for, seed_default_generators
from genlab.types import Batch


@dataclass(frozen=True, kw_only=True)
class SampleSettings:
    """The keys of configs/sample.yaml.

    Raises:
        ValueError: A value is out of its range.
    """

    run: str
    num_samples: int
    checkpoint: Literal["best", "last"]
    split: Split | None
    folder: str | None
    seed: int
    device: str
    num_threads: int | None

    def __post_init__(self) -> None:
        if self.num_samples < 1:
            raise ValueError(f"num_samples must be at least 1, got {self.num_samples}")


def read(values: Mapping[str, Any], overrides: Sequence[str]) -> SampleSettings:
    """The checked settings.

    Raises:
        ConfigurationError: Something in them does not fit.
    """
    del overrides
    return check_fields(SampleSettings, values, "")


def run(settings: SampleSettings, context: JobContext) -> None:
    """Draw and write; a run whose data are not at hand still gives the pictures that need none.

    Raises:
        CheckpointError: No checkpoint can be used.
    """
    del context
    device = choose_device(settings.device)
    if settings.num_threads is not None:
        torch.set_num_threads(settings.num_threads)
    trained = load_trained(Path(settings.run), checkpoint=settings.checkpoint, device=device)
    batch = _given_images(trained, settings, device)
    seed_default_generators(derive_seed(settings.seed, "sample"), device)
    with torch.no_grad():
        pictures = trained.model.visualize(
            batch,
            num_samples=settings.num_samples,
            generator=generator_for(settings.seed, "sample", device=device),
        )
    folder = trained.run.folder / "samples" / f"seed_{settings.seed}" if settings.folder is None else settings.folder
    print(f"{settings.run}: {trained.checkpoint} of step {trained.step}, {trained.weights} weights")
    for path in save_pictures(pictures, Path(folder)):
        print(path)


def _given_images(trained: TrainedModel, settings: SampleSettings, device: torch.device) -> Batch | None:
    if settings.split is None:
        return None
    try:
        dataset = build_dataset(trained.run)
    except DataError as error:
        print(f"without reconstructions: {error}")
        return None
    num_images = min(settings.num_samples, dataset.num_images(settings.split))
    return dataset.subset(settings.split, num_images, seed=settings.seed, device=device)
