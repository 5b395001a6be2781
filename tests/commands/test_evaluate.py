"""The ledger of a run, against the model itself."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

import genlab
from genlab.data.digits import digits
from tests.conftest import Outcome

DIGITS = {
    "size": 8,
    "num_validation": 200,
    "num_test": 300,
    "split_seed": 0,
    "binarization": "threshold",
    "threshold": 0.5,
    "classes": None,
    "num_labels_per_class": None,
    "label_seed": 0,
}


@pytest.fixture(name="record")
def evaluated(genlab: Callable[..., Outcome], trained_run: Path) -> dict[str, object]:
    outcome = genlab("evaluate", f"run={trained_run}", "num_importance_samples=4", "batch_size=128")
    assert outcome.code == 0, outcome.errors
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
    dataset = digits(**DIGITS)
    assert {measure["dataset_fingerprint"] for measure in record["measures"]} == {dataset.fingerprint}
    torch.manual_seed(0)
    values = [
        model.evaluate(batch)["nll_upper_bound_nats"]
        for batch in dataset.batches("test", batch_size=300, seed=0, device=torch.device("cpu"))
    ]
    (bound,) = [m for m in record["measures"] if m["name"] == "nll_upper_bound_nats"]
    assert torch.cat(values).mean().item() == pytest.approx(bound["value"], abs=4 * bound["standard_error"])
    assert model.sample(5).shape == (5, 1, 8, 8)


def test_the_same_command_gives_the_same_numbers(
    genlab: Callable[..., Outcome], trained_run: Path, record: dict[str, object]
) -> None:
    genlab("evaluate", f"run={trained_run}", "num_importance_samples=4", "batch_size=128")
    again = json.loads((trained_run / "evaluation.json").read_text())
    assert again["measures"] == record["measures"]


def test_a_part_of_a_split_is_measured_beside_its_own_baseline(
    genlab: Callable[..., Outcome], trained_run: Path
) -> None:
    assert genlab("evaluate", f"run={trained_run}", "num_images=40", "num_importance_samples=0").code == 0
    record = json.loads((trained_run / "evaluation.json").read_text())
    assert {entry["num_examples"] for entry in [*record["measures"], *record["baselines"]]} == {40}
    assert "nll_importance_weighted_nats" not in {entry["name"] for entry in record["measures"]}


@pytest.mark.parametrize(
    ("words", "code", "message"),
    [
        (["run=nowhere"], 2, "there is no run in nowhere"),
        ([], 2, "run"),
        (["split=tets"], 2, "did you mean 'test'"),
        (["num_importance_samples=-1"], 2, "num_importance_samples must be 0 or more, got -1"),
        (["num_images=0"], 2, "num_images must be null or at least 1, got 0"),
        (["bach_size=3"], 2, "batch_size"),
    ],
)
def test_bad_input_is_one_line(
    genlab: Callable[..., Outcome], trained_run: Path, words: list[str], code: int, message: str
) -> None:
    run = [] if not words or words[0].startswith("run=") else [f"run={trained_run}"]
    outcome = genlab("evaluate", *run, *words)
    assert outcome.code == code
    assert message in outcome.errors
    assert outcome.errors.count("\n") == 1


def test_damaged_and_foreign_checkpoints_are_refused(
    genlab: Callable[..., Outcome], trained_run: Path, tmp_path: Path
) -> None:
    copy = tmp_path / "copy"
    shutil.copytree(trained_run, copy)
    path = copy / "checkpoints" / "best.pt"
    path.write_bytes(path.read_bytes()[:-1])
    outcome = genlab("evaluate", f"run={copy}")
    assert outcome.code == 4
    assert "best.pt is damaged" in outcome.errors
    path.unlink()
    config = copy / "config.yaml"
    config.write_text(config.read_text().replace("num_units: 16", "num_units: 17"))
    outcome = genlab("evaluate", f"run={copy}")
    assert outcome.code == 4
    assert "another model" in outcome.errors
    assert outcome.errors.count("\n") == 1
