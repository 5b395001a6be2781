"""Kernel distance: the squared maximum mean discrepancy between two sets of features (arXiv:1801.01401, section 4).

With the cubic kernel k(x, y) = (x.y / F + 1)^3 on Inception-v3's features this is the KID. Unlike the Frechet distance
it assumes no distribution, and its estimate is unbiased: values at different numbers of images have one expectation,
and may be negative. Weakness: its scale is that of the features, to the sixth power.

Binkowski et al. average over random subsets of 1,000 to save work. More and more subsets tend to the estimate over all
pairs, which is affordable now and is what stands here.

The variance of the estimate has first-order terms (a point's mean kernel) and second-order terms (what two points have
together). Where the two distributions are equal, only the second-order terms are left. The jackknife counts them twice,
and those of first order once (Efron & Stein 1981, section 4). They are therefore estimated apart, from centred kernel
matrices, and subtracted once.

Dimensions: N and M images, F features.
"""

import math
from typing import NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor

from genlab.metrics.distances import pieces

LEAST_IMAGES = 4
"""Least number of points of each set, to estimate the second-order terms."""


def cubic_kernel(points: Float[Tensor, "N F"], others: Float[Tensor, "M F"]) -> Float[Tensor, "N M"]:
    """Return (x.y / F + 1)^3 of all pairs, in float64."""
    return (points.double() @ others.double().t() / points.shape[1] + 1).pow_(3)


def kernel_distance(first: Float[Tensor, "N F"], second: Float[Tensor, "M F"]) -> tuple[float, float]:
    """Return the unbiased estimate over all pairs, and its standard error over draws of both sets.

    Raises:
        ValueError: A set has fewer than four images.
    """
    num_first, num_second = len(first), len(second)
    if min(num_first, num_second) < LEAST_IMAGES:
        raise ValueError(
            f"a kernel distance needs at least {LEAST_IMAGES} images a side, got {num_first} and {num_second}"
        )
    # Sums of squares of nearly equal numbers keep their digits about an origin among them.
    origin = float(cubic_kernel(first[:1], second[:1]))
    within_first, within_second = (_sums(points, points, origin, is_one_set=True) for points in (first, second))
    across = _sums(first, second, origin)
    across_mean = across.of_rows.sum() / (num_first * num_second)
    mean_first = within_first.of_rows.sum() / (num_first * (num_first - 1))
    mean_second = within_second.of_rows.sum() / (num_second * (num_second - 1))
    jackknife = _jackknife_variance(within_first.of_rows, across.of_rows, num_second)
    jackknife += _jackknife_variance(within_second.of_rows, across.of_columns, num_first)
    second_order = (
        2 * _interaction_within(within_first) / (num_first * (num_first - 1))
        + 2 * _interaction_within(within_second) / (num_second * (num_second - 1))
        + 4 * _interaction_across(across) / (num_first * num_second)
    )
    # The difference is unbiased and noisy; below half the second-order variance it is nearly always too small.
    variance = max(jackknife - second_order, second_order / 2)
    return float(mean_first + mean_second - 2 * across_mean), math.sqrt(variance)


class _Sums(NamedTuple):
    """Sums over a kernel matrix minus an origin."""

    of_rows: Float[Tensor, " N"]
    of_columns: Float[Tensor, " M"]
    of_squares: float


def _sums(
    points: Float[Tensor, "N F"], others: Float[Tensor, "M F"], origin: float, *, is_one_set: bool = False
) -> _Sums:
    """Return the sums for two sets, or for one set with itself, where no point is paired with itself."""
    rows, squares = [], 0.0
    columns = torch.zeros(len(others), dtype=torch.float64)
    for piece in pieces(len(points), len(others)):
        kernel = cubic_kernel(points[piece], others).sub_(origin)
        if is_one_set:
            own = torch.arange(piece.start, piece.stop)
            kernel[own - piece.start, own] = 0
        rows.append(kernel.sum(1))
        columns += kernel.sum(0)
        squares += float(kernel.square_().sum())
    return _Sums(torch.cat(rows), columns, squares)


def _interaction_within(sums: _Sums) -> float:
    """Return an unbiased estimate of the variance of k(x, x') - E k(x, .) - E k(., x') for two points of one set.

    The sum of squares of the U-centred matrix (Szekely & Rizzo 2014, section 2), written in sums over the matrix.
    """
    num, rows = len(sums.of_rows), sums.of_rows
    squared_rows, total = float(rows.square().sum()), float(rows.sum())
    centred = sums.of_squares - 2 * squared_rows / (num - 2) + total**2 / ((num - 1) * (num - 2))
    return max(0.0, centred / (num * (num - 3)))


def _interaction_across(sums: _Sums) -> float:
    """Return the estimate for one point of each set: the mean square of the interaction in a two-way layout."""
    num_rows, num_columns = len(sums.of_rows), len(sums.of_columns)
    of_rows = float(sums.of_rows.square().sum()) / num_columns
    of_columns = float(sums.of_columns.square().sum()) / num_rows
    total = float(sums.of_rows.sum()) ** 2 / (num_rows * num_columns)
    return max(0.0, (sums.of_squares - of_rows - of_columns + total) / ((num_rows - 1) * (num_columns - 1)))


def _jackknife_variance(within: Float[Tensor, " N"], across: Float[Tensor, " N"], num_others: int) -> float:
    """Return (N - 1) / N times the sum of squared deviations of the estimates that leave out one point each."""
    num_points = len(within)
    without = (within.sum() - 2 * within) / ((num_points - 1) * (num_points - 2))
    without -= 2 * (across.sum() - across) / ((num_points - 1) * num_others)
    return float((without - without.mean()).square().sum() * (num_points - 1) / num_points)
