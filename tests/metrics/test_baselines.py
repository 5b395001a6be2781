import math

import pytest
import torch

from genlab.data.dataset import Dataset
from genlab.data.store import Store
from genlab.metrics.baselines import baseline_averages, level_log_probabilities

CPU = torch.device("cpu")


def dataset(levels: torch.Tensor, num_levels: int) -> Dataset:
    store = Store(levels, torch.full((len(levels),), -1))
    return Dataset(
        name="tiny",
        stores={"train": store, "validation": store, "test": store},
        num_levels=num_levels,
        class_names=(),
        binarization="fixed" if num_levels == 2 else "none",
        threshold=0.5,
        source="tiny",
    )


@pytest.mark.parametrize("num_levels", [2, 5, 256])
def test_probabilities_are_smoothed_counts(num_levels: int) -> None:
    levels = torch.randint(0, num_levels, (40, 3, 2, 2), dtype=torch.uint8)
    table = level_log_probabilities(dataset(levels, num_levels), seed=0, device=CPU).exp()
    torch.testing.assert_close(table.sum(0), torch.ones(3, 2, 2, dtype=torch.float64))
    count = (levels[:, 1, 0, 1] == 1).sum().item()
    assert table[1, 1, 0, 1].item() == pytest.approx((count + 1) / (40 + num_levels))


@pytest.mark.parametrize(("num_levels", "bits"), [(256, 8.0), (2, 1.0)])
def test_uniform_is_exactly_log2_of_the_levels(num_levels: int, bits: float) -> None:
    """On seven images in batches of any size: a division by the number of full batches is off."""
    levels = torch.randint(0, num_levels, (7, 3, 2, 2), dtype=torch.uint8)
    averages = baseline_averages(dataset(levels, num_levels), "test", seed=0, device=CPU)
    assert averages["baseline_uniform_bits_per_dim"].mean == pytest.approx(bits, rel=1e-12)
    assert averages["baseline_uniform_nats"].mean == pytest.approx(12 * bits * math.log(2))


def test_bernoulli_against_torch() -> None:
    levels = torch.randint(0, 2, (30, 1, 3, 3), dtype=torch.uint8)
    average = baseline_averages(dataset(levels, 2), "test", seed=0, device=CPU)["baseline_per_pixel_bernoulli_nats"]
    probability = (levels.double().sum(0) + 1) / 32
    expected = -torch.distributions.Bernoulli(probability).log_prob(levels.double()).sum((1, 2, 3)).mean()
    assert average.mean == pytest.approx(expected.item())
    assert average.num_examples == 30
