"""Pretrained models by name: where they are searched, the index of digests, and the one that is included."""

import hashlib
from pathlib import Path

import pytest

import genlab
from genlab.commands import pretrained as command
from genlab.errors import CheckpointError, ConfigurationError
from genlab.run.names import find_run, named_run
from genlab.run.pretrained import INDEX_NAME, digests, find_pretrained, known_names, outside, write_index
from tests.conftest import Genlab

SHIPPED = Path(genlab.__file__).parent / "pretrained"


def make(place: Path, name: str, *, content: bytes = b"weights") -> Path:
    folder = place / name
    folder.mkdir(parents=True)
    (folder / "config.yaml").write_text("seed: 0")
    (folder / "model.safetensors").write_bytes(content)
    (folder / INDEX_NAME).write_text(f"{hashlib.sha256(content).hexdigest()}  model.safetensors\n")
    return folder


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("GENLAB_PRETRAINED", str(tmp_path / "models"))
    return tmp_path / "models"


def test_a_model_is_found_by_its_name_in_the_index_and_not_with_another_digest(place: Path) -> None:
    folder = make(place, "draw_mnist_quick")
    make(place, "other", content=b"others")
    write_index(place)
    assert set(digests(place)) == {"draw_mnist_quick", "other"}
    assert named_run("draw_mnist_quick") == find_run("draw_mnist_quick") == folder
    assert [find_pretrained(name) for name in ("draw", "../models", "models/other", "")] == [None] * 4
    (folder / INDEX_NAME).write_text(f"{'0' * 64}  model.safetensors\n")
    with pytest.raises(CheckpointError, match="is damaged: its digest is not that of"):
        find_run("draw_mnist_quick")


def test_a_run_of_the_same_name_comes_first(place: Path) -> None:
    make(place, "draw_mnist_quick")
    write_index(place)
    own = make(Path("outputs/mnist-draw"), "draw_mnist_quick")
    (own / "model.safetensors").unlink()
    (own / "checkpoints").mkdir()
    assert find_run("draw_mnist_quick") == own


def test_the_name_of_a_model_that_is_not_there_says_how_to_make_it(place: Path) -> None:
    with pytest.raises(ConfigurationError) as error:
        find_run("draw_mnist_quick")
    assert str(error.value) == "draw_mnist_quick is not in models; to train it: genlab pretrained draw_mnist_quick"


def test_the_included_model_is_small_whole_and_draws(place: Path) -> None:
    folder = SHIPPED / "digits_draw"
    assert sum(file.stat().st_size for file in SHIPPED.rglob("*")) < 4_000_000
    weights = (folder / "model.safetensors").read_bytes()
    assert digests(SHIPPED) == {"digits_draw": hashlib.sha256(weights).hexdigest()}
    assert "/" not in (folder / "config.yaml").read_text()  # no path of the machine that made it
    assert genlab.load("digits_draw").sample(2).shape == (2, 1, 28, 28)


def test_the_included_model_is_neither_written_to_nor_deleted(place: Path, genlab: Genlab) -> None:
    folder = SHIPPED / "digits_draw"
    assert outside(folder / "samples") == Path("outputs/pretrained/digits_draw/samples")
    assert outside(Path("outputs/a")) == Path("outputs/a")
    genlab("runs", "rm", "digits_draw", "--yes").assert_error(2, "rm must name runs of training")
    assert folder.is_dir()


def test_the_list_names_every_quick_twin(place: Path, genlab: Genlab) -> None:
    outcome = genlab("pretrained")
    assert (outcome.code, outcome.errors) == (0, "")
    rows = dict(line.split(maxsplit=1) for line in outcome.output.splitlines())
    assert list(rows)[: len(known_names())] == known_names()
    assert rows["digits_draw"].startswith("3.")
    assert rows["draw_mnist_quick"] == "genlab pretrained draw_mnist_quick makes it"
    outcome = genlab("pretrained", "draw_mnist_quik")
    outcome.assert_error(2, "names has no 'draw_mnist_quik'; did you mean 'draw_mnist_quick'?")


def test_a_damaged_model_takes_nothing_from_the_others(place: Path, genlab: Genlab) -> None:
    for name in ("draw_mnist_quick", "lsgan_mnist_quick", "sngan_mnist_quick"):
        make(place, name)
    write_index(place)
    (place / "draw_mnist_quick" / "model.safetensors").unlink()
    (place / "lsgan_mnist_quick" / INDEX_NAME).write_text(f"{'0' * 64}  model.safetensors\n")
    outcome = genlab("pretrained")
    assert (outcome.code, outcome.errors) == (0, "")
    rows = dict(line.split(maxsplit=1) for line in outcome.output.splitlines())
    assert "it has no model.safetensors; remove it, then genlab pretrained draw" in rows["draw_mnist_quick"]
    assert "is damaged: its digest is not that of" in rows["lsgan_mnist_quick"]
    assert rows["sngan_mnist_quick"].startswith("0.0 MB, SHA-256")
    for name in ("draw_mnist_quick", "lsgan_mnist_quick"):
        assert genlab("pretrained", name).code == 4
    (place / "wgan_gp_mnist_quick").mkdir()
    outcome = genlab("pretrained", "wgan_gp_mnist_quick")
    outcome.assert_error(2, "models/wgan_gp_mnist_quick is no pretrained model; remove or rename it")


def test_a_folder_that_cannot_be_written_is_refused_before_a_training(
    place: Path, genlab: Genlab, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(command, "_train", lambda name: pytest.fail("trained"))
    place.write_text("a file")
    outcome = genlab("pretrained", "draw_mnist_quick")
    outcome.assert_error(7, "models cannot be written (Not a directory); GENLAB_PRETRAINED=FOLDER writes elsewhere")


@pytest.mark.slow
def test_a_training_does_not_import_from_the_working_directory(
    place: Path, genlab: Genlab, monkeypatch: pytest.MonkeyPatch
) -> None:
    Path("typing.py").write_text("raise SystemExit('imported from the working directory')")
    monkeypatch.setattr(command, "overrides_of", lambda name: ["model=no_such_model"])
    genlab("pretrained", "draw_mnist_quick").assert_error(2, "no_such_model")


@pytest.mark.slow
def test_finished_runs_are_exported_and_others_are_not(
    place: Path, genlab: Genlab, monkeypatch: pytest.MonkeyPatch
) -> None:
    overrides = ["model=draw", "dataset.size=8", "trainer=smoke", "model.num_units=4", "model.num_glimpses=2"]
    monkeypatch.setattr(command, "overrides_of", lambda name: overrides)
    monkeypatch.setattr(command, "known_names", lambda: ["digits_draw"])
    assert genlab("train", *overrides, "trainer.num_steps=2").code == 0
    outcome = genlab("pretrained", "--all")
    assert "no further finished run of a quick experiment in outputs/" in outcome.output
    assert genlab("train", *overrides, "num_threads=1").code == 0
    outcome = genlab("pretrained", "--all")
    assert (outcome.code, outcome.errors) == (0, "")
    assert list(digests(place)) == ["digits_draw"]
    assert find_run("digits_draw") == place / "digits_draw"
    assert genlab("sample", "run=digits_draw", "num_samples=2").code == 0
    assert list(Path("outputs/pretrained/digits_draw/samples/seed_0").glob("*.png"))
