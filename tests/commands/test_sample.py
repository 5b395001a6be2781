"""Pictures of a run: the files, and their dependence on the seed."""

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from safetensors.torch import load_file

import genlab as genlab_package
from tests.conftest import Genlab


def test_draws_everything_that_draw_offers(genlab: Genlab, trained_run: Path, tmp_path: Path) -> None:
    outcome = genlab("sample", f"run={trained_run}", "num_samples=4", f"out={tmp_path / 'a'}").checked()
    names = {path.name for path in (tmp_path / "a").iterdir()}
    assert {"samples.png", "canvases.gif", "canvases.png", "reconstructions.png", "interpolation.png"} <= names
    assert all(name in outcome.output for name in names)
    with Image.open(tmp_path / "a" / "canvases.gif") as film:
        assert film.n_frames == 3  # the empty canvas and two glimpses
        assert film.convert("RGB").getcolors(1 << 16) is not None


def test_the_seed_decides(genlab: Genlab, trained_run: Path, tmp_path: Path) -> None:
    for name, seed in (("a", 1), ("b", 1), ("c", 2)):
        genlab("sample", f"run={trained_run}", "num_samples=4", f"out={tmp_path / name}", f"seed={seed}")
    first, again, other = ((tmp_path / name / "samples.png").read_bytes() for name in ("a", "b", "c"))
    assert first == again != other


@pytest.mark.slow
def test_jobs_of_a_sweep_that_would_replace_each_others_pictures_are_refused(genlab: Genlab, exact_run: Path) -> None:
    run = Path("outputs/digits/run")
    shutil.copytree(exact_run, run)
    sweep = ("sample", "-m", "num_samples=4")
    both = ("run=run", "split=null", "seed=0,1", "temperature=0.5,1")
    for words, name in (
        (("run=run", "temperature=0.5,1"), "${temperature}"),
        (("run=run,last",), "${run}"),
        (("run=run", "images=a.png,b.png"), "${images}"),
        (both, "${seed}-${temperature}"),
    ):
        genlab(*sweep, *words).assert_error(2, f"out must name a folder for each job, such as 'out=results/{name}'")
    assert not (run / "samples").exists()
    assert "would replace each other's" in genlab("evaluate", "-m", "run=run,last", "num_images=4").errors
    assert genlab(*sweep, *both, "out=results/${seed}-${temperature}").code == 0
    pictures = {path.read_bytes() for path in Path("results").glob("*/samples.png")}
    assert len(pictures) == 4
    assert genlab(*sweep, *both[:3]).code == 0
    assert sorted(path.name for path in (run / "samples").iterdir()) == ["seed_0", "seed_1"]


