"""Pictures of a run: the files, and their dependence on the seed."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
from PIL import Image

from tests.conftest import Outcome


def test_draws_everything_that_draw_offers(genlab: Callable[..., Outcome], trained_run: Path, tmp_path: Path) -> None:
    outcome = genlab("sample", f"run={trained_run}", "num_samples=4", f"out={tmp_path / 'a'}")
    assert outcome.code == 0, outcome.errors
    names = {path.name for path in (tmp_path / "a").iterdir()}
    assert {"samples.png", "canvases.gif", "canvases.png", "reconstructions.png", "interpolation.png"} <= names
    assert all(name in outcome.output for name in names)
    with Image.open(tmp_path / "a" / "canvases.gif") as film:
        assert film.n_frames == 3  # the empty canvas and two glimpses
        assert film.convert("RGB").getcolors(1 << 16) is not None


def test_the_seed_decides(genlab: Callable[..., Outcome], trained_run: Path, tmp_path: Path) -> None:
    for name, seed in (("a", 1), ("b", 1), ("c", 2)):
        genlab("sample", f"run={trained_run}", "num_samples=4", f"out={tmp_path / name}", f"seed={seed}")
    first, again, other = ((tmp_path / name / "samples.png").read_bytes() for name in ("a", "b", "c"))
    assert first == again != other


def test_without_its_data_a_run_still_draws(
    genlab: Callable[..., Outcome], trained_run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    copy = tmp_path / "copy"
    shutil.copytree(trained_run, copy)
    config = copy / "config.yaml"
    text = config.read_text()
    start, end = text.index("dataset:"), text.index("optimizer:")
    mnist = (
        "dataset:\n  _target_: genlab.data.binarized_mnist.binarized_mnist\n"
        f"  root: {tmp_path / 'empty'}\n  download: false\n"
    )
    config.write_text(text[:start] + mnist + text[end:])
    outcome = genlab("sample", f"run={copy}", "num_samples=4", f"out={tmp_path / 'a'}")
    assert outcome.code == 0, outcome.errors
    assert "without reconstructions" in outcome.output
    names = {path.name for path in (tmp_path / "a").iterdir()}
    assert "samples.png" in names
    assert "reconstructions.png" not in names


def test_bad_input_is_one_line(genlab: Callable[..., Outcome], trained_run: Path) -> None:
    outcome = genlab("sample", f"run={trained_run}", "num_samples=0")
    assert (outcome.code, outcome.errors) == (2, "genlab: error: num_samples must be at least 1, got 0\n")
    assert genlab("sample", f"run={trained_run}", "device=cuda:7").code == 2


@pytest.mark.parametrize("word", ["temperature=0.5", "label=3", "given_rows=2"])
def test_a_setting_that_a_model_does_not_have_is_refused(
    genlab: Callable[..., Outcome], trained_run: Path, word: str
) -> None:
    outcome = genlab("sample", f"run={trained_run}", word)
    name = word.partition("=")[0]
    assert (outcome.code, outcome.errors) == (
        2,
        f"genlab: error: {name} must be null for DRAW, which has no such choice\n",
    )


def test_an_autoregressive_run_completes_from_given_rows_in_its_class(
    genlab: Callable[..., Outcome], tmp_path: Path
) -> None:
    folder = tmp_path / "run"
    tiny = ["trainer=smoke", "trainer.num_steps=2", "dataset.size=8", "num_threads=1", "trainer.sample_interval=0"]
    model = ["model=gated_pixelcnn", "model.num_layers=2", "model.channels=4", "model.class_conditional=true"]
    assert genlab("train", *model, *tiny, f"hydra.run.dir={folder}").code == 0
    arguments = [f"run={folder}", "num_samples=20", "given_rows=6", "temperature=0.8", f"out={tmp_path / 'a'}"]
    outcome = genlab("sample", *arguments)
    assert outcome.code == 0, outcome.errors
    assert {"samples.png", "film.gif", "class_grid.png", "completions.png", "entropy.png"} <= {
        path.name for path in (tmp_path / "a").iterdir()
    }
    assert genlab("sample", *arguments, "label=2").code == 0
    environment = json.loads((folder / "environment.json").read_text())
    assert environment["class_names"] == list("0123456789")
    (folder / "environment.json").write_text(json.dumps({**environment, "class_names": list("abcdefghijk")}))
    assert genlab("sample", *arguments, "label=c").code == 0
    for word, message in (
        ("label=two", "label must be the number or the name of a class, got two; classes: a, b, c"),
        ("label=k", "labels must be 20 classes between 0 and 9"),
        ("label=10", "labels must be 20 classes between 0 and 9"),
        ("temperature=0.0", "temperature must be positive"),
        ("given_rows=9", "given must be between 0 and 8 rows"),
    ):
        outcome = genlab("sample", *arguments, word)
        assert outcome.code == 2
        assert message in outcome.errors


def test_a_model_without_pictures_is_answered_with_what_can_be_done(
    genlab: Callable[..., Outcome], classifier_run: Path
) -> None:
    outcome = genlab("sample", f"run={classifier_run}")
    assert outcome.code == 2
    assert f"run must be of a model that draws pictures, got {classifier_run}, a Classifier" in outcome.errors
    assert f"genlab evaluate run={classifier_run} measures it" in outcome.errors
