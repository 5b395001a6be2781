"""Measures of images that genlab may not have made, beside those of a run."""

import json
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from genlab.commands import evaluate
from genlab.commands.sample_files import describe_sampling, draw_files
from genlab.commands.samples import measure_given_samples
from genlab.comparison.runs import read_runs
from genlab.config.compose import open_composer, plain
from genlab.data.digits import digits
from genlab.data.image_set import read_image_set
from genlab.errors import ConfigurationError
from genlab.metrics.generation import Generated, generated_images
from genlab.metrics.ledger import Source
from genlab.metrics.quality import Comparison, Protocol, Reference
from genlab.metrics.random_network import RandomNetworkFeatures
from genlab.run.loading import build_dataset, load_trained
from tests.conftest import Genlab
from tests.data.sources import SMALL_DIGITS

CPU = torch.device("cpu")
NUM = 60


@pytest.fixture(autouse=True)
def no_classifier_from_the_users_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))


def save(folder: Path, num: int, *, seed: int = 0) -> None:
    folder.mkdir()
    levels = np.random.default_rng(seed).integers(0, 256, (num, 8, 8), dtype=np.uint8)
    for index, image in enumerate(levels):
        Image.fromarray(image).save(folder / f"{index}.png")


def entered(folder: Path) -> dict[str, dict[str, Any]]:
    record = json.loads((folder / "evaluation.json").read_text())
    return {entry["name"]: entry for entry in [*record["measures"], *record["baselines"]] if entry["num_generated"]}


@pytest.mark.parametrize("kind", ["png", pytest.param("npz", marks=pytest.mark.slow)])
def test_sampled_files_measure_as_the_run_to_the_last_bit(
    genlab: Genlab, cgan_run: Path, classifier_run: Path, kind: str
) -> None:
    """Class-conditional, with every measure that a run has: names, values, errors, protocols and fingerprints."""
    same = (f"classifier={classifier_run}", "batch_size=16", "num_threads=1", "parzen=true", "num_images=200")
    assert genlab("sample", f"run={cgan_run}", f"format={kind}", f"num_samples={NUM}", "out=files").code == 0
    outcome = genlab("evaluate", "samples=files", "dataset=digits_grey", "dataset.size=8", "out=a", *same).checked()
    assert outcome.output.startswith("files: 60 images, 8x8, grey\n")
    assert genlab("evaluate", f"run={cgan_run}", f"num_generated={NUM}", "out=b", *same).code == 0
    of_files, of_run = entered(Path("a")), entered(Path("b"))
    assert len(of_run) > 25
    assert of_files == of_run
    run = read_runs([Path("a")])[0]
    assert (run.status, run.model, run.dataset, run.problems) == ("given samples", "files", "digits", ())
    assert {record.name for record in run.records} <= set(of_run)


def test_files_give_the_images_in_memory(cgan_run: Path, tmp_path: Path) -> None:
    trained = load_trained(cgan_run, checkpoint="best", device=CPU)
    dataset = build_dataset(trained.run)
    expected = generated_images(trained.model, dataset, NUM, seed=4, device=CPU)
    for kind in ("png", "npz"):
        sampling = describe_sampling(trained, format=kind, num_samples=NUM, seed=4, label=None, temperature=None)
        draw_files(trained, sampling, tmp_path / kind, options={}, allow_other_data=False, device=CPU, command="")
        images = read_image_set(tmp_path / kind, key="samples")
        assert torch.equal(images.levels, expected.levels)
        assert torch.equal(images.labels_among(dataset.class_names), expected.labels)


