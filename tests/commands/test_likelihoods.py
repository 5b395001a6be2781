"""Likelihoods of pictures that a user names, against the model itself."""

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

import genlab
from genlab.metrics.novelty import auroc
from genlab.models.base import Model
from genlab.randomness import derive_seed
from genlab.types import Batch
from tests.commands.conftest import train_tiny
from tests.conftest import Genlab

NUM_IMAGES = 5


@pytest.fixture(name="pictures")
def named_pictures(tmp_path: Path) -> tuple[Path, Batch]:
    """Return a folder, whose name needs quotes for a shell and for Hydra, and its pictures."""
    folder = tmp_path / "my pictures, of 2024"
    folder.mkdir()
    levels = np.random.default_rng(0).integers(0, 256, (NUM_IMAGES, 8, 8), dtype=np.uint8)
    for index, image in enumerate(levels):
        Image.fromarray(image).save(folder / f"{index}.png")
    images = torch.from_numpy(levels)[:, None].ge(128).float()
    return folder, Batch(images=images, labels=torch.full((NUM_IMAGES,), -1))


def test_each_picture_has_the_exact_value_of_the_model(
    genlab: Genlab, exact_run: Path, pictures: tuple[Path, Batch]
) -> None:
    folder, batch = pictures
    outcome = genlab("evaluate", f"run={exact_run}", f"images={folder}", "batch_size=2")
    assert (outcome.code, outcome.errors) == (0, "")
    record = json.loads((exact_run / "likelihoods.json").read_text())
    expected = _load(exact_run).evaluate(batch)
    assert [image["file"] for image in record["images"]] == [f"{index}.png" for index in range(NUM_IMAGES)]
    assert [measure["name"] for measure in record["measures"]] == ["nll_nats", "bits_per_dim"]
    for measure in record["measures"]:
        values = expected[measure["name"]].double()
        assert [image[measure["name"]] for image in record["images"]] == pytest.approx(values.tolist(), rel=1e-5)
        assert measure["mean"] == pytest.approx(values.mean().item(), rel=1e-5)
        assert measure["standard_error"] == pytest.approx(values.std().item() / NUM_IMAGES**0.5, rel=1e-4)
        assert measure["kind"] == "exact"
    _, said, *table, _ = outcome.output.splitlines()
    assert "binarised at grey value 0.5 as the run's data are (binary already: 0)" in said
    assert [line.split() for line in table[:3]] == [
        ["file", "nll_nats", "bits_per_dim"],
        ["nats/image", "bits/dim"],
        ["exact", "exact"],
    ]
    assert [line.split() for line in table[4 : 4 + NUM_IMAGES]] == [
        [f"{index}.png", f"{nats:.2f}", f"{bits:.4f}"]
        for index, (nats, bits) in enumerate(zip(*(values.tolist() for values in expected.values()), strict=True))
    ]
    assert table[-2].startswith("mean of 5")
    assert table[-2].split()[3] == f"{expected['nll_nats'].mean():.2f}"
    assert str(exact_run / "likelihoods.json") in outcome.output


def test_bounds_are_said_to_be_bounds(genlab: Genlab, trained_run: Path, pictures: tuple[Path, Batch]) -> None:
    folder, batch = pictures
    arguments = ("evaluate", f"run={trained_run}", f"images={folder}", "num_importance_samples=3", "seed=4")
    outcome = genlab(*arguments).checked()
    record = json.loads((trained_run / "likelihoods.json").read_text())
    assert {measure["name"]: measure["kind"] for measure in record["measures"]} == {
        "nll_upper_bound_nats": "upper bound",
        "bits_per_dim": "upper bound",
        "nll_importance_weighted_nats": "upper bound",
    }
    assert "nats/image (K=3)" in outcome.output
    assert outcome.output.count("upper bound") == 3
    model = _load(trained_run)
    torch.manual_seed(derive_seed(4, "evaluate", "images", 0))  # the first and only batch
    expected = model.diagnose(batch, num_importance_samples=3)
    for measure in record["measures"]:
        values = [image[measure["name"]] for image in record["images"]]
        assert values == pytest.approx(expected[measure["name"]].tolist(), rel=1e-5)
    assert genlab(*arguments).output == outcome.output
    without = genlab(*arguments[:3], "num_importance_samples=0")
    assert "importance_weighted" not in without.output


