from dataclasses import replace

import torch

from genlab.metrics.ledger import (
    OF_REAL_IMAGES,
    Estimate,
    as_json,
    format_table,
    measures_from,
    measures_of_samples,
)
from genlab.metrics.names import direction_of, kind_of, unit_of
from genlab.training.evaluation import Average
from tests.metrics.test_baselines import dataset


def test_names_tell_unit_and_kind() -> None:
    assert (unit_of("nll_upper_bound_nats"), kind_of("nll_upper_bound_nats")) == ("nats/image", "upper bound")
    assert (unit_of("nll_nats"), kind_of("nll_nats")) == ("nats/image", "exact")
    assert (unit_of("bits_per_dim"), kind_of("nll_importance_weighted_nats")) == ("bits/dim", "upper bound")
    assert unit_of("error") == "1"
    assert kind_of("bits_per_dim", ["nll_upper_bound_nats", "bits_per_dim"]) == "upper bound"
    assert kind_of("bits_per_dim", ["nll_nats", "bits_per_dim"]) == "exact"
    assert (direction_of("nll_nats"), direction_of("recall_classifier"), direction_of("score_real")) == (
        "lower",
        "higher",
        None,
    )


def test_a_measure_carries_what_makes_it_comparable() -> None:
    tiny = dataset(torch.zeros(3, 1, 2, 2, dtype=torch.uint8), 2)
    averages = {
        "nll_importance_weighted_nats": Average(mean=81.234, standard_error=0.5, num_examples=3),
        "kl_per_glimpse_nats": Average(mean=[1.0, 2.0], standard_error=[0.1, 0.1], num_examples=3),
    }
    weighted, curve = measures_from(
        averages, dataset=tiny, split="test", seed=4, weights="averaged", num_importance_samples=50
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
        value=3.25,
        standard_error=None,
        unit="1",
        protocol="",
        features="classifier 0123abcd",
        num_generated=10000,
        num_reference=300,
    )
    longest = replace(
        estimate,
        name="modes_kl_to_training_nats_classifier",
        unit="modes",
        value=1000.0,
        standard_error=0.0123,
        protocol="of 50,000 training",
        num_generated=26000,
        num_reference=10000,
    )
    real = replace(estimate, name=f"{OF_REAL_IMAGES}{estimate.name}", value=0.5, num_generated=200)
    entries = [estimate, longest, real]
    measures = measures_of_samples(entries, dataset=tiny, split="test", seed=7, weights="averaged")
    (entry, *_) = as_json(measures)
    assert (entry["features"], entry["num_generated"], entry["num_examples"]) == ("classifier 0123abcd", 10000, 300)
    assert (entry["split"], entry["seed"], entry["standard_error"], entry["kind"]) == ("test", 7, None, "estimate")
    table = format_table(measures)
    (line,) = [line for line in table.splitlines() if line.startswith("frechet_distance_classifier")]
    for cell in ("3.2500", "0.5000 (200)", "classifier 0123abcd", "10,000", "300 test", "7"):
        assert cell in line
    assert OF_REAL_IMAGES not in table  # beside, not below
    assert max(map(len, table.splitlines())) <= 150
    assert "1000 " in table


def test_measures_of_images_keep_no_field_of_samples() -> None:
    tiny = dataset(torch.zeros(3, 1, 2, 2, dtype=torch.uint8), 2)
    averages = {"nll_nats": Average(mean=1.0, standard_error=0.1, num_examples=3)}
    (entry,) = as_json(measures_from(averages, dataset=tiny, split="test", seed=0, weights="trained"))
    assert entry["features"] is entry["num_generated"] is entry["protocol"] is None