def test_without_its_data_a_run_still_draws(
    genlab: Genlab, trained_run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
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
    outcome = genlab("sample", f"run={copy}", "num_samples=4", f"out={tmp_path / 'a'}").checked()
    assert "without pictures of the data: " in outcome.output
    names = {path.name for path in (tmp_path / "a").iterdir()}
    assert "samples.png" in names
    assert "reconstructions.png" not in names


def test_bad_input_is_one_line(genlab: Genlab, trained_run: Path) -> None:
    outcome = genlab("sample", f"run={trained_run}", "num_samples=0")
    assert (outcome.code, outcome.errors) == (2, "genlab: error: num_samples must be at least 1, got 0\n")
    assert genlab("sample", f"run={trained_run}", "device=cuda:7").code == 2


@pytest.mark.parametrize("word", ["temperature=0.5", "label=3", "given_rows=2", "fill=[2,0,8,8]", "method=parallel"])
def test_a_setting_that_a_model_does_not_have_is_refused(genlab: Genlab, trained_run: Path, word: str) -> None:
    outcome = genlab("sample", f"run={trained_run}", word)
    name, _, value = word.partition("=")
    rule = (
        f"{'auto' if name == 'method' else 'null'} for DRAW, which {'takes no class' if name == 'label' else 'has no'}"
    )
    assert outcome.code == 2
    assert outcome.errors.startswith(f"genlab: error: {name} must be {rule}")
    assert outcome.errors.endswith(f", got {value.replace(',', ', ')}\n")


@pytest.mark.parametrize("word", ["given_rows=2", "fill=[2,0,8,8]", "dataset.root=x", "allow_other_data=true"])
def test_what_concerns_the_images_of_a_split_is_refused_without_one(genlab: Genlab, exact_run: Path, word: str) -> None:
    outcome = genlab("sample", f"run={exact_run}", "num_samples=4", "split=null", word)
    name = word.partition("=")[0]
    assert (outcome.code, outcome.errors) == (
        2,
        f"genlab: error: {name} has no effect with split=null, which takes no images of the run's data\n",
    )


@pytest.mark.slow
def test_an_autoregressive_run_completes_from_given_rows_in_its_class(genlab: Genlab, tmp_path: Path) -> None:
    folder = tmp_path / "run"
    tiny = ["trainer=smoke", "trainer.num_steps=2", "dataset.size=8", "num_threads=1", "trainer.sample_interval=0"]
    model = ["model=gated_pixelcnn", "model.num_layers=2", "model.channels=4", "model.class_conditional=true"]
    assert genlab("train", *model, *tiny, f"hydra.run.dir={folder}").code == 0
    arguments = [f"run={folder}", "num_samples=20", "given_rows=6", "temperature=0.8", f"out={tmp_path / 'a'}"]
    genlab("sample", *arguments).checked()
    assert {"samples.png", "film.gif", "class_grid.png", "completions.png", "entropy.png"} <= {
        path.name for path in (tmp_path / "a").iterdir()
    }
    pictures = [(tmp_path / "a" / name).read_bytes() for name in ("samples.png", "completions.png")]
    assert genlab("sample", *arguments, "method=parallel").code == 0
    assert pictures == [(tmp_path / "a" / name).read_bytes() for name in ("samples.png", "completions.png")]
    assert genlab("sample", *arguments, "label=2").code == 0
    environment = json.loads((folder / "environment.json").read_text())
    assert environment["class_names"] == list("0123456789")
    (folder / "environment.json").write_text(json.dumps({**environment, "class_names": list("abcdefghijk")}))
    assert genlab("sample", *arguments, "label=c").code == 0
    for word, message in (
        ("label=two", "label must be the name or the number of a class, got two; classes: a, b, c"),
        ("label=k", "labels must be 20 classes between 0 and 9"),
        ("label=11", "label must be the name or the number of a class, got 11; classes: a, b, c"),
        ("temperature=0.0", "temperature must be positive"),
        ("given_rows=9", "given_rows must be between 0 and 8 rows"),
    ):
        genlab("sample", *arguments, word).assert_error(2, message)


@pytest.fixture(name="folder")
def given_folder(tmp_path: Path) -> Path:
    """Return a folder of three pictures of the size of the runs, with a mask of another size beside it."""
    folder = tmp_path / "given"
    folder.mkdir()
    for index, level in enumerate((0, 96, 255)):
        Image.new("L", (8, 8), level).save(folder / f"{index}.png")
    Image.new("L", (9, 8), 255).save(tmp_path / "large.png")
    return folder


def test_given_images_are_reconstructed_without_the_runs_data(
    genlab: Genlab, trained_run: Path, folder: Path, tmp_path: Path
) -> None:
    (folder / "3.png").write_bytes(b"a file that is not needed")
    outcome = genlab("sample", f"run={trained_run}", f"images={folder}", "num_samples=2", f"out={tmp_path / 'a'}")
    (folder / "3.png").unlink()
    assert (outcome.code, outcome.errors) == (0, "")
    assert "2 given images, 8x8, grey" in outcome.output
    assert "; the first of 4: num_samples=4 takes all\n" in outcome.output
    assert {path.name for path in (tmp_path / "a").iterdir()} == {
        *("reconstructions.png", "canvases_reconstruction.gif", "canvases_reconstruction.png")
    }
    with Image.open(tmp_path / "a" / "reconstructions.png") as picture:
        assert picture.width == picture.height  # an image and its reconstruction in each of two rows
    for words, code, message in (
        (("split=train",), 2, "split has no effect with images"),
        (("latent_steps=3",), 2, "latent_steps must be null for DRAW"),
        (("format=png",), 2, "images has no effect with format=png"),
        ((f"images={tmp_path / 'large.png'}",), 3, "large.png has height 8 and width 9 instead of 8 and 8"),
    ):
        genlab("sample", f"run={trained_run}", f"images={folder}", *words).assert_error(code, message)


def test_a_region_is_filled_where_the_order_of_the_model_allows_it(
    genlab: Genlab, exact_run: Path, folder: Path, tmp_path: Path
) -> None:
    mask = tmp_path / "mask.png"
    Image.fromarray((np.arange(64).reshape(8, 8) >= 43).astype(np.uint8) * 255).save(mask)
    arguments = ("sample", f"run={exact_run}", f"images={folder / '2.png'}", f"out={tmp_path / 'a'}")
    for fill, hidden in (("[6,0,8,8]", np.arange(64) >= 48), (mask, np.arange(64) >= 43)):
        outcome = genlab(*arguments, f"fill={fill}")
        assert (outcome.code, outcome.errors) == (0, "")
        with Image.open(tmp_path / "a" / "completions.png") as picture:
            shown = np.asarray(picture)[2:58:7, 2:58:7]  # the first of four, enlarged seven times, in a margin of two
        assert ((shown == 128) == hidden.reshape(8, 8)).all()
    for words, code, message in (
        (
            ("fill=[6,1,8,8]",),
            2,
            "hidden pixel at row 6, column 1 cannot depend on the given one behind it, at row 7, column 0",
        ),
        (("fill=[6,0,9,8]",), 2, "fill must be [top, left, bottom, right] within 8 rows and 8 columns"),
        ((f"fill={folder / '0.png'}",), 2, "fill must have white pixels"),
        ((f"fill={tmp_path / 'large.png'}",), 3, "large.png has height 8 and width 9 instead of 8 and 8"),
        (("fill=[6,0,8,8]", "given_rows=2"), 2, "given_rows must be null with fill"),
    ):
        genlab(*arguments, *words).assert_error(code, message)


def test_the_latents_of_given_images_are_found_in_a_gan(
    genlab: Genlab, cgan_run: Path, folder: Path, tmp_path: Path
) -> None:
    arguments = ("sample", f"run={cgan_run}", f"images={folder}", f"out={tmp_path / 'a'}", "latent_steps=3")
    outcome = genlab(*arguments, "label=3")
    assert (outcome.code, outcome.errors) == (0, "")
    record = json.loads((tmp_path / "a" / "latents.json").read_text())
    assert [entry["file"] for entry in record["images"]] == ["0.png", "1.png", "2.png"]
    inputs = load_file(tmp_path / "a" / "latents.safetensors")["inputs"]
    assert inputs[:, -10:].argmax(1).tolist() == [3, 3, 3]
    found = genlab_package.load(cgan_run).render(inputs)
    for entry, image, level in zip(record["images"], found, (0, 6 / 16, 1), strict=True):
        assert entry["rms_error"] == pytest.approx((image - level).square().mean().sqrt().item(), rel=1e-4)
        assert entry["rms_error"] <= entry["rms_error_of_draws"] + 1e-6
        assert f"{entry['file']}      {entry['rms_error_of_draws']:.4f}" in outcome.output
    assert genlab(*arguments, "label=3").output == outcome.output
    for words, message in (
        (("label=10",), "label must be the name or the number of a class, got 10; classes: 0, 1"),
        (("latent_steps=0",), "latent_steps must be an integer of at least 1, got 0"),
        (("images=null",), "latent_steps must be null without images=FOLDER"),
    ):
        genlab(*arguments, *words).assert_error(2, message)


def test_a_model_without_pictures_is_answered_with_what_can_be_done(genlab: Genlab, classifier_run: Path) -> None:
    outcome = genlab("sample", f"run={classifier_run}")
    outcome.assert_error(2, f"run must be of a model that draws pictures, got {classifier_run}, a Classifier")
    assert f"genlab evaluate run={classifier_run} measures it" in outcome.errors