def test_two_folders_are_told_apart_by_the_values_of_the_model(
    genlab: Genlab, exact_run: Path, pictures: tuple[Path, Batch]
) -> None:
    folder, batch = pictures
    novel = folder.parent / "novel"
    novel.mkdir()
    for index, level in enumerate((0, 255, 255)):
        Image.new("L", (8, 8), level).save(novel / f"{index}.png")
    arguments = ("evaluate", f"run={exact_run}", f"images={folder}")
    outcome = genlab(*arguments, f"against={novel}")
    assert (outcome.code, outcome.errors) == (0, "")
    model = _load(exact_run)
    others = Batch(
        images=torch.tensor([0.0, 1.0, 1.0]).view(3, 1, 1, 1).expand(-1, 1, 8, 8), labels=-torch.ones(3).long()
    )
    familiar, unfamiliar = (model.evaluate(one)["nll_nats"].tolist() for one in (batch, others))
    expected = sum(mine < other for mine in familiar for other in unfamiliar) / 15
    assert expected != 0.5, "it says which set is the novel one"
    error = auroc(torch.tensor(familiar), torch.tensor(unfamiliar)).standard_error
    record = json.loads((exact_run / "likelihoods.json").read_text())
    assert [entry["auroc"] for entry in record["novelty"]] == pytest.approx([expected] * 2)
    assert [entry["standard_error"] for entry in record["novelty"]] == pytest.approx([error] * 2)
    assert [image["nll_nats"] for image in record["against"]["images"]] == pytest.approx(unfamiliar, rel=1e-5)
    assert f"AUROC    {expected:.4f}      {expected:.4f}" in outcome.output
    assert f"+- s.e.  {error:.4f}      {error:.4f}" in outcome.output
    assert max(map(len, outcome.output.splitlines()[3:-1])) < 80
    assert genlab("evaluate", f"run={exact_run}", f"against={novel}").code == 2
    outcome = genlab(*arguments, "against=nowhere")
    outcome.assert_error(3, "against must be a picture or a folder of pictures, and nowhere does not exist")


@pytest.mark.slow
def test_models_that_give_files_no_likelihood_are_refused(
    genlab: Genlab, tmp_path_factory: pytest.TempPathFactory, pictures: tuple[Path, Batch]
) -> None:
    run = train_tiny(tmp_path_factory, "gan")
    outcome = genlab("evaluate", f"run={run}", f"images={pictures[0]}")
    assert (outcome.code, outcome.output) == (2, "")
    assert "images must be null for GAN, which declares no likelihood" in outcome.errors
    assert outcome.errors.count("\n") == 1
    assert not (run / "likelihoods.json").exists()


@pytest.mark.slow
def test_pictures_have_a_likelihood_given_a_class(
    genlab: Genlab, tmp_path_factory: pytest.TempPathFactory, pictures: tuple[Path, Batch]
) -> None:
    folder, batch = pictures
    small = ("model.num_layers=2", "model.channels=4", "model.class_conditional=true")
    run = train_tiny(tmp_path_factory, "gated_pixelcnn", *small)
    words = ("evaluate", f"run={run}", f"images={folder}")
    for label, message in ((None, "label must name the class of the images"), (10, "got 10"), ("cat", "got cat")):
        outcome = genlab(*words, *([] if label is None else [f"label={label}"]))
        assert (outcome.code, outcome.output, outcome.errors.count("\n")) == (2, "", 1)
        assert message in outcome.errors
    assert genlab(*words, "label=3").code == 0
    record = json.loads((run / "likelihoods.json").read_text())
    expected = _load(run).evaluate(replace(batch, labels=torch.full_like(batch.labels, 3)))["nll_nats"]
    assert record["label"] == 3
    assert [image["nll_nats"] for image in record["images"]] == pytest.approx(expected.tolist(), rel=1e-5)


@pytest.mark.slow
def test_bad_input_is_one_line(genlab: Genlab, exact_run: Path, pictures: tuple[Path, Batch]) -> None:
    folder, _ = pictures
    cut = folder.parent / "cut.png"
    cut.write_bytes((folder / "0.png").read_bytes()[:-20])
    cases = {
        "images=nowhere": (3, "nowhere does not exist"),
        f"images={cut}": (3, "cut.png is truncated"),
        f"images={exact_run / 'checkpoints'}": (3, "images must hold PNG, JPEG or WebP files"),
        f"images={exact_run / 'config.yaml'}": (3, "config.yaml is not a PNG, JPEG or WEBP image"),
    }
    for word, (code, message) in cases.items():
        genlab("evaluate", f"run={exact_run}", word).assert_error(code, message)
    for key in ("split=test", "samples=false", "num_images=3"):
        outcome = genlab("evaluate", f"run={exact_run}", f"images={folder}", key)
        outcome.assert_error(2, f"{key.split('=')[0]} has no effect on the likelihoods of given images")
    outcome = genlab("evaluate", f"run={exact_run}", f"images={folder}", "label=3")
    assert (outcome.code, "which takes no class, got 3" in outcome.errors) == (2, True)
    assert genlab("evaluate", f"run={exact_run}", "label=3").code == 2
    assert genlab("evaluate", f"run={exact_run}", "images=null", "split=validation").code == 0


def test_pictures_of_a_model_that_couples_images_are_refused(
    genlab: Genlab, exact_run: Path, pictures: tuple[Path, Batch], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Model, "couples_images", True)
    outcome = genlab("evaluate", f"run={exact_run}", f"images={pictures[0]}")
    outcome.assert_error(2, "the likelihood of a picture would depend on the others")


def _load(run: Path) -> Model:
    model: Model = genlab.load(run)
    return model
