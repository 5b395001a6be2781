"""Fault 14: a checkpoint and a configuration that do not belong together end with a line, before the first step."""

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml

from genlab.training.optimization import PhaseUpdate
from tests.conftest import Genlab, Outcome, train_in
from tests.faults.harness import rewrite_checkpoints
from tests.faults.tally import Tally
from tests.thinning import thinned

FAULT = "14 wrong fit"
COMMON = ("dataset.size=8", "num_threads=1", "trainer=smoke", "trainer.sample_interval=0", "trainer.test_at_end=false")
RUNS = {
    "draw": ("model=draw", "model.num_glimpses=2", "model.num_units=16", "trainer.num_steps=3"),
    "gan": ("model=gan", "trainer.num_steps=2"),
}
Change = Callable[[dict[str, Any]], None]


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("compatible")
    for name, words in RUNS.items():
        train_in(folder / name, *words, *COMMON)
    return folder


@pytest.fixture
def changed(runs: Path, tmp_path: Path) -> Callable[[str, Change], Path]:
    def change(name: str, edit: Change) -> Path:
        shutil.copytree(runs / name, tmp_path / "run")
        path = tmp_path / "run" / "config.yaml"
        values = yaml.safe_load(path.read_text())
        edit(values)
        path.write_text(yaml.safe_dump(values))
        return tmp_path / "run"

    return change


def other_width(values: dict[str, Any]) -> None:
    values["model"]["num_units"] = 17


def other_optimizer(values: dict[str, Any]) -> None:
    values["optimizer"]["default"] = {"_target_": "torch.optim.SGD", "lr": 0.1, "momentum": 0.9}


def related_optimizer(values: dict[str, Any]) -> None:
    values["optimizer"]["default"]["_target_"] = "torch.optim.AdamW"


def without_average(values: dict[str, Any]) -> None:
    values["trainer"]["ema_decay"] = 0.9


MISMATCHES: dict[str, tuple[Change, str]] = {
    "other width": (other_width, "initial_states (float32 [4x16] in the checkpoint, float32 [4x17] in the model)"),
    "other optimiser": (other_optimizer, "optimizer.model was Adam and is SGD"),
    "other optimiser with the same state": (related_optimizer, "optimizer.model was Adam and is AdamW"),
    "average that was not kept": (without_average, "trainer.ema_decay"),
}


def resume(genlab: Genlab, folder: Path) -> Outcome:
    return genlab("train", f"resume={folder}", "trainer.num_steps=9")


@pytest.mark.parametrize("name", thinned(MISMATCHES, 4))
def test_a_changed_configuration_is_refused_before_the_first_step(
    genlab: Genlab, changed: Callable[[str, Change], Path], tally: Tally, name: str
) -> None:
    edit, message = MISMATCHES[name]
    folder = changed("draw", edit)
    lines = (folder / "metrics.jsonl").read_text()
    checkpoint = (folder / "checkpoints" / "last.safetensors").read_bytes()
    with tally.trying(FAULT, "mismatches of a configuration and a checkpoint"):
        outcome = resume(genlab, folder)
        outcome.assert_error(4, message)
        assert (folder / "metrics.jsonl").read_text() == lines
        assert (folder / "checkpoints" / "last.safetensors").read_bytes() == checkpoint


def test_the_configuration_of_another_model_is_refused(
    genlab: Genlab, runs: Path, tmp_path: Path, tally: Tally
) -> None:
    shutil.copytree(runs / "draw", tmp_path / "run")
    shutil.copy(runs / "gan" / "config.yaml", tmp_path / "run")
    with tally.trying(FAULT, "mismatches of a configuration and a checkpoint"):
        outcome = resume(genlab, tmp_path / "run")
        outcome.assert_error(4, "generator.layers.0.weight (nothing in the checkpoint")


def test_the_differing_weights_are_named(genlab: Genlab, changed: Callable[[str, Change], Path], tally: Tally) -> None:
    """A checkpoint holds no configuration, so the differing weights are named."""
    folder = changed("draw", other_width)
    with tally.trying(FAULT, "mismatches whose differing weights are named"):
        for outcome in (resume(genlab, folder), genlab("sample", f"run={folder}", "split=null")):
            assert outcome.code == 4
            last = outcome.errors.splitlines()[-1]
            assert "initial_states (float32 [4x16] in the checkpoint, float32 [4x17] in the model)" in last


@pytest.mark.parametrize("word", ["model.num_units=17", "model=gan", "optimizer=sgd", "optimizer.default.lr=0.1"])
def test_what_cannot_change_on_the_way_is_named_by_its_key(
    genlab: Genlab, runs: Path, tmp_path: Path, tally: Tally, word: str
) -> None:
    shutil.copytree(runs / "draw", tmp_path / "run")
    with tally.trying(FAULT, "resumptions with other settings, whose keys are named"):
        outcome = genlab("train", f"resume={tmp_path / 'run'}", word)
        outcome.assert_error(2, f"{word.partition('=')[0]} cannot change on resume")


def swapped(state: dict[str, Any]) -> dict[str, Any]:
    """Generator for discriminator, in the weights and in the optimisers."""
    names = {"generator": "discriminator", "discriminator": "generator"}

    def renamed(name: str) -> str:
        head, _, tail = name.partition(".")
        return f"{names.get(head, head)}.{tail}" if tail else names.get(head, head)

    return state | {
        "model": {renamed(name): value for name, value in state["model"].items()},
        "optimizer": {renamed(name): moments for name, moments in state["optimizer"].items()},
    }


@pytest.mark.slow
@pytest.mark.parametrize("part", ["model", "optimizer"])
def test_the_two_networks_of_a_gan_are_not_taken_for_each_other(
    genlab: Genlab, runs: Path, tmp_path: Path, tally: Tally, part: str
) -> None:
    shutil.copytree(runs / "gan", tmp_path / "run")
    rewrite_checkpoints(tmp_path / "run", lambda state: state | {part: swapped(state)[part]})
    with tally.trying(FAULT, "generator and discriminator exchanged, their weights or their optimisers"):
        outcome = resume(genlab, tmp_path / "run")
        assert outcome.code == 4, outcome.errors
        assert "generator.layers" in outcome.errors or "phase discriminator" in outcome.errors


@pytest.mark.slow
def test_without_the_comparison_training_would_go_on(
    genlab: Genlab,
    changed: Callable[[str, Change], Path],
    tally: Tally,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """torch's own loading takes Adam's moments for AdamW's and says nothing."""

    def as_torch_does(update: PhaseUpdate, state: dict[str, Any]) -> None:
        update.optimizer.load_state_dict(state["optimizer"])

    monkeypatch.setattr(PhaseUpdate, "load_state_dict", as_torch_does)
    assert resume(genlab, changed("draw", related_optimizer)).code == 0
    tally.wrong_variant_noticed(FAULT, "Optimizer.load_state_dict alone")


@pytest.mark.slow
def test_another_number_of_threads_is_reported(genlab: Genlab, runs: Path, tmp_path: Path, tally: Tally) -> None:
    shutil.copytree(runs / "draw", tmp_path / "run")
    with tally.trying(FAULT, "resumptions with other threads, which are reported"):
        outcome = genlab("train", f"resume={tmp_path / 'run'}", "trainer.num_steps=4").checked()
        assert "bitwise" not in outcome.output + outcome.errors
        outcome = genlab("train", f"resume={tmp_path / 'run'}", "trainer.num_steps=5", "num_threads=2").checked()
        assert "1 thread, now 2" in outcome.output + outcome.errors
        assert "no longer bitwise equal" in outcome.output + outcome.errors