def test_the_number_of_threads_counts(genlab: Genlab, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    save(tmp_path / "theirs", 60)
    save(tmp_path / "real", 70, seed=1)
    chosen: list[int] = []
    monkeypatch.setattr(torch, "set_num_threads", chosen.append)
    assert genlab("evaluate", "samples=theirs", "reference=real", "out=a", "num_threads=3").code == 0
    assert 3 in chosen


def test_without_a_data_set_two_folders_are_compared_on_a_random_network(genlab: Genlab, tmp_path: Path) -> None:
    save(tmp_path / "theirs", 60)
    save(tmp_path / "real", 70, seed=1)
    outcome = genlab("evaluate", "samples=theirs", "reference=real", "out=a", "num_images=55").checked()
    assert "there is no dataset=NAME with labels; classifier=RUN names one" in outcome.output
    found = entered(Path("a"))
    assert set(found) == {
        f"{name}_random_network"
        for name in ("frechet_distance", "kernel_distance", "precision", "recall", "density", "coverage")
    }
    frechet = found["frechet_distance_random_network"]
    assert (frechet["split"], frechet["dataset"], frechet["weights"]) == ("files", "real", "unknown")
    assert (frechet["num_generated"], frechet["num_examples"]) == (60, 55)
    assert frechet["dataset_fingerprint"] == read_image_set(tmp_path / "real", key="x").fingerprint


@pytest.mark.slow
def test_a_run_is_compared_with_a_folder(
    genlab: Genlab, tmp_path: Path, trained_run: Path, classifier_run: Path
) -> None:
    """Also one with a likelihood, whose samples are not measured unless they are asked for."""
    save(tmp_path / "real", 70)
    settings = (f"run={trained_run}", "num_generated=50", "num_importance_samples=0", "out=a", "num_images=60")
    genlab("evaluate", *settings, "reference=real", f"classifier={classifier_run}").checked()
    found = entered(Path("a"))
    frechet, neighbours = (found[name] for name in ("frechet_distance_classifier", "nearest_training_distance_pixels"))
    assert (frechet["split"], frechet["dataset"], frechet["num_examples"]) == ("files", "real", 60)
    assert neighbours["dataset"] == "digits"
    assert found["baseline_real_frechet_distance_classifier"]["num_generated"] == 50


def test_nearest_training_images_are_those_of_the_data_set() -> None:
    """Of a reference in files the neighbours are still training images, and its own are the baseline."""
    dataset = digits(**SMALL_DIGITS)
    levels = (dataset.subset("train", 60, seed=0, device=CPU).images * 255).byte()
    reference = Reference(levels=levels, source=Source.of(dataset), split=None)
    extractors = [RandomNetworkFeatures(dataset.spec, device=CPU)]
    protocol = Protocol(seed=0, batch_size=100, parzen=False, nearest_training=True)
    generated = Generated(levels=255 - levels, labels=None)
    report = Comparison(generated, reference, extractors, protocol, dataset=dataset, device=CPU).report()
    values = {entry.name: entry.value for entry in [*report.estimates, *report.baselines]}
    assert values["baseline_real_nearest_training_distance_pixels"] == 0
    assert values["nearest_training_distance_pixels"] > 3
    assert values["frechet_distance_random_network"] > 5 * values["baseline_real_frechet_distance_random_network"]


def test_too_few_images_are_one_line(genlab: Genlab, tmp_path: Path) -> None:
    save(tmp_path / "s", 60)
    save(tmp_path / "few", 12)
    for arguments, message in (
        (("samples=few", "reference=s"), "samples must be at least 50 images, got 12 of few"),
        (("samples=s", "reference=few"), "samples are compared with at least 50 images, got 12 of few"),
        (
            ("samples=s", "dataset=digits_grey", "num_images=20"),
            "samples are compared with at least 50 images, got 20 of split test; a larger num_images takes more",
        ),
        (
            ("samples=s", "dataset=digits_grey", "dataset.num_test=20"),
            "samples are compared with at least 50 images, got 20 of split test; reference_split=validation has more",
        ),
    ):
        outcome = genlab("evaluate", *arguments, "out=a")
        assert (outcome.code, outcome.errors) == (3, f"genlab: error: {message}\n")


def test_settings_that_do_not_go_together_are_one_line() -> None:
    with open_composer("evaluate", config_dir=None) as composer:
        values = plain(composer.compose([]))
    real: dict[str, Any] = {"samples": "s", "reference": "s", "out": "a"}
    for changes, message in (
        (real | {"out": None}, "out must name the folder for evaluation.json with samples=FOLDER, got null"),
        (real | {"reference": None}, "reference must name a folder or an .npz file of real images, or dataset=NAME"),
        (real | {"reference": "mnist"}, "got mnist; did you mean dataset=mnist?"),
        (real | {"num_generated": 60}, "num_generated has no effect on the measures of given samples"),
        (
            real | {"run": "x", "samples": str(Path(__file__))},
            "run has no effect on the measures of given samples: leave it out, or samples",
        ),
        ({"run": "x", "samples": "ture"}, "samples must be null, true or false, or without run a folder"),
        ({"run": "x", "samples": False, "reference": "s"}, "reference must be null with samples=false, got s"),
        (real | {"reference_split": "train"}, "reference_split has no effect with reference"),
        (real | {"parzen": True}, "parzen must be false without dataset=NAME"),
        (real | {"dataset": {"root": "x"}}, "dataset.root needs dataset=NAME"),
        ({"run": "x", "dataset": {"_target_": "x", "root": None}}, "dataset must be null with run, whose data"),
        ({}, "run must be given: add run=...; samples=FOLDER measures images of another program"),
    ):
        overrides = [f"{key}={'{}' if isinstance(value, dict) else value}" for key, value in changes.items()]
        with pytest.raises(ConfigurationError, match=re.escape(message)):
            evaluate.read(values | changes, overrides)
    read = evaluate.read(values | real, [])
    assert (read.samples, read.run) == ("s", None)


def test_the_folder_of_a_run_keeps_its_own_ledger(cgan_run: Path, tmp_path: Path) -> None:
    with open_composer("evaluate", config_dir=None) as composer:
        values = plain(composer.compose([]))
    settings = evaluate.read(values | {"samples": "s", "reference": "s", "out": str(cgan_run)}, [])
    with pytest.raises(ConfigurationError, match="out must be a folder other than that of a run, got"):
        measure_given_samples(settings, CPU, "")
