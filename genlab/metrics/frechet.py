"""Frechet distance between Gaussian approximations of two sets of features (Heusel et al. 2017, arXiv:1706.08500).

    |m_1 - m_2|^2 + tr(S_1 + S_2 - 2 (S_1 S_2)^(1/2))                                                            (eq. 6)

On Inception-v3's features this is the FID. Weaknesses: features are no Gaussian, so two different sets can have
distance zero; the estimate is biased upwards by an amount that falls with the number of images and differs between
models (Chong & Forsyth 2020, arXiv:1911.07023), so values at different counts do not compare; below one image per
feature the covariance is singular.

Dimensions: N images, F features.
"""

from typing import NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor


class Gaussian(NamedTuple):
    """Mean and unbiased covariance of features, in float64."""

    mean: Float[Tensor, " F"]
    covariance: Float[Tensor, "F F"]


def fit_gaussian(features: Float[Tensor, "N F"]) -> Gaussian:
    """Return the mean and covariance (divided by N - 1).

    Raises:
        ValueError: There are fewer than two images, or a feature is not finite.
    """
    if len(features) < 2:
        raise ValueError(f"a covariance needs at least 2 images, got {len(features)}")
    exact = features.detach().double()
    if not bool(exact.isfinite().all()):
        raise ValueError("a feature is not finite")
    mean = exact.mean(0)
    centred = exact - mean
    return Gaussian(mean, centred.t() @ centred / (len(features) - 1))


def frechet_distance(first: Gaussian, second: Gaussian) -> float:
    """Return the squared 2-Wasserstein distance of two Gaussians; 0 or more up to rounding."""
    offset = (first.mean - second.mean).square().sum()
    traces = first.covariance.trace() + second.covariance.trace()
    return float(offset + traces - 2 * trace_of_root(first.covariance, second.covariance))


def trace_of_root(first: Float[Tensor, "F F"], second: Float[Tensor, "F F"]) -> Float[Tensor, ""]:
    """Return tr((S_1 S_2)^(1/2)) of two positive semi-definite matrices.

    S_1 S_2 has the eigenvalues of the symmetric A^T S_2 A for every A with A A^T = S_1, and the trace is the sum of
    their roots. The Cholesky factor is such an A and cheap; a singular S_1 has none and takes its symmetric root.
    """
    factor, failed = torch.linalg.cholesky_ex(first)
    if failed:
        values, vectors = torch.linalg.eigh(first)
        factor = vectors * values.clamp_min(0).sqrt()  # A = V sqrt(D)
    eigenvalues: Tensor = torch.linalg.eigvalsh(factor.t() @ second @ factor)
    return eigenvalues.clamp_min(0).sqrt().sum()
