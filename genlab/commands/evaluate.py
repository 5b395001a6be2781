"""`genlab evaluate`: the ledger of a trained run, printed and kept in RUN/evaluation.json."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import torch
from tqdm import tqdm

from genlab.composition.application import JobContext
from genlab.composition.environment import choose_device, git_state
from genlab.composition.fields import check_fields
from genlab.data.dataset import Split
from genlab.errors import DataError
from genlab.loading import build_dataset, load_trained
from genlab.metrics.baselines import baseline_averages
from genlab.metrics.ledger import as_json, format_table, measures_from
from genlab.randomness import derive_seed
from genlab.storage import replace_atomically
from genlab.training.evaluation import average_measures
from genlab.training.randomness import seed_default_generators


@dataclass(frozen=True, kw_only=True)
class EvaluateSettings:
    """The keys of configs/evaluate.yaml.

    Raises:
        ValueError: A value is out of its range.
    """

    run: str
    checkpoint: Literal["best", "last"]
    split: Split
    num_images: int | None
    num_importance_samples: int
    batch_size: int
    seed: int
    device: str
    num_threads: int | None

    def __post_init__(self) -> None:
        if self.num_importance_samples < 0:
            raise ValueError(f"num_importance_samples must be 0 or more, got {self.num_importance_samples}")
        if self.batch_size < 1:
            raise ValueError(f"batch_size must be at least 1, got {self.batch_size}")
        if self.num_images is not None and self.num_images < 1:
            raise ValueError(f"num_images must be null or at least 1, got {self.num_images}")


def read(values: Mapping[str, Any], overrides: Sequence[str]) -> EvaluateSettings:
    """The checked settings.

    Raises:
        ConfigurationError: Something in them does not fit.
    """
    del overrides
    return check_fields(EvaluateSettings, values, "")


def run(settings: EvaluateSettings, context: JobContext) -> None:
    """Measure, print, write.

    Raises:
        DataError: The split is empty or its data are missing.
        CheckpointError: No checkpoint can be used.
    """
    device = choose_device(settings.device)
    if settings.num_threads is not None:
        torch.set_num_threads(settings.num_threads)
    trained = load_trained(Path(settings.run), checkpoint=settings.checkpoint, device=device)
    dataset = build_dataset(trained.run)
    num_images = min(settings.num_images or dataset.num_images(settings.split), dataset.num_images(settings.split))
    if num_images == 0:
        raise DataError(f"split {settings.split} of dataset {dataset.name} is empty; choose another split")

    seed_default_generators(derive_seed(settings.seed, "evaluate", settings.split), device)
    batches = dataset.batches(
        settings.split, batch_size=settings.batch_size, seed=settings.seed, device=device, limit=num_images
    )
    num_batches = -(-num_images // settings.batch_size)
    averages = average_measures(
        lambda batch: trained.model.diagnose(batch, num_importance_samples=settings.num_importance_samples),
        iter(tqdm(batches, total=num_batches, unit="batch", leave=False, disable=None)),
    )
    measures = measures_from(
        averages,
        dataset=dataset,
        split=settings.split,
        seed=settings.seed,
        weights=trained.weights,
        num_importance_samples=settings.num_importance_samples,
    )
    baselines = measures_from(
        baseline_averages(dataset, settings.split, seed=settings.seed, device=device, limit=num_images),
        dataset=dataset,
        split=settings.split,
        seed=settings.seed,
        weights="none",
    )
    print(
        f"{settings.run}: {trained.checkpoint} of step {trained.step}, {trained.weights} weights, {dataset.provenance}"
    )
    print(format_table([*measures, *baselines]))
    record = {
        "command": context.command,
        "git": git_state(),
        "checkpoint": trained.checkpoint,
        "step": trained.step,
        "provenance": dataset.provenance,
        "measures": as_json(measures),
        "baselines": as_json(baselines),
    }
    path = trained.run.folder / "evaluation.json"
    replace_atomically(path, f"{json.dumps(record, indent=1)}\n".encode())
    print(f"written to {path}")
