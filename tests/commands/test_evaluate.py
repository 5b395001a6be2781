"""The ledger of a run, against the model itself."""

import json
import re
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from omegaconf import OmegaConf
from PIL import Image

import genlab
from genlab.commands.evaluate import read
from genlab.config.location import config_directory
from genlab.data.digits import digits
from genlab.errors import ConfigurationError
from tests.commands.conftest import train_tiny
from tests.conftest import Genlab
from tests.data.sources import SMALL_DIGITS
from tests.thinning import slow


@pytest.fixture(name="record")
def evaluated(genlab: Genlab, trained_run: Path) -> dict[str, object]:
    outcome = genlab("evaluate", f"run={trained_run}", "num_importance_samples=4", "batch_size=128").checked()
    assert "nll_importance_weighted_nats (K=4)" in outcome.output
    assert "baseline_per_pixel_bernoulli_nats" in outcome.output
    return json.loads((trained_run / "evaluation.json").read_text())


def test_every_measure_is_there_with_what_makes_it_comparable(record: dict[str, object]) -> None:
    measures = {measure["name"]: measure for measure in record["measures"]}
    bound, weighted = measures["nll_upper_bound_nats"], measures["nll_importance_weighted_nats"]
    parts = measures["reconstruction_nats"]["value"] + measures["kl_nats"]["value"]
    assert bound["value"] == pytest.approx(parts, rel=1e-5)
    assert weighted["value"] < bound["value"]
    assert (bound["kind"], bound["unit"], bound["num_examples"]) == ("upper bound", "nats/image", 300)
    assert (weighted["num_importance_samples"], bound["num_importance_samples"]) == (4, None)
    assert (bound["binarization"], bound["split"], bound["weights"]) == ("threshold", "test", "trained")
    curve = measures["nll_upper_bound_by_glimpses_nats"]["value"]
    assert len(curve) == 2
    assert curve[-1] == pytest.approx(bound["value"], rel=1e-5)
    assert sum(measures["kl_per_glimpse_nats"]["value"]) == pytest.approx(measures["kl_nats"]["value"], rel=1e-5)


def test_the_loaded_model_measures_the_same(record: dict[str, object], trained_run: Path) -> None:
    model = genlab.load(trained_run)
    dataset = digits(**SMALL_DIGITS)
    assert {measure["dataset_fingerprint"] for measure in record["measures"]} == {dataset.fingerprint}
    torch.manual_seed(0)
    values = [
        model.evaluate(batch)["nll_upper_bound_nats"]
        for batch in dataset.batches("test", batch_size=300, seed=0, device=torch.device("cpu"))
    ]
    (bound,) = [m for m in record["measures"] if m["name"] == "nll_upper_bound_nats"]
    assert torch.cat(values).mean().item() == pytest.approx(bound["value"], abs=4 * bound["standard_error"])
    assert model.sample(5).shape == (5, 1, 8, 8)


def test_the_same_command_gives_the_same_numbers(genlab: Genlab, trained_run: Path, record: dict[str, object]) -> None:
    genlab("evaluate", f"run={trained_run}", "num_importance_samples=4", "batch_size=128")
    again = json.loads((trained_run / "evaluation.json").read_text())
    assert again["measures"] == record["measures"]


def test_a_part_of_a_split_is_measured_beside_its_own_baseline(genlab: Genlab, trained_run: Path) -> None:
    assert genlab("evaluate", f"run={trained_run}", "num_images=40", "num_importance_samples=0").code == 0
    record = json.loads((trained_run / "evaluation.json").read_text())
    assert {entry["num_examples"] for entry in [*record["measures"], *record["baselines"]]} == {40}
    assert "nll_importance_weighted_nats" not in {entry["name"] for entry in record["measures"]}


@pytest.mark.parametrize("changes", [("split=validation",), slow((("samples=true", "reference_split=validation"),))])
def test_the_ledger_of_another_split_leaves_that_of_the_test(
    genlab: Genlab, trained_run: Path, record: dict[str, object], changes: tuple[str, ...]
) -> None:
    small = ("num_importance_samples=0", "num_generated=50", "classifier=null", "nearest_training=false")
    outcome = genlab("evaluate", f"run={trained_run}", *changes, *(small if "samples=true" in changes else small[:1]))
    assert outcome.code == 0, outcome.errors
    assert outcome.output.endswith("evaluation_validation.json\n")
    other = json.loads((trained_run / "evaluation_validation.json").read_text())
    assert "validation" in {entry["split"] for entry in other["measures"]}
    assert json.loads((trained_run / "evaluation.json").read_text()) == record
    compared = genlab("compare", str(trained_run), "--json")
    assert json.loads(compared.output)["runs"][0]["measures"]["nll_nats"]["split"] == "test"


