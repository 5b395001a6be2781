"""The kernel distance against a double loop and torch-fidelity, and its standard error against repeated draws."""

import numpy as np
import pytest
import torch
from torch_fidelity.metric_kid import kid_features_to_metric

from genlab.metrics import distances
from genlab.metrics.kernel import kernel_distance


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


def test_the_jackknife_leaves_out_one_image_at_a_time() -> None:
    first, second = draw(8, seed=1), draw(6, seed=2, shift=0.2)
    parts = []
    for leave_out in (
        [kernel_distance(torch.cat((first[:i], first[i + 1 :])), second)[0] for i in range(8)],
        [kernel_distance(first, torch.cat((second[:i], second[i + 1 :])))[0] for i in range(6)],
    ):
        parts.append((len(leave_out) - 1) * np.var(leave_out))
    assert kernel_distance(first, second)[1] == pytest.approx(np.sqrt(sum(parts)), rel=1e-9)


def test_it_is_unbiased_and_its_error_is_that_of_repeated_draws() -> None:
    """Between equal distributions the mean is zero; between different ones the error bar is as wide as the spread."""
    equal = [kernel_distance(draw(40, seed=2 * i), draw(60, seed=2 * i + 1)) for i in range(300)]
    values, errors = np.array(equal).T
    assert abs(values.mean()) < 4 * values.std() / np.sqrt(300)
    assert values.min() < 0
    assert np.sqrt((errors**2).mean()) >= 0.9 * values.std()  # careful where the first-order terms vanish
    apart = [kernel_distance(draw(40, seed=2 * i), draw(60, seed=2 * i + 1, shift=0.5)) for i in range(300)]
    values, errors = np.array(apart).T
    assert np.sqrt((errors**2).mean()) == pytest.approx(values.std(), rel=0.15)


def test_against_torch_fidelity_on_the_whole_set() -> None:
    first, second = draw(50, seed=1), draw(50, seed=2, shift=0.1)
    settings = {"kid_subsets": 1, "kid_subset_size": 50, "verbose": False}
    theirs = kid_features_to_metric(first.double(), second.double(), **settings)["kernel_inception_distance_mean"]
    assert kernel_distance(first, second)[0] == pytest.approx(theirs, rel=1e-9)


def test_the_published_mean_over_subsets_tends_to_it() -> None:
    first, second = draw(200, seed=1), draw(200, seed=2, shift=0.1)
    settings = {"kid_subsets": 400, "kid_subset_size": 50, "verbose": False}
    theirs = kid_features_to_metric(first.double(), second.double(), **settings)
    mean, deviation = theirs["kernel_inception_distance_mean"], theirs["kernel_inception_distance_std"]
    assert kernel_distance(first, second)[0] == pytest.approx(mean, abs=4 * deviation / np.sqrt(400))


def test_too_few_images_are_refused() -> None:
    with pytest.raises(ValueError, match="at least 3 images a side, got 2 and 5"):
        kernel_distance(draw(2, seed=0), draw(5, seed=1))
