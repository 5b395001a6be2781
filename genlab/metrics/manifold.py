"""Precision, recall, density and coverage: fidelity and diversity measured separately.

A set's manifold is the union of balls around its points, each reaching to its k-th nearest other point of the set.

- precision: share of generated images in the manifold of the real ones; recall: share of real images in that of the
  generated ones (Kynkaanniemi et al. 2019, arXiv:1904.06991; k = 3).
- density: how many balls around real images a generated one lies in, over k, on average: may exceed 1. coverage: share
  of real images in whose ball lies a generated one (Naeem et al. 2020, arXiv:2002.09797; k = 5).

Weaknesses: one outlier's large ball raises precision and recall (density and coverage were made against that); all
four depend on both counts, and on k; an image and its blurred copy may have the same features.

The images of a set share its balls, so that their scores are not independent and the deviation over images says too
little. A standard error over draws of both sets is taken from halves: the variance of the difference between the values
of two random halves of both sets, over 4, averaged over divisions. This assumes that half the images have twice the
variance, which nearly holds for local statistics. The error was compared with the deviation over repeated draws:

- samples as diverse as the real images: the two agree within 20 %;
- less diverse samples (0.5 to 0.9 of the standard deviation): the error of density is 0.3 to 0.7 times the deviation,
  because more real images make it no more certain; that of precision 0.4 to 1 times, that of coverage up to 1.3 times;
- samples in the same few balls, as of a collapsed generator: the error of density is about 0.7 times the deviation;
- shares of 0 or 1: the error is 0.

The jackknife and the bootstrap do not work here: the first is 1.5 to 2 times too large, the second makes duplicates,
whose balls are empty.

Dimensions: N real images, M generated images, F features, D divisions, R = 1 + D rows of counts, P pairs.
"""

import math
from collections.abc import Mapping, Sequence
from typing import NamedTuple

import torch
from jaxtyping import Bool, Float
from torch import Generator, Tensor

from genlab.metrics.distances import distances_of_pairs, nearest_others, pieces, rounding_of, squared_distances

NEIGHBOURS_OF_PRECISION = 3
NEIGHBOURS_OF_DENSITY = 5

_NUM_DIVISIONS = 32
_RESERVE = 24
"""Number of neighbours beyond 2 k that are kept, so that nearly always k of them belong to the same half."""
_ROUNDING_OF_SUMS = 1e-12
_ROUNDINGS_OF_FEATURES = 4.0


class ManifoldScores(NamedTuple):
    """One score per image, to be averaged: an indicator of coverage, or a density."""

    precision: Float[Tensor, " M"]
    recall: Float[Tensor, " N"]
    density: Float[Tensor, " M"]
    coverage: Float[Tensor, " N"]
    standard_errors: Mapping[str, float]
    """Standard errors of the four averages, by name, over draws of both sets."""


class _Counts(NamedTuple):
    """Counts per image of the balls that contain it, or of the images in its ball; row 0 for all, then each half."""

    in_small: Float[Tensor, "R M"]
    in_large: Float[Tensor, "R M"]
    hits: Float[Tensor, "R N"]
    in_generated: Float[Tensor, "R N"]


def manifold_scores(
    real: Float[Tensor, "N F"],
    generated: Float[Tensor, "M F"],
    *,
    num_neighbours: int = NEIGHBOURS_OF_PRECISION,
    num_neighbours_of_density: int = NEIGHBOURS_OF_DENSITY,
) -> ManifoldScores:
    """Return precision, recall, density and coverage of each image, and the standard errors of their averages.

    Args:
        real: Features of real images.
        generated: Features of generated images.
        num_neighbours: k of precision and recall.
        num_neighbours_of_density: k of density and coverage.

    Raises:
        ValueError: A set has no k-th neighbour, or a feature is not finite.
    """
    halves_of_real, halves_of_generated = _divisions(len(real), seed=0), _divisions(len(generated), seed=1)
    small, large = _radii(real, halves_of_real, (num_neighbours, num_neighbours_of_density))
    (around,) = _radii(generated, halves_of_generated, (num_neighbours,))
    _grow((small, large, around), real, generated)
    counts = _count(real, generated, small, large, around, halves_of_real, halves_of_generated)

    def averages(row: int, of_real: Tensor, of_generated: Tensor) -> Tensor:
        """Return the four averages over some images, of one row of the counts."""
        return torch.stack(
            (
                (counts.in_small[row, of_generated] > 0).double().mean(),
                (counts.in_generated[row, of_real] > 0).double().mean(),
                counts.in_large[row, of_generated].double().mean() / num_neighbours_of_density,
                (counts.hits[row, of_real] > 0).double().mean(),
            )
        )

    differences = [
        averages(row, of_real, of_generated) - averages(row, ~of_real, ~of_generated)
        for row, (of_real, of_generated) in enumerate(zip(halves_of_real, halves_of_generated, strict=True), start=1)
    ]
    errors = (torch.stack(differences).square().mean(0) / 4).sqrt().tolist()
    return ManifoldScores(
        precision=(counts.in_small[0] > 0).double(),
        recall=(counts.in_generated[0] > 0).double(),
        density=counts.in_large[0].double() / num_neighbours_of_density,
        coverage=(counts.hits[0] > 0).double(),
        standard_errors=dict(zip(("precision", "recall", "density", "coverage"), errors, strict=True)),
    )


