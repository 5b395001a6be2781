"""A few steps of the real trainer on noise in memory: resuming, and the state that is saved."""

import contextlib
import functools
import io
import json
import shutil
import tempfile
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.optim import Optimizer
from torch.optim.lr_scheduler import LRScheduler

from genlab.checks.subject import Finding, Subject, held_if, make_batch
from genlab.data.dataset import SPLITS, Dataset
from genlab.data.store import Store
from genlab.models.base import Model
from genlab.run.checkpoint import LAST, PREVIOUS, CheckpointFolder, model_fingerprint
from genlab.run.exported import Origin, load_weights, save_weights
from genlab.training.averaging import averaged_weights
from genlab.training.evaluation import Average, averages_of_split
from genlab.training.schedules import warmup_cosine
from genlab.training.settings import TrainerSettings
from genlab.training.trainer import Trainer
from genlab.types import ImageSpec

NUM_STEPS = 4
_NUM_IMAGES = 21  # batches of 4: an epoch ends within the steps, and not between two of them
_CPU = torch.device("cpu")

TINY_SETTINGS = TrainerSettings(
    num_steps=NUM_STEPS,
    num_epochs=None,
    batch_size=4,
    labelled_fraction=None,
    gradient_accumulation=1,
    max_gradient_norm=5.0,
    ema_decay=0.9,
    precision="float32",
    compile=False,
    compile_mode="default",
    tf32=False,
    cuda_graph="auto",
    log_interval=1,
    validation_interval=0,
    validation_images=None,
    sample_interval=0,
    num_sample_images=4,
    checkpoint_interval=NUM_STEPS // 2,
    max_minutes=None,
    early_stopping_patience=None,
    overfit_one_batch=False,
    dry_run=False,
    profile=False,
    on_non_finite="stop",
    max_skipped_steps=0,
    watch_interval=0,
    watch_images=4,
    watch_classifier=None,
    min_diversity_ratio=None,
    min_modes_covered=None,
    on_collapse="warn",
    test_at_end=False,
    num_initialization_images=16,
    devices=1,
    max_restarts=0,
    sharding="none",
)


def schedule(optimizer: Optimizer, *, num_steps: int) -> LRScheduler:
    """Return a schedule whose learning rate differs at every step."""
    return warmup_cosine(optimizer, num_steps=num_steps, warmup_fraction=0.25, final_fraction=0.1)


def resume_is_bitwise(subject: Subject) -> Finding:
    """Check that four steps equal two steps and two resumed ones, by a model with other initial values."""
    with tempfile.TemporaryDirectory() as name:
        whole, cut = Path(name) / "whole", Path(name) / "cut"
        whole.mkdir()
        _fit(_trainer(subject.fresh(), subject.spec, whole), resume=False)
        shutil.copytree(whole, cut)
        (cut / "checkpoints" / PREVIOUS).replace(cut / "checkpoints" / LAST)  # back to the second step
        _fit(_trainer(subject.fresh(seed=subject.seed + 1), subject.spec, cut), resume=True)
        states = [
            CheckpointFolder(folder / "checkpoints").load(LAST, device=_CPU) | {"metrics": scalars(folder)}
            for folder in (whole, cut)
        ]
    num_leaves = len(leaves(states[0]))
    different = differences(*states)
    where = f", first {different[0].removeprefix('/')}" if different else ""
    return held_if(
        not different, f"{len(different)} of {num_leaves} values differ after 2 + 2 steps instead of {NUM_STEPS}{where}"
    )


