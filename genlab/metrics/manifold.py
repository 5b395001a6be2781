"""Fidelity apart from diversity: how much of each set lies where the other one is dense.

A set's manifold is the union of balls around its points, each reaching to its k-th nearest other point of the set.

- precision: share of generated images in the manifold of the real ones; recall: share of real images in that of the
  generated ones (Kynkaanniemi et al. 2019, arXiv:1904.06991; k = 3).
- density: how many balls around real images a generated one lies in, over k, on average: may exceed 1. coverage: share
  of real images in whose ball lies a generated one (Naeem et al. 2020, arXiv:2002.09797; k = 5).

Weaknesses: one outlier's large ball raises precision and recall (density and coverage were made against that); all
four depend on both counts, and on k; an image and its blurred copy may have the same features.

Dimensions: N real images, M generated images, F features.
"""

from typing import NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor

from genlab.metrics.distances import neighbour_radii, pieces, squared_distances

NEIGHBOURS_OF_PRECISION = 3
NEIGHBOURS_OF_DENSITY = 5


class ManifoldScores(NamedTuple):
    """One score per image, to be averaged: whether it is covered, or by how much."""

    precision: Float[Tensor, " M"]
    recall: Float[Tensor, " N"]
    density: Float[Tensor, " M"]
    coverage: Float[Tensor, " N"]


def manifold_scores(
    real: Float[Tensor, "N F"],
    generated: Float[Tensor, "M F"],
    *,
    num_neighbours: int = NEIGHBOURS_OF_PRECISION,
    num_neighbours_of_density: int = NEIGHBOURS_OF_DENSITY,
) -> ManifoldScores:
    """Precision, recall, density and coverage of each image.

    Args:
        real: Features of real images.
        generated: Features of generated images.
        num_neighbours: k of precision and recall.
        num_neighbours_of_density: k of density and coverage.

    Raises:
        ValueError: A set has no k-th neighbour.
    """
    small = neighbour_radii(real, num_neighbours=num_neighbours)
    large = neighbour_radii(real, num_neighbours=num_neighbours_of_density)
    of_generated = neighbour_radii(generated, num_neighbours=num_neighbours)
    precision, density = [], []
    recall = torch.zeros(len(real), dtype=torch.bool)
    coverage = torch.zeros(len(real), dtype=torch.bool)
    for rows in pieces(len(generated), len(real)):
        squared = squared_distances(generated[rows], real)  # (piece of M, N)
        precision.append((squared <= small).any(1))
        inside = squared <= large
        density.append(inside.sum(1).double() / num_neighbours_of_density)
        coverage |= inside.any(0)
        recall |= (squared <= of_generated[rows].unsqueeze(1)).any(0)
    return ManifoldScores(torch.cat(precision).double(), recall.double(), torch.cat(density), coverage.double())
