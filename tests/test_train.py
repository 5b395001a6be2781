"""What the composition root hands to the trainer."""

import json
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.conftest import Outcome

TINY = ("dataset.size=8", "model.num_glimpses=2", "model.num_units=16", "num_threads=1", "device=cpu")
ONE_LOOK = ("trainer.num_steps=2", "trainer.watch_interval=2", "trainer.test_at_end=false")


@pytest.fixture(name="classifier")
def trained_classifier(genlab: Callable[..., Outcome], tmp_path: Path) -> Path:
    folder = tmp_path / "classifier"
    outcome = genlab(
        *("train", "model=draw_classifier", "model.read_size=4", *TINY, f"hydra.run.dir={folder}"),
        *("trainer=smoke", "trainer.num_steps=1", "trainer.test_at_end=false"),
    )
    assert outcome.code == 0, outcome.errors
    return folder


def test_the_watch_counts_modes_with_the_classifier_of_a_run(
    genlab: Callable[..., Outcome], classifier: Path, tmp_path: Path
) -> None:
    watch = (*ONE_LOOK, f"trainer.watch_classifier={classifier}")
    folder = tmp_path / "drawing"
    outcome = genlab("train", "model=draw", *TINY, "trainer=smoke", *watch, f"hydra.run.dir={folder}")
    assert outcome.code == 0, outcome.errors
    collapse = json.loads((folder / "summary.json").read_text())["collapse"]
    assert 1 <= collapse["modes_covered"] <= collapse["num_modes"] == 10
    assert collapse["classifier"] == str(classifier)

    outcome = genlab("train", "model=draw", *TINY[1:], "dataset.size=16", "trainer=smoke", *watch)
    assert outcome.code == 2
    assert "must have learned images of shape (1, 16, 16)" in outcome.errors
    watch = (*ONE_LOOK, f"trainer.watch_classifier={folder}")
    outcome = genlab("train", "model=draw", *TINY, "trainer=smoke", *watch)
    assert outcome.code == 2
    assert "trainer.watch_classifier must be a run of a classifier" in outcome.errors


def test_a_classifier_cannot_be_watched(genlab: Callable[..., Outcome]) -> None:
    outcome = genlab("train", "model=draw_classifier", "model.read_size=4", *TINY, "trainer=smoke", *ONE_LOOK)
    assert outcome.code == 2
    assert "trainer.watch_interval must be 0 for DRAWClassifier, which draws no images to watch" in outcome.errors
