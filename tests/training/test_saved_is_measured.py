"""Whatever ended a run: its measures in memory are those of its checkpoint, of its export and of `genlab evaluate`."""

import functools
import json
import os
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from benchmarks.composed import values_of
from genlab.config.location import config_directory
from genlab.config.schema import RunConfiguration, read_run_configuration
from genlab.errors import StoppedBySignal
from genlab.models.base import Model
from genlab.run.checkpoint import CheckpointFolder
from genlab.run.loading import load
from genlab.run.record import save_configuration
from genlab.train import build_trainer
from genlab.training.averaging import averaged_weights
from genlab.training.evaluation import averages_of_split
from genlab.training.randomness import seed_everything
from genlab.training.trainer import Trainer
from tests.faults.harness import fork
from tests.faults.hooks import signalled_at
from tests.shrunk import shrunk

Genlab = Callable[..., Any]
CPU = torch.device("cpu")
PRESETS = sorted(path.stem for path in (config_directory() / "model").glob("*.yaml"))
WORDS = (
    *("dataset.size=8", "dataset.num_test=21", "dataset.num_validation=0", "seed=3", "device=cpu", "num_threads=1"),
    *(
        "trainer.num_steps=3",
        "trainer.batch_size=8",
        "trainer.ema_decay=0.9",
        "trainer.precision=float32",
        "trainer.num_initialization_images=16",
    ),
    *("trainer.validation_interval=0", "trainer.sample_interval=0", "trainer.checkpoint_interval=0"),
)


@functools.cache
def composed(preset: str, *words: str) -> RunConfiguration:
    values = values_of(f"model={preset}", *WORDS, *words)
    return read_run_configuration({**values, "model": shrunk(values["model"])})


def trainer_of(configuration: RunConfiguration, folder: Path, *, seed: int = 3) -> Trainer:
    seed_everything(seed)
    folder.mkdir(exist_ok=True)
    trainer = build_trainer(configuration, folder, CPU)
    save_configuration(folder, configuration, trainer.dataset.spec, dataset_fingerprint=trainer.dataset.fingerprint)
    return trainer


def before_step(trainer: Trainer, step: int, act: Callable[[], object]) -> None:
    taken = trainer._training_step

    def training_step() -> None:
        if trainer.step == step:
            act()
        taken()

    trainer._training_step = training_step  # type: ignore[method-assign]


def finished(preset: str, folder: Path) -> Trainer:
    trainer = trainer_of(composed(preset), folder)
    assert trainer.fit(resume=False).status == "finished"
    return trainer


def out_of_time(preset: str, folder: Path) -> Trainer:
    trainer = trainer_of(composed(preset, "trainer.max_minutes=1e-9"), folder)
    assert trainer.fit(resume=False).status == "interrupted"
    return trainer


def terminated(preset: str, folder: Path) -> Trainer:
    trainer = trainer_of(composed(preset), folder)
    before_step(trainer, 1, lambda: os.kill(os.getpid(), signal.SIGTERM))
    with pytest.raises(StoppedBySignal):
        trainer.fit(resume=False)
    return trainer


class Killed(BaseException):
    pass


def killed_and_resumed(preset: str, folder: Path) -> Trainer:
    """After a kill, another process with other initial values resumes from the checkpoint of step 1."""
    trainer = trainer_of(composed(preset), folder)
    before_step(trainer, 1, trainer._save)

    def kill() -> None:
        raise Killed

    save = trainer.checkpoints.save_last
    trainer.checkpoints.save_last = lambda *args, **options: (save(*args, **options), kill())  # type: ignore
    with pytest.raises(Killed):
        trainer.fit(resume=False)
    trainer = trainer_of(composed(preset), folder, seed=4)
    assert trainer.fit(resume=True).step == 3
    return trainer


ENDINGS = (finished, out_of_time, terminated, killed_and_resumed)
QUICK = {("dcgan", out_of_time), ("pixelcnn_document", killed_and_resumed)}
CASES = [
    pytest.param(preset, ending, marks=() if (preset, ending) in QUICK else pytest.mark.slow)
    for preset in PRESETS
    for ending in ENDINGS
]


@pytest.mark.parametrize(("preset", "ending"), CASES)
def test_measures_are_equal_to_the_last_bit(
    genlab: Genlab, tmp_path: Path, preset: str, ending: Callable[[str, Path], Trainer]
) -> None:
    torch.set_num_threads(1)
    trainer = ending(preset, tmp_path / "run")
    in_memory = {name: average.mean for name, average in trainer.evaluate("test").items()}
    assert genlab("export", "run=run").code == 0
    for folder in ("run", "run/export"):
        model = load(folder, kind=Model)
        loaded = averages_of_split(
            model.evaluate,
            trainer.dataset,
            "test",
            declarations=model.measures,
            batching=trainer.batching,
            seed=3,
            device=CPU,
        )
        assert {name: average.mean for name, average in loaded.items()} == in_memory
        genlab("evaluate", f"run={folder}", "samples=false", "num_importance_samples=0").checked()
        record = json.loads(Path(folder, "evaluation.json").read_text())
        assert record["step"] == trainer.step
        measured = {measure["name"]: measure["value"] for measure in record["measures"]}
        assert {name: measured[name] for name in in_memory} == in_memory


@pytest.mark.slow
def test_a_real_kill(tmp_path: Path) -> None:
    folder, words = tmp_path / "run", ("model=dcgan", *WORDS, "trainer.checkpoint_interval=2", "trainer.num_steps=5")
    ended = fork(*words, folder=folder, hook=functools.partial(signalled_at, 3, signal.SIGKILL)).wait()
    assert ended.returncode == -signal.SIGKILL
    fork(f"resume={folder}", folder=folder, names_folder=False).succeed()
    tested = json.loads((folder / "summary.json").read_text())["test"]
    state = CheckpointFolder(folder / "checkpoints").load("last.safetensors", device=CPU)
    model = load(folder, kind=Model)
    assert all(
        torch.equal(model.state_dict()[name], value)
        for name, value in averaged_weights(state["model"], state["average"], model).items()
    )
    assert len(tested) > 0
