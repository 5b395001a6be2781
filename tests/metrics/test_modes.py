import math

import pytest
import torch
from scipy.special import rel_entr

from genlab.metrics.modes import class_histogram, histogram_divergence, modes_covered


def test_what_falls_where_is_counted() -> None:
    predictions = torch.tensor([3, 0, 3, 3])
    assert class_histogram(predictions, num_modes=5).tolist() == [1, 0, 0, 3, 0]
    assert modes_covered(predictions, num_modes=5) == 2
    assert modes_covered(torch.arange(1000), num_modes=1000) == 1000


def test_divergence_against_scipy_and_at_its_ends() -> None:
    counts, reference = torch.tensor([5, 0, 3, 2]), torch.tensor([2.0, 2.0, 4.0, 8.0])
    expected = rel_entr(counts.numpy() / 10, reference.numpy() / 16).sum()
    assert histogram_divergence(counts, reference) == pytest.approx(expected)
    assert histogram_divergence(torch.tensor([7, 7])) == 0
    assert histogram_divergence(torch.tensor([9] + [0] * 999)) == pytest.approx(math.log(1000))
    assert histogram_divergence(counts, torch.tensor([1.0, 1.0, 0.0, 1.0])) == math.inf
    with pytest.raises(ValueError, match="at least one image"):
        histogram_divergence(torch.zeros(3, dtype=torch.int64))
    with pytest.raises(ValueError, match="needs at least one image"):
        histogram_divergence(torch.ones(3, dtype=torch.int64), torch.zeros(3))


def test_divergence_of_a_fair_draw_is_as_the_docstring_says() -> None:
    draws = [histogram_divergence(class_histogram(torch.randint(1000, (26000,)), num_modes=1000)) for _ in range(20)]
    assert sum(draws) / 20 == pytest.approx(999 / 52000, rel=0.05)


def test_a_prediction_that_is_no_class_is_refused() -> None:
    with pytest.raises(ValueError, match="predictions must be from 0 to 9, got 10"):
        modes_covered(torch.arange(12), num_modes=10)
    with pytest.raises(ValueError, match="got -1"):
        modes_covered(torch.tensor([-1, 2]), num_modes=10)