@pytest.mark.slow
def test_jobs_of_a_sweep_that_would_replace_each_others_results_are_refused(
    genlab: Genlab, trained_run: Path, record: dict[str, object]
) -> None:
    sweep = ("evaluate", "-m", f"run={trained_run}", "num_images=40", "num_importance_samples=0,2")
    refused = genlab(*sweep)
    refused.assert_error(2, "out must name a folder for each job, such as 'out=results/${num_importance_samples}'")
    assert genlab(*sweep, "out=one").code == 2
    assert json.loads((trained_run / "evaluation.json").read_text()) == record
    assert genlab(*sweep, "out=results/${num_importance_samples}").code == 0
    for number in (0, 2):
        measures = json.loads(Path(f"results/{number}/evaluation.json").read_text())["measures"]
        counts = {entry["num_importance_samples"] for entry in measures}
        assert counts == ({None, number} if number else {None})
    assert genlab(*sweep[:-1], "num_importance_samples=0", "split=train,validation").code == 0


def test_classification_is_measured_on_the_labelled_images_of_a_split(
    genlab: Genlab, tmp_path_factory: pytest.TempPathFactory
) -> None:
    tiny = ("model.num_glimpses=2", "model.num_units=16", "model.read_size=3", "dataset.num_labels_per_class=10")
    run = train_tiny(tmp_path_factory, "draw_classifier", *tiny)
    assert genlab("evaluate", f"run={run}", "split=train").code == 0
    measures = json.loads((run / "evaluation_train.json").read_text())["measures"]
    assert {(entry["name"], entry["num_examples"]) for entry in measures} == {
        ("cross_entropy_nats", 100),
        ("error", 100),
    }
    assert all(0 < entry["value"] < 5 and 0 < entry["standard_error"] < 1 for entry in measures)


@pytest.mark.parametrize(
    ("arguments", "code", "message"),
    [
        (["run=nowhere"], 2, "there is no run in nowhere"),
        ([], 2, "run"),
        (["split=tets"], 2, "did you mean 'test'"),
        (["num_importance_samples=-1"], 2, "num_importance_samples must be 0 or more, got -1"),
        (["num_images=0"], 2, "num_images must be null or at least 1, got 0"),
        (["bach_size=3"], 2, "batch_size"),
        (["num_generated=49"], 2, "num_generated must be at least 50, got 49"),
        (["samples=true", "reference_split=train", "num_images=20"], 3, "at least 50 images, got 20"),
        (["samples=true", "num_generated=50", "classifier=nowhere"], 2, "there is no run in nowhere"),
        (["samples=true", "num_generated=50", "inception_weights=nowhere"], 4, "nowhere cannot be read"),
        # Each asks for samples of a model with a likelihood, too.
        (["num_generated=50", "classifier=nowhere"], 2, "there is no run in nowhere"),
        (["num_generated=50", "inception_weights=nowhere"], 4, "nowhere cannot be read"),
        (["reference_split=train", "num_images=20"], 3, "at least 50 images, got 20"),
        (["num_generated=50", "num_images=20"], 3, "at least 50 images, got 20"),
        (["nearest_training=true", "num_images=20"], 3, "at least 50 images, got 20"),
        (["samples=false", "nearest_training=true"], 2, "nearest_training must be left out with samples=false"),
        (["samples=false", "inception_weights=auto"], 2, "inception_weights must be null with samples=false, got auto"),
        (["samples=false", "parzen=true"], 2, "parzen must be false with samples=false"),
    ],
)
def test_bad_input_is_one_line(
    genlab: Genlab, trained_run: Path, arguments: list[str], code: int, message: str
) -> None:
    run = [] if not arguments or arguments[0].startswith("run=") else [f"run={trained_run}"]
    genlab("evaluate", *run, *arguments).assert_error(code, message)


@pytest.mark.parametrize("of_images", [False, True])
def test_importance_samples_are_refused_where_no_measure_takes_them(
    genlab: Genlab, exact_run: Path, tmp_path: Path, of_images: bool
) -> None:
    Image.new("L", (8, 8)).save(tmp_path / "a.png")
    arguments = ("evaluate", f"run={exact_run}", *([f"images={tmp_path / 'a.png'}"] if of_images else []))
    outcome = genlab(*arguments, "num_importance_samples=7")
    assert (outcome.code, outcome.errors) == (
        2,
        "genlab: error: num_importance_samples must be 0 or left out for GatedPixelCNN, which declares no "
        "importance-weighted measure, got 7\n",
    )
    assert genlab(*arguments, "num_importance_samples=0").code == 0


