import torch

from genlab.metrics.ledger import as_json, format_table, kind_of, measures_from, unit_of
from genlab.training.evaluation import Average
from tests.metrics.test_baselines import dataset


def test_names_tell_unit_and_kind() -> None:
    assert (unit_of("nll_upper_bound_nats"), kind_of("nll_upper_bound_nats")) == ("nats/image", "upper bound")
    assert (unit_of("nll_nats"), kind_of("nll_nats")) == ("nats/image", "exact")
    assert (unit_of("bits_per_dim"), kind_of("nll_importance_weighted_nats")) == ("bits/dim", "upper bound")
    assert unit_of("error") == "1"
    assert kind_of("bits_per_dim", ["nll_upper_bound_nats", "bits_per_dim"]) == "upper bound"
    assert kind_of("bits_per_dim", ["nll_nats", "bits_per_dim"]) == "exact"


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
