"""`genlab models NAME` and `genlab experiments NAME`: one of them in full."""

from pathlib import Path

import pytest

from genlab.comparison.published import read_experiments
from genlab.config.location import config_directory
from tests.conftest import Genlab

ROOT = config_directory().parent


def test_a_model_in_full(genlab: Genlab) -> None:
    outcome = genlab("models", "draw")
    assert (outcome.code, outcome.errors) == (0, "")
    rows = dict(line.split(maxsplit=1) for line in outcome.output.splitlines() if len(line.split()) > 1)
    assert rows["paper"] == "https://arxiv.org/abs/1502.04623"
    assert rows["parameters"].startswith("865,863 (glimpse 864,055), for images of 1x28x28")
    assert rows["training"].startswith("1,800 steps of 64 images, Adam at 0.005")
    assert rows["model.read_size=5"] == "null reads the whole image"
    assert "published nll_upper_bound_nats 80.97" in rows["draw_mnist"]
    assert "expected nll_upper_bound_nats 85.12" in rows["draw_mnist_quick"]
    pictures = [line.split()[1] for line in outcome.output.splitlines() if line.split()[:1] == ["picture"]]
    assert any(picture.endswith("docs/pictures/draw_mnist_canvases.png") for picture in pictures)


def test_an_experiment_in_full_without_its_data(
    genlab: Genlab, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("GENLAB_DATA", str(tmp_path))
    outcome = genlab("experiments", "draw_mnist_quick")
    assert (outcome.code, outcome.errors) == (0, "")
    rows = dict(line.split(maxsplit=1) for line in outcome.output.splitlines() if len(line.split()) > 1)
    assert rows["command"].startswith("genlab train experiment=draw_mnist_quick num_threads=1")
    assert rows["cost"].startswith("20 minutes of one core")
    assert rows["parameters"].startswith("unknown without the data: BinarizedMNIST/binarized_mnist_train.amat")
    assert rows["expected"].startswith("nll_importance_weighted_nats  82.37")
    assert rows["trainer.num_steps=17000"].startswith("training steps")


def test_an_experiment_of_the_user_without_a_header_leaves_the_others_readable(genlab: Genlab, tmp_path: Path) -> None:
    own = tmp_path / "experiment" / "mine.yaml"
    own.parent.mkdir()
    own.write_text("# @package _global_\nseed: 1\n")
    for words in (("experiments", "draw_mnist_quick"), ("models", "draw")):
        outcome = genlab(*words, "--config-dir", str(tmp_path))
        assert (outcome.code, outcome.errors) == (0, ""), words
        assert "expected" in outcome.output
    genlab("experiments", "mine", "--config-dir", str(tmp_path)).assert_error(2, "the header lacks")


def test_a_typo_is_answered_with_the_nearest_name(genlab: Genlab) -> None:
    outcome = genlab("experiments", "draw_mnist_quik")
    outcome.assert_error(2, "there is no experiment 'draw_mnist_quik'; did you mean 'draw_mnist_quick'?")


def test_every_experiment_names_a_model_and_its_picture_exists() -> None:
    experiments = {each.name: each for each in read_experiments([config_directory()])}
    assert experiments["draw_mnist"].model == "draw"
    assert experiments["r1_r2_stacked_mnist_quick"].model == "dcgan"  # by two experiments that it inherits from
    for each in experiments.values():
        assert (config_directory() / "model" / f"{each.model}.yaml").is_file(), each.name
        assert each.picture is None or (ROOT / each.picture).is_file(), each.name