def what_is_saved_is_what_was_measured(subject: Subject) -> Finding:
    """Check that the measures of the model in memory equal those of its checkpoint and of an export.

    Both are loaded into models of other initial values, as ``genlab.load`` does.
    """
    settings = replace(TINY_SETTINGS, num_steps=3, checkpoint_interval=0)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        trainer = _trainer(subject.fresh(), subject.spec, folder, settings)
        _fit(trainer, resume=False)
        state = CheckpointFolder(folder / "checkpoints").load(LAST, device=_CPU)
        loaded, handed_on = (subject.fresh(seed=subject.seed + number).eval() for number in (1, 2))
        loaded.load_state_dict(averaged_weights(state["model"], state["average"], loaded))
        origin = Origin(step="3", checkpoint=LAST, weights="averaged", model_fingerprint=model_fingerprint(loaded))
        save_weights(folder, loaded.state_dict(), origin)
        handed_on.load_state_dict(load_weights(folder)[0])
    in_memory = trainer.evaluate("test")
    measured = {"the checkpoint": _measures(trainer, loaded), "the export": _measures(trainer, handed_on)}
    different = [
        f"{key} of {where} {other[key].mean} instead of {in_memory[key].mean}"
        for where, other in measured.items()
        for key in in_memory
        if other[key].mean != in_memory[key].mean
    ]
    first = f", first {different[0]}" if different else ""
    return held_if(not different, f"{len(different)} of {2 * len(in_memory)} measures differ in a loaded model{first}")


def _measures(trainer: Trainer, model: Model) -> dict[str, Average]:
    """Return the measures of a model as the trainer computes them."""
    return averages_of_split(
        model.evaluate,
        trainer.dataset,
        "test",
        declarations=model.measures,
        batching=trainer.batching,
        seed=trainer.seed,
        device=trainer.device,
    )


def leaves(value: Any, prefix: str = "") -> dict[str, Any]:
    """Return the leaves of a nested state, by path."""
    if isinstance(value, dict):
        return {name: leaf for key, kept in value.items() for name, leaf in leaves(kept, f"{prefix}/{key}").items()}
    if isinstance(value, list | tuple):
        return {name: leaf for key, kept in enumerate(value) for name, leaf in leaves(kept, f"{prefix}/{key}").items()}
    return {prefix: value}


def differences(ours: dict[str, Any], theirs: dict[str, Any]) -> list[str]:
    """Return the paths at which two checkpoints differ in any bit, except for their seconds."""
    first, second = leaves(ours), leaves(theirs)
    found = sorted(first.keys() ^ second.keys())
    for name in first.keys() & second.keys():
        value, other = first[name], second[name]
        is_same = torch.equal(value, other) if isinstance(value, Tensor) else value == other
        if not is_same and name != "/seconds":
            found.append(name)
    return sorted(found)


def scalars(folder: Path) -> list[dict[str, Any]]:
    """Return the lines of metrics.jsonl, except for their times."""
    lines = [json.loads(line) for line in (folder / "metrics.jsonl").read_text(encoding="utf-8").splitlines()]
    return [{key: value for key, value in line.items() if not key.startswith(("seconds", "speed"))} for line in lines]


def _trainer(model: Model, spec: ImageSpec, folder: Path, settings: TrainerSettings = TINY_SETTINGS) -> Trainer:
    return Trainer(
        model=model,
        dataset=noise(spec),
        optimizers={phase.name: functools.partial(torch.optim.Adam, lr=1e-3) for phase in model.phases()},
        schedule=schedule,
        settings=settings,
        run_folder=folder,
        device=_CPU,
        seed=3,
        hyperparameters={},
    )


def _fit(trainer: Trainer, *, resume: bool) -> None:
    with contextlib.redirect_stderr(io.StringIO()):  # four steps need no progress bar
        trainer.fit(resume=resume)


def noise(spec: ImageSpec) -> Dataset:
    """Return images of uniform levels in memory, the same every time."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(1)
        batch = make_batch(spec, _NUM_IMAGES)
    levels = batch.images.mul(spec.num_levels - 1).round().to(torch.uint8)
    return Dataset(
        name="noise",
        stores={split: Store(levels, batch.labels) for split in SPLITS},
        num_levels=spec.num_levels,
        class_names=tuple(map(str, range(spec.num_classes))),
        binarization="none",
        threshold=None,
        source="noise",
    )
