"""The Frechet distance against its closed forms, scipy's matrix root and torch-fidelity."""

import numpy as np
import pytest
import scipy.linalg
import torch

from genlab.metrics.frechet import Gaussian, fit_gaussian, frechet_distance, trace_of_root


def features(num_images: int, num_features: int, *, seed: int, rank: int | None = None) -> torch.Tensor:
    generator = torch.Generator().manual_seed(seed)
    mix = torch.randn(rank or num_features, num_features, generator=generator)
    return torch.randn(num_images, rank or num_features, generator=generator) @ mix + seed


def test_moments_are_those_of_numpy() -> None:
    sample = features(50, 7, seed=1)
    gaussian = fit_gaussian(sample)
    np.testing.assert_allclose(gaussian.mean, sample.double().numpy().mean(0))
    np.testing.assert_allclose(gaussian.covariance, np.cov(sample.double().numpy(), rowvar=False))
    with pytest.raises(ValueError, match="at least 2 images"):
        fit_gaussian(sample[:1])


def test_in_one_dimension_it_is_means_and_deviations() -> None:
    """(m1 - m2)^2 + (s1 - s2)^2."""
    first = Gaussian(torch.tensor([1.0]).double(), torch.tensor([[4.0]]).double())
    second = Gaussian(torch.tensor([-2.0]).double(), torch.tensor([[25.0]]).double())
    assert frechet_distance(first, second) == pytest.approx(9 + 9)
    assert frechet_distance(first, first) == pytest.approx(0)


@pytest.mark.parametrize(("num_images", "rank"), [(400, None), (20, None), (400, 9)])
def test_against_scipy_also_where_the_covariance_is_singular(num_images: int, rank: int | None) -> None:
    first, second = (fit_gaussian(features(num_images, 32, seed=seed, rank=rank)) for seed in (1, 2))
    root = scipy.linalg.sqrtm((first.covariance @ second.covariance).numpy()).real
    expected = (first.mean - second.mean).square().sum() + (first.covariance + second.covariance).trace()
    expected = expected.item() - 2 * np.trace(root)
    assert frechet_distance(first, second) == pytest.approx(expected, rel=1e-4)
    assert frechet_distance(second, first) == pytest.approx(frechet_distance(first, second), rel=1e-5)


@pytest.mark.slow
def test_the_fallback_and_the_cholesky_factor_agree() -> None:
    first, second = (fit_gaussian(features(300, 16, seed=seed)).covariance for seed in (1, 2))
    blocks = torch.block_diag(first, torch.zeros(3, 3).double()), torch.block_diag(second, torch.eye(3).double())
    torch.testing.assert_close(trace_of_root(*blocks), trace_of_root(first, second))


@pytest.mark.parametrize("num_images", [40, 500])
def test_against_torch_fidelity(num_images: int) -> None:
    from torch_fidelity.metric_fid import fid_features_to_statistics, fid_statistics_to_metric

    first, second = features(num_images, 48, seed=1), features(num_images, 48, seed=2)
    statistics = [fid_features_to_statistics(sample.double()) for sample in (first, second)]
    theirs = fid_statistics_to_metric(*statistics, verbose=False)["frechet_inception_distance"]
    assert frechet_distance(fit_gaussian(first), fit_gaussian(second)) == pytest.approx(theirs, rel=1e-4)