def precision_and_recall(
    real: Float[Tensor, "N F"], generated: Float[Tensor, "M F"], *, num_neighbours: int = NEIGHBOURS_OF_PRECISION
) -> tuple[float, float]:
    """Return precision and recall only, at a fraction of the cost of all scores with their standard errors.

    Raises:
        ValueError: A set has no k-th neighbour, or a feature is not finite.
    """
    no_halves = [torch.zeros(0, len(points), dtype=torch.bool) for points in (real, generated)]
    (small,) = _radii(real, no_halves[0], (num_neighbours,))
    (around,) = _radii(generated, no_halves[1], (num_neighbours,))
    _grow((small, around), real, generated)
    counts = _count(real, generated, small, small, around, *no_halves)
    precision, recall = counts.in_small[0] > 0, counts.in_generated[0] > 0
    return float(precision.double().mean()), float(recall.double().mean())


def _divisions(num_points: int, *, seed: int) -> Bool[Tensor, "D N"]:
    """Divide points into random halves, D times, because their order may be that of classes."""
    order = torch.rand(_NUM_DIVISIONS, num_points, generator=Generator().manual_seed(seed)).argsort(1)
    return order < num_points // 2


def _radii(
    points: Float[Tensor, "N F"], halves: Bool[Tensor, "D N"], num_neighbours: Sequence[int]
) -> list[Float[Tensor, "R N"]]:
    """Return the squared radius of each point's ball for each k: among all points, then among those of its half."""
    if min(num_neighbours) < 1:
        raise ValueError(f"num_neighbours must be at least 1, got {min(num_neighbours)}")
    most = max(num_neighbours)
    squared, numbers = nearest_others(points, num_neighbours=max(most, min(2 * most + _RESERVE, len(points) - 1)))
    everywhere = torch.zeros(1, len(points), dtype=torch.bool)
    radii: list[list[Tensor]] = [[] for _ in num_neighbours]
    for half in torch.cat((everywhere, halves)):
        rank = (half[numbers] == half.unsqueeze(1)).cumsum(1)  # of each neighbour in its own half
        for found, k in zip(radii, num_neighbours, strict=True):
            place = torch.where(rank[:, -1] >= k, (rank >= k).int().argmax(1), rank.shape[1] - 1)
            found.append(squared.gather(1, place.unsqueeze(1)).squeeze(1))
    return [torch.stack(found) for found in radii]


def _grow(balls: Sequence[Float[Tensor, "R _"]], real: Float[Tensor, "N F"], generated: Float[Tensor, "M F"]) -> None:
    """Enlarge squared radii by the rounding error, so that a point at the distance of the k-th neighbour is inside.

    Raises:
        ValueError: A feature is not finite.
    """
    largest = float(torch.stack([points.double().norm(dim=1).max() for points in (real, generated)]).max())
    if not math.isfinite(largest):
        raise ValueError("the features of an image are not finite")
    rounding = _ROUNDINGS_OF_FEATURES * torch.finfo(real.dtype).eps * largest
    for radii in balls:
        radii.sqrt_().mul_(1 + _ROUNDING_OF_SUMS).add_(rounding).square_()


def _count(
    real: Float[Tensor, "N F"],
    generated: Float[Tensor, "M F"],
    small: Float[Tensor, "R N"],
    large: Float[Tensor, "R N"],
    around: Float[Tensor, "R M"],
    halves_of_real: Bool[Tensor, "D N"],
    halves_of_generated: Bool[Tensor, "D M"],
) -> _Counts:
    """Count the points in each ball, among the few candidate pairs."""
    counts = _Counts(*(torch.zeros_like(radii, dtype=torch.float32) for radii in (around, around, small, small)))
    slack = rounding_of(generated, real)
    reach_of_real = torch.maximum(small, large).amax(0) + slack
    reach_of_generated = around.amax(0) + slack
    for rows in pieces(len(generated), len(real)):
        squared = squared_distances(generated[rows], real)  # (piece of M, N)
        is_near = (squared <= reach_of_real) | (squared <= reach_of_generated[rows].unsqueeze(1))
        image, other = is_near.nonzero(as_tuple=True)
        image += rows.start
        exact = distances_of_pairs(generated, real, image, other)  # (P,)
        for row in range(len(small)):
            is_paired = torch.ones_like(image, dtype=torch.bool)
            if row > 0:
                is_paired = halves_of_real[row - 1, other] == halves_of_generated[row - 1, image]
            is_in_large = ((exact <= large[row, other]) & is_paired).float()
            counts.in_small[row].index_add_(0, image, ((exact <= small[row, other]) & is_paired).float())
            counts.in_large[row].index_add_(0, image, is_in_large)
            counts.hits[row].index_add_(0, other, is_in_large)
            counts.in_generated[row].index_add_(0, other, ((exact <= around[row, image]) & is_paired).float())
    return counts
