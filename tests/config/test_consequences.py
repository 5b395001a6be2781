"""The sentences about the consequences of a choice."""

from pathlib import Path
from typing import Any

import pytest

from genlab.config.consequences import differing_data, remarks, require_effect
from genlab.config.location import config_directory
from genlab.errors import ConfigurationError

FOLDERS = (config_directory(),)
DCGAN = {"model": "dcgan", "dataset": "digits_grey", "recipe": "dcgan", "optimizer": "adam"}


def test_a_data_set_that_the_model_chose_is_said() -> None:
    [sentence] = remarks(DCGAN, ("model=dcgan",), FOLDERS)
    assert sentence == "model=dcgan chooses dataset=digits_grey; dataset=NAME chooses another"
    assert remarks(DCGAN, ("model=dcgan", "dataset=digits_grey"), FOLDERS) == []
    assert remarks(DCGAN | {"experiment": "mine"}, (), FOLDERS) == []
    assert remarks({**DCGAN, "dataset": "digits"}, ("model=dcgan",), FOLDERS) == []


def test_settings_of_an_optimizer_that_are_left_out_are_said(tmp_path: Path) -> None:
    typed = ("dataset=mnist", "optimizer=rmsprop")
    [sentence] = remarks(DCGAN | {"optimizer": "rmsprop"}, typed, FOLDERS)
    assert sentence.startswith("recipe=dcgan was made for optimizer=adam; with optimizer=rmsprop")
    (tmp_path / "recipe/mine").mkdir(parents=True)
    (tmp_path / "recipe/mine/rmsprop.yaml").touch()
    mine = DCGAN | {"recipe": "mine"}
    assert "made for optimizer=rmsprop" in remarks(mine, typed, (*FOLDERS, tmp_path))[0]
    assert remarks(mine | {"optimizer": "rmsprop"}, typed, (*FOLDERS, tmp_path)) == []
    assert remarks(DCGAN | {"recipe": "none", "optimizer": "rmsprop"}, typed, FOLDERS) == []


def test_models_of_a_sweep_that_choose_different_data_are_listed() -> None:
    jobs = [DCGAN, {"model": "draw", "dataset": "digits"}, DCGAN | {"model": "gan"}]
    assert differing_data(jobs, ("model=dcgan,draw,gan",)) == (
        "the models of this sweep train on different data: digits (draw), digits_grey (dcgan, gan); "
        "dataset=NAME gives them the same"
    )
    assert differing_data(jobs, ("model=dcgan,draw,gan", "dataset=mnist")) is None
    assert differing_data([DCGAN, DCGAN | {"model": "gan"}], ("model=dcgan,gan",)) is None


@pytest.mark.parametrize(
    ("configuration", "override", "decisive"),
    [
        ({"trainer": {"watch_interval": 0}}, "trainer.min_modes_covered=8", "trainer.watch_interval is 0"),
        ({"trainer": {"on_non_finite": "stop"}}, "trainer.max_skipped_steps=3", "trainer.on_non_finite is stop"),
        ({"dataset": {"binarization": "none"}}, "++dataset.threshold=0.3", "dataset.binarization is none"),
        (
            {"dataset": {"num_labels_per_class": None, "num_training": None}},
            "dataset.label_seed=1",
            "dataset.num_labels_per_class is null and dataset.num_training is null",
        ),
        ({"dataset": {"on_error": "fail"}}, "dataset.max_skipped=3", "dataset.on_error is fail"),
        ({"model": {"read_size": None}}, "model.read_bias.log_gamma=1", "model.read_size is null"),
        ({"model": {"write_size": None}}, "model.write_bias={log_gamma:1}", "model.write_size is null"),
    ],
)
def test_a_key_without_effect_is_refused(configuration: dict[str, Any], override: str, decisive: str) -> None:
    key = override.lstrip("+").partition("=")[0]
    with pytest.raises(ConfigurationError, match=f"^{key} has no effect while {decisive}: change that, or leave"):
        require_effect(configuration, ("seed=1", override))
    for group, node in configuration.items():
        for name in node:
            require_effect({group: node | {name: 5}}, (override,))
    require_effect({"dataset": None}, (override,))