def test_damaged_and_incompatible_checkpoints_are_refused(genlab: Genlab, trained_run: Path, tmp_path: Path) -> None:
    copy = tmp_path / "copy"
    shutil.copytree(trained_run, copy)
    path = copy / "checkpoints" / "best.safetensors"
    path.write_bytes(path.read_bytes()[:-1])
    genlab("evaluate", f"run={copy}").assert_error(4, "best.safetensors is damaged")
    path.unlink()
    config = copy / "config.yaml"
    config.write_text(config.read_text().replace("num_units: 16", "num_units: 17"))
    genlab("evaluate", f"run={copy}").assert_error(4, "another model")


@pytest.fixture(autouse=True)
def no_classifier_from_the_users_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))


FEW = "num_generated=60"


def measured(genlab: Genlab, run: Path, *arguments: str) -> tuple[dict[str, dict[str, object]], str]:
    outcome = genlab("evaluate", f"run={run}", "num_importance_samples=0", *arguments).checked()
    record = json.loads((run / "evaluation.json").read_text())
    return {measure["name"]: measure for measure in [*record["measures"], *record["baselines"]]}, outcome.output


def test_samples_are_measured_where_there_is_no_likelihood(
    genlab: Genlab, cgan_run: Path, classifier_run: Path
) -> None:
    run = cgan_run
    measures, output = measured(genlab, run, FEW, f"classifier={classifier_run}", "parzen=true", "seed=3")
    frechet = measures["frechet_distance_classifier"]
    assert frechet["features"].startswith("classifier ")
    assert (frechet["num_generated"], frechet["num_examples"], frechet["split"]) == (60, 300, "test")
    assert (frechet["seed"], frechet["kind"]) == (3, "estimate")
    assert 0 <= measures["conditional_accuracy_classifier"]["value"] <= 1
    assert len(measures["class_histogram_classifier"]["value"]) == 10
    assert "parzen_log_likelihood_nats" in measures
    assert not any(name.startswith("baseline_uniform") for name in measures)
    assert "class  samples  training" in output
    for name in ("real_beside_generated", "nearest_neighbours"):
        assert (run / "samples" / f"{name}.png").is_file()
        assert f"{name}.png" in output
    record = json.loads((run / "evaluation.json").read_text())
    assert record["classifier"]["run"] == str(classifier_run)
    again, _ = measured(genlab, run, FEW, f"classifier={classifier_run}", "parzen=true", "seed=3", "batch_size=17")
    for name, measure in measures.items():
        if measure["num_generated"] is not None:
            assert again[name]["value"] == pytest.approx(measure["value"], rel=1e-4, abs=1e-6), name


@pytest.mark.slow
def test_samples_of_a_likelihood_model_are_measured_on_request(
    genlab: Genlab, trained_run: Path, classifier_run: Path
) -> None:
    plain, _ = measured(genlab, trained_run)
    assert not any(measure["num_generated"] for measure in plain.values())
    with_samples, output = measured(genlab, trained_run, "samples=true", FEW, f"classifier={classifier_run}")
    assert plain.items() <= with_samples.items()
    assert "frechet_distance_classifier" in with_samples
    assert "nll_upper_bound_nats" in output


@pytest.mark.slow
def test_a_code_is_matched_to_classes(genlab: Genlab, infogan_run: Path) -> None:
    measures, _ = measured(genlab, infogan_run, "samples=false")
    assert 0 <= measures["code_error_many_to_one"]["value"] <= 1
    assert measures["code_error_one_to_one"]["num_examples"] == 300
    assert measures["code_error_one_to_one"]["num_generated"] is None


@pytest.mark.slow
def test_of_one_class_a_random_network_takes_the_place_of_a_classifier(
    genlab: Genlab, tmp_path_factory: pytest.TempPathFactory
) -> None:
    run = train_tiny(tmp_path_factory, "gan", "dataset.classes=[3]", "dataset.num_test=600")
    measures, output = measured(genlab, run, FEW)
    assert "not of a classifier: dataset digits has one class, 3" in output
    names = {name for name, measure in measures.items() if measure["num_generated"]}
    assert {"nearest_training_distance_pixels", "frechet_distance_random_network", "recall_random_network"} <= names
    assert not any(name.endswith("_classifier") or "score_random" in name for name in names)


