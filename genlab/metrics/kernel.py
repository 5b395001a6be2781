"""Kernel distance: the squared maximum mean discrepancy between two sets of features (arXiv:1801.01401, section 4).

With the cubic kernel k(x, y) = (x.y / F + 1)^3 on Inception-v3's features this is the KID. Unlike the Frechet distance
it assumes no distribution, and its estimate is unbiased: values at different numbers of images have one expectation,
and may be negative. Weakness: its scale is that of the features, to the sixth power.

Binkowski et al. average over random subsets of 1,000 to save work. More and more subsets tend to the estimate over all
pairs, which is affordable now and is what stands here; its standard error is the jackknife's.

Dimensions: N and M images, F features.
"""

import math

import torch
from jaxtyping import Float
from torch import Tensor

from genlab.metrics.distances import pieces


def cubic_kernel(points: Float[Tensor, "N F"], others: Float[Tensor, "M F"]) -> Float[Tensor, "N M"]:
    """(x.y / F + 1)^3 of all pairs, in float64."""
    return (points.double() @ others.double().t() / points.shape[1] + 1).pow_(3)


def kernel_distance(first: Float[Tensor, "N F"], second: Float[Tensor, "M F"]) -> tuple[float, float]:
    """The unbiased estimate over all pairs, and its standard error.

    Raises:
        ValueError: A set has fewer than three images.
    """
    num_first, num_second = len(first), len(second)
    if min(num_first, num_second) < 3:
        raise ValueError(f"a kernel distance needs at least 3 images a side, got {num_first} and {num_second}")
    within_first, within_second = _sums_within(first), _sums_within(second)
    across_first, across_second = _sums_across(first, second)
    across = 2 * across_first.sum() / (num_first * num_second)
    mean_first = within_first.sum() / (num_first * (num_first - 1))
    mean_second = within_second.sum() / (num_second * (num_second - 1))
    variance = _jackknife_variance(within_first, across_first, num_second)
    variance += _jackknife_variance(within_second, across_second, num_first)
    return float(mean_first + mean_second - across), math.sqrt(variance)


def _sums_within(points: Float[Tensor, "N F"]) -> Float[Tensor, " N"]:
    """Sum of the kernel from each point to all others."""
    sums = torch.cat([cubic_kernel(points[rows], points).sum(1) for rows in pieces(len(points), len(points))])
    to_itself = (points.double().square().sum(1) / points.shape[1] + 1).pow(3)
    return sums - to_itself


def _sums_across(
    points: Float[Tensor, "N F"], others: Float[Tensor, "M F"]
) -> tuple[Float[Tensor, " N"], Float[Tensor, " M"]]:
    """Sum of the kernel from each point of one set to all of the other, for both sets."""
    of_points = []
    of_others = torch.zeros(len(others), dtype=torch.float64)
    for rows in pieces(len(points), len(others)):
        kernel = cubic_kernel(points[rows], others)
        of_points.append(kernel.sum(1))
        of_others += kernel.sum(0)
    return torch.cat(of_points), of_others


def _jackknife_variance(within: Float[Tensor, " N"], across: Float[Tensor, " N"], num_others: int) -> float:
    """(N - 1) / N times the sum of squared deviations of the estimates that leave out one point each."""
    num_points = len(within)
    without = (within.sum() - 2 * within) / ((num_points - 1) * (num_points - 2))
    without -= 2 * (across.sum() - across) / ((num_points - 1) * num_others)
    return float((without - without.mean()).square().sum() * (num_points - 1) / num_points)
