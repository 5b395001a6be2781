"""The kernel distance against a double loop and torch-fidelity, and its standard error against repeated draws."""

import numpy as np
import pytest
import torch

from genlab.metrics import distances
from genlab.metrics.kernel import cubic_kernel, kernel_distance


def draw(num_images: int, *, seed: int, shift: float = 0.0) -> torch.Tensor:
    return torch.rand(num_images, 5, generator=torch.Generator().manual_seed(seed)) + shift


@pytest.mark.parametrize("piece", [7, 2**22])
def test_against_a_double_loop(piece: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(distances, "_MAX_ENTRIES", piece)
    first, second = draw(9, seed=1).double().numpy(), draw(12, seed=2, shift=0.3).double().numpy()

    def kernel(x: np.ndarray, y: np.ndarray) -> float:
        return (x @ y / 5 + 1) ** 3

    within = [
        np.mean([kernel(x, y) for i, x in enumerate(s) for j, y in enumerate(s) if i != j]) for s in (first, second)
    ]
    across = np.mean([kernel(x, y) for x in first for y in second])
    value, _ = kernel_distance(torch.from_numpy(first), torch.from_numpy(second))
    assert value == pytest.approx(sum(within) - 2 * across, rel=1e-9)


def kernels(first: torch.Tensor, second: torch.Tensor) -> np.ndarray:
    return cubic_kernel(first, second).numpy()


@pytest.mark.parametrize(("seed", "shift", "is_least"), [(1, 0.2, False), (10, 0.0, True)])
def test_the_error_is_the_jackknifes_less_what_it_counts_twice(seed: int, shift: float, is_least: bool) -> None:
    """Between equal distributions less may remain than the interactions alone, or less than nothing."""
    first, second = draw(8, seed=seed), draw(6, seed=seed + 1, shift=shift)
    jackknife = 0.0
    for leave_out in (
        [kernel_distance(torch.cat((first[:i], first[i + 1 :])), second)[0] for i in range(8)],
        [kernel_distance(first, torch.cat((second[:i], second[i + 1 :])))[0] for i in range(6)],
    ):
        jackknife += (len(leave_out) - 1) * np.var(leave_out)
    interactions = 0.0
    for points in (first, second):  # U-centred, entry by entry
        k, n = kernels(points, points), len(points)
        np.fill_diagonal(k, 0)
        centred = [
            k[i, j] - k[i].sum() / (n - 2) - k[j].sum() / (n - 2) + k.sum() / ((n - 1) * (n - 2))
            for i in range(n)
            for j in range(n)
            if i != j
        ]
        interactions += 2 * np.square(centred).sum() / (n * (n - 3)) / (n * (n - 1))
    k = kernels(first, second)
    centred = k - k.mean(0) - k.mean(1, keepdims=True) + k.mean()
    interactions += 4 * np.square(centred).sum() / (7 * 5) / (8 * 6)
    expected = max(jackknife - interactions, interactions / 2)
    assert (expected == interactions / 2) == is_least
    assert kernel_distance(first, second)[1] == pytest.approx(np.sqrt(expected), rel=1e-9)


@pytest.mark.parametrize(("shift", "tolerance"), [(0.0, 0.25), (0.05, 0.15), (0.5, 0.15)])
def test_it_is_unbiased_and_its_error_is_that_of_repeated_draws(shift: float, tolerance: float) -> None:
    """Between equal distributions, where the first-order terms vanish and the jackknife is 1.4 times too large, too."""
    found = [kernel_distance(draw(40, seed=2 * i), draw(60, seed=2 * i + 1, shift=shift)) for i in range(400)]
    values, errors = np.array(found).T
    if shift == 0:
        assert abs(values.mean()) < 4 * values.std() / np.sqrt(400)
        assert values.min() < 0
    assert np.sqrt((errors**2).mean()) == pytest.approx(values.std(), rel=tolerance)


def test_sets_of_one_point_have_no_error() -> None:
    point = draw(1, seed=3)
    assert kernel_distance(point.repeat(30, 1), point.repeat(20, 1)) == pytest.approx((0, 0), abs=1e-12)


def test_against_torch_fidelity_on_the_whole_set() -> None:
    from torch_fidelity.metric_kid import kid_features_to_metric

    first, second = draw(50, seed=1), draw(50, seed=2, shift=0.1)
    settings = {"kid_subsets": 1, "kid_subset_size": 50, "verbose": False}
    theirs = kid_features_to_metric(first.double(), second.double(), **settings)["kernel_inception_distance_mean"]
    assert kernel_distance(first, second)[0] == pytest.approx(theirs, rel=1e-9)


def test_the_published_mean_over_subsets_tends_to_it() -> None:
    from torch_fidelity.metric_kid import kid_features_to_metric

    first, second = draw(200, seed=1), draw(200, seed=2, shift=0.1)
    settings = {"kid_subsets": 400, "kid_subset_size": 50, "verbose": False}
    theirs = kid_features_to_metric(first.double(), second.double(), **settings)
    mean, deviation = theirs["kernel_inception_distance_mean"], theirs["kernel_inception_distance_std"]
    assert kernel_distance(first, second)[0] == pytest.approx(mean, abs=4 * deviation / np.sqrt(400))


def test_too_few_images_are_refused() -> None:
    with pytest.raises(ValueError, match="at least 4 images a side, got 3 and 5"):
        kernel_distance(draw(3, seed=0), draw(5, seed=1))
