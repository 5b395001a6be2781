"""Columns of HPARAMS: choices by their names, then what a person set, then the rest."""

from pathlib import Path

import pytest
import yaml

from genlab.run.hyperparameters import UNKNOWN, Origin, hyperparameters, read_origin

CONFIGURATION = {
    "seed": 1,
    "resume": None,
    "dataset": {"_target_": "genlab.data.mnist.mnist", "root": None},
    "optimizer": {"default": {"_target_": "torch.optim.Adam", "lr": 1e-3, "betas": [0.5, 0.9]}},
    "trainer": {"num_steps": 20, "compile": False},
    "model": {
        "_target_": "genlab.models.gan.gan.GAN",
        "objective": {"_target_": "genlab.models.gan.objectives.Hinge"},
        "techniques": {"label_smoothing": {"real": 0.9}, "historical_averaging": {}},
    },
}
CHOICES = {"trainer": "smoke", "model": "dcgan", "model/objective": "hinge", "dataset": "mnist", "trainer/base@x": "y"}


def test_choices_come_first_then_what_was_typed_then_the_rest() -> None:
    origin = Origin(choices=CHOICES, overrides=("model=dcgan", "+trainer.num_steps=20", "optimizer.default.lr=1e-3"))
    columns = hyperparameters(CONFIGURATION, origin)
    assert list(columns.items())[:9] == [
        ("model", "dcgan"),
        ("dataset", "mnist"),
        ("objective", "hinge"),
        ("techniques", "label_smoothing,historical_averaging"),
        ("base", "y"),
        ("trainer", "smoke"),
        ("trainer.num_steps", 20),
        ("optimizer.default.lr", 1e-3),
        ("seed", 1),
    ]
    rest = set(columns) - set(list(columns)[:9])
    assert {"optimizer.default.betas", "trainer.compile", "model.techniques.label_smoothing.real"} <= rest
    assert not {"resume", "dataset.root"} & rest
    assert columns["optimizer.default.betas"] == "[0.5, 0.9]"


def test_a_configuration_of_unknown_origin_names_its_classes() -> None:
    columns = hyperparameters(CONFIGURATION, UNKNOWN)
    assert columns["model"] == "genlab.models.gan.gan.GAN"
    assert columns["techniques"] == "label_smoothing,historical_averaging"


def test_the_origin_of_a_run_is_read_from_what_hydra_notes(tmp_path: Path) -> None:
    (tmp_path / ".hydra").mkdir()
    noted = {
        "runtime": {"choices": {"model": "dcgan", "experiment": None, "hydra/launcher": "basic"}},
        "overrides": {"hydra": ["hydra.run.dir=x"], "task": ["model=dcgan", "seed=1"]},
        "run": {"dir": "${genlab.run_folder:x}"},
    }
    (tmp_path / ".hydra" / "hydra.yaml").write_text(yaml.safe_dump({"hydra": noted}))
    assert read_origin(tmp_path) == Origin(choices={"model": "dcgan"}, overrides=("model=dcgan", "seed=1"))


@pytest.mark.parametrize("content", ["", "hydra: 3", "hydra: {runtime: {choices: [1]}}", "a: [", "a: !!python/x 1"])
def test_a_damaged_note_is_one_kind_of_error(tmp_path: Path, content: str) -> None:
    (tmp_path / ".hydra").mkdir()
    (tmp_path / ".hydra" / "hydra.yaml").write_text(content)
    with pytest.raises(ValueError):
        read_origin(tmp_path)
