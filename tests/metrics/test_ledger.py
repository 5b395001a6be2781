from dataclasses import replace
from types import SimpleNamespace

import pytest
import torch

from genlab.data.digits import digits
from genlab.measures import NOT_DECLARED, Measure
from genlab.metrics.ledger import (
    OF_REAL_IMAGES,
    Estimate,
    Source,
    as_json,
    entries_from,
    entries_of_samples,
    format_table,
)
from genlab.models.draw.draw import DRAW
from genlab.training.evaluation import Average
from tests.data.sources import SMALL_DIGITS
from tests.metrics.test_baselines import dataset


def test_what_a_measure_is_comes_from_its_declaration_and_never_from_its_name() -> None:
    """Names that once told unit, kind and direction tell nothing: not with those endings, not with those beginnings."""
    tiny = dataset(torch.zeros(3, 1, 2, 2, dtype=torch.uint8), 2)
    names = ("nll_nats", "negative_elbo_nats", "bits_per_dim", "nll_upper_bound_nats", "my_importance_weighted_nats")
    averages = {name: Average(mean=1.0, standard_error=0.1, num_examples=3) for name in names}
    mine = Measure(unit="bits", kind="lower bound", direction="higher", quantity="evidence")
    entries = entries_from(
        averages, {"nll_nats": mine}, dataset=tiny, split="test", seed=0, weights="trained", num_importance_samples=5
    )
    declared, *undeclared = as_json(entries)
    told = ("unit", "kind", "direction", "quantity")
    assert [declared[key] for key in told] == ["bits", "lower bound", "higher", "evidence"]
    for entry in undeclared:
        assert [entry[key] for key in told] == [NOT_DECLARED, NOT_DECLARED, NOT_DECLARED, entry["name"]]
        assert entry["num_importance_samples"] is None
    lines = format_table(entries).splitlines()
    assert "lower bound" in next(line for line in lines if line.startswith("nll_nats"))
    found = [line for line in lines if line.startswith(names[1:])]
    assert len(found) == len(names) - 1
    assert all(NOT_DECLARED in line for line in found)


def test_what_is_measured_on_test_images_does_not_depend_on_which_images_were_trained_on() -> None:
    choices: list[dict[str, int]] = [{}, {"num_training": 9}, {"num_labels_per_class": 2}]
    whole, *reduced = found = [digits(**{**SMALL_DIGITS, **choice}) for choice in choices]
    of_test, of_training = ({Source.of(data, split).fingerprint for data in found} for split in ("test", "train"))
    assert of_test == {whole.fingerprint}
    assert len(of_training) == 3
    average = {"nll_nats": Average(mean=1.0, standard_error=0.1, num_examples=3)}
    for split, data in (("test", whole), ("train", reduced[0])):
        (entry,) = entries_from(average, {}, dataset=reduced[0], split=split, seed=0, weights="trained")
        assert entry.dataset_fingerprint == data.fingerprint


@pytest.mark.parametrize("changes", [{"kind": "upper-bound"}, {"direction": "down"}])
def test_a_declaration_with_a_word_that_is_not_known_is_refused(changes: dict[str, str]) -> None:
    with pytest.raises(ValueError, match="must be one of"):
        # Past the annotations, which only tests check.
        Measure.__post_init__(SimpleNamespace(**{"unit": "1", "kind": "exact", "direction": "lower"} | changes))


def test_a_measure_carries_what_makes_it_comparable() -> None:
    tiny = dataset(torch.zeros(3, 1, 2, 2, dtype=torch.uint8), 2)
    averages = {
        "nll_importance_weighted_nats": Average(mean=81.234, standard_error=0.5, num_examples=3),
        "kl_per_glimpse_nats": Average(mean=[1.0, 2.0], standard_error=[0.1, 0.1], num_examples=3),
    }
    weighted, curve = entries_from(
        averages, DRAW.measures, dataset=tiny, split="test", seed=4, weights="averaged", num_importance_samples=50
    )
    assert (weighted.num_importance_samples, curve.num_importance_samples) == (50, None)
    (entry, _) = as_json([weighted, curve])
    assert entry["binarization"] == "fixed"
    assert entry["dataset_fingerprint"] == tiny.fingerprint
    assert (entry["split"], entry["seed"], entry["weights"]) == ("test", 4, "averaged")
    table = format_table([weighted, curve])
    assert "nll_importance_weighted_nats (K=50)" in table
    assert "81.23" in table
    assert "kl_per_glimpse_nats: 1.00 2.00" in table


def test_a_measure_of_samples_carries_features_reference_counts_and_seed_and_stays_narrow() -> None:
    tiny = dataset(torch.zeros(3, 1, 2, 2, dtype=torch.uint8), 2)
    estimate = Estimate(
        name="frechet_distance_classifier",
        measure=Measure(unit="1", kind="estimate", direction="lower"),
        value=3.25,
        standard_error=None,
        protocol="",
        features="classifier 0123abcd",
        num_generated=10000,
        num_reference=300,
    )
    longest = replace(
        estimate,
        name="modes_kl_to_training_nats_classifier",
        measure=Measure(unit="modes", kind="estimate", direction="higher"),
        value=1000.0,
        standard_error=0.0123,
        protocol="of 50,000 training",
        num_generated=26000,
        num_reference=10000,
    )
    real = replace(estimate, name=f"{OF_REAL_IMAGES}{estimate.name}", value=0.5, num_generated=200)
    measures = entries_of_samples([estimate, longest], source=Source.of(tiny), split="test", seed=7, weights="averaged")
    baselines = entries_of_samples([real], source=Source.of(tiny), split="test", seed=7, weights="none")
    (entry, *_) = as_json(measures)
    assert (entry["features"], entry["num_generated"], entry["num_examples"]) == ("classifier 0123abcd", 10000, 300)
    assert (entry["split"], entry["seed"], entry["standard_error"], entry["kind"]) == ("test", 7, None, "estimate")
    table = format_table(measures, baselines)
    (line,) = [line for line in table.splitlines() if line.startswith("frechet_distance_classifier")]
    for cell in ("3.2500", "0.5000 (200)", "classifier 0123abcd", "10,000", "300 test", "7"):
        assert cell in line
    assert OF_REAL_IMAGES not in table  # beside, not below
    assert max(map(len, table.splitlines())) <= 150
    assert "1000 " in table


def test_measures_of_images_keep_no_field_of_samples() -> None:
    tiny = dataset(torch.zeros(3, 1, 2, 2, dtype=torch.uint8), 2)
    averages = {"nll_nats": Average(mean=1.0, standard_error=0.1, num_examples=3)}
    (entry,) = as_json(entries_from(averages, {}, dataset=tiny, split="test", seed=0, weights="trained"))
    assert entry["features"] is entry["num_generated"] is entry["protocol"] is None


def test_one_image_has_no_standard_error() -> None:
    tiny = dataset(torch.zeros(3, 1, 2, 2, dtype=torch.uint8), 2)
    averages = {"nll_nats": Average(mean=1.0, standard_error=0.0, num_examples=1)}
    entries = entries_from(averages, {}, dataset=tiny, split="test", seed=0, weights="trained")
    assert as_json(entries)[0]["standard_error"] is None
    assert "0.000" not in format_table(entries, [])