@pytest.mark.gpu
def test_samples_are_measured_on_a_gpu(genlab: Genlab, cgan_run: Path, infogan_run: Path, classifier_run: Path) -> None:
    on_cpu, _ = measured(genlab, cgan_run, FEW, f"classifier={classifier_run}", "device=cpu")
    on_gpu, _ = measured(genlab, cgan_run, FEW, f"classifier={classifier_run}", "device=cuda")
    assert on_cpu.keys() == on_gpu.keys()
    name = "baseline_real_frechet_distance_classifier"  # of images that no generator of the device drew
    assert on_gpu[name]["value"] == pytest.approx(on_cpu[name]["value"], rel=1e-3)
    assert "code_error_one_to_one" in measured(genlab, infogan_run, "device=cuda", "samples=false")[0]


def test_a_classifier_draws_nothing(genlab: Genlab, classifier_run: Path) -> None:
    outcome = genlab("evaluate", f"run={classifier_run}", "samples=true")
    assert (outcome.code, outcome.errors) == (
        2,
        "genlab: error: samples must be null or false for Classifier, which draws no images\n",
    )
    outcome = genlab("evaluate", f"run={classifier_run}", FEW)
    assert "num_generated must be left out for Classifier, which draws no images" in outcome.errors
    measures, _ = measured(genlab, classifier_run)
    assert set(measures) == {"cross_entropy_nats", "error"}


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        (
            {"measure": {"gap": {"_target_": "tests.metrics.test_quality.Gap", "of_feature": True}}},
            "measure.gap.of_feat",
        ),
        ({"measure": {"gap": {"_target_": "torch.nn.ReLU"}}}, "measure.gap._target_ must name a SampleMeasure"),
        ({"measure": {"gap": None}, "samples": False}, "measure must be empty with samples=false, got gap"),
    ],
)
def test_a_mistake_in_a_measure_of_ones_own_is_found_before_anything_is_loaded(
    changes: dict[str, Any], message: str
) -> None:
    values: Any = OmegaConf.to_container(OmegaConf.load(config_directory() / "evaluate.yaml"))
    del values["defaults"], values["hydra"]
    with pytest.raises(ConfigurationError, match=re.escape(message)):
        read({**values, "run": "no_such_run", **changes}, ())


@pytest.mark.slow
def test_every_measure_is_explained(
    genlab: Genlab,
    tmp_path_factory: pytest.TempPathFactory,
    trained_run: Path,
    classifier_run: Path,
    cgan_run: Path,
    infogan_run: Path,
) -> None:
    page = (Path(__file__).parents[2] / "docs" / "measures.md").read_text()
    small = ("model.num_layers=2", "model.channels=4")
    exact_run = train_tiny(tmp_path_factory, "gated_pixelcnn", *small)
    names = set(measured(genlab, cgan_run, FEW, f"classifier={classifier_run}", "parzen=true")[0])
    for run in (infogan_run, exact_run, classifier_run):
        names |= set(measured(genlab, run, "samples=false")[0])
    names |= set(measured(genlab, trained_run, "num_importance_samples=2")[0])
    assert len(names) > 30
    for name in names:
        name = name.removeprefix("baseline_real_")
        general = name.removesuffix("_classifier") + "_<features>" if name.endswith("_classifier") else name
        assert f"`{name}`" in page or f"`{general}`" in page, f"docs/measures.md does not define {name}"


@pytest.fixture(scope="module", name="coupled_run")
def trained_coupled(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return train_tiny(tmp_path_factory, "improved_gan", "dataset=digits_grey", "trainer.ema_decay=null")


def test_measures_of_coupled_images_are_those_of_the_trainings_batches_and_say_so(
    genlab: Genlab, coupled_run: Path
) -> None:
    """Minibatch discrimination: at 8, 64 and 250 images the scores would be of another discriminator."""
    found = []
    for size in ("8", "250"):
        outcome = genlab("evaluate", f"run={coupled_run}", "samples=false", f"batch_size={size}").checked()
        assert (
            "measured in random batches of 16: score_real, score_fake, accuracy_real, accuracy_fake" in outcome.output
        )
        measures = json.loads((coupled_run / "evaluation.json").read_text())["measures"]
        assert {measure["protocol"] for measure in measures} == {"in random batches of 16"}
        assert {measure["kind"] for measure in measures} == {"estimate"}
        found.append({measure["name"]: measure["value"] for measure in measures})
    assert found[0] == found[1]
    tested = json.loads((coupled_run / "summary.json").read_text())["test"]
    assert {f"test/{name}": value for name, value in found[0].items()} == pytest.approx(tested, rel=1e-5)
