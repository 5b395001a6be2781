"""Pictures of a run: what is there, and that a seed decides it."""

import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
from PIL import Image

from tests.conftest import Outcome


def test_draws_everything_that_draw_offers(genlab: Callable[..., Outcome], trained_run: Path, tmp_path: Path) -> None:
    outcome = genlab("sample", f"run={trained_run}", "num_samples=4", f"folder={tmp_path / 'a'}")
    assert outcome.code == 0, outcome.errors
    names = {path.name for path in (tmp_path / "a").iterdir()}
    assert {"samples.png", "canvases.gif", "canvases.png", "reconstructions.png", "interpolation.png"} <= names
    assert all(name in outcome.output for name in names)
    with Image.open(tmp_path / "a" / "canvases.gif") as film:
        assert film.n_frames == 3  # the empty canvas and two glimpses
        assert film.convert("RGB").getcolors(1 << 16) is not None


def test_the_seed_decides(genlab: Callable[..., Outcome], trained_run: Path, tmp_path: Path) -> None:
    for name, seed in (("a", 1), ("b", 1), ("c", 2)):
        genlab("sample", f"run={trained_run}", "num_samples=4", f"folder={tmp_path / name}", f"seed={seed}")
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
    outcome = genlab("sample", f"run={copy}", "num_samples=4", f"folder={tmp_path / 'a'}")
    assert outcome.code == 0, outcome.errors
    assert "without reconstructions" in outcome.output
    names = {path.name for path in (tmp_path / "a").iterdir()}
    assert "samples.png" in names
    assert "reconstructions.png" not in names


def test_bad_input_is_one_line(genlab: Callable[..., Outcome], trained_run: Path) -> None:
    outcome = genlab("sample", f"run={trained_run}", "num_samples=0")
    assert (outcome.code, outcome.errors) == (2, "genlab: error: num_samples must be at least 1, got 0\n")
    assert genlab("sample", f"run={trained_run}", "device=cuda:7").code == 2
