"""Euclidean distances between many points, a piece at a time.

Dimensions: N points, M other points, D coordinates, k neighbours.
"""

from collections.abc import Iterable, Iterator

import torch
from jaxtyping import Float, Int
from torch import Tensor

# Of the matrix of distances that is in memory at one time.
_MAX_ENTRIES = 2**22


def squared_distances(points: Float[Tensor, "N D"], others: Float[Tensor, "M D"]) -> Float[Tensor, "N M"]:
    """|x - y|^2 of all pairs, in float64: the difference of large squares leaves few digits of float32."""
    points, others = points.double(), others.double()
    squares = points.square().sum(1).unsqueeze(1) + others.square().sum(1)  # (N, M)
    return squares.addmm_(points, others.t(), alpha=-2).clamp_min_(0)


def pieces(num_rows: int, num_columns: int) -> Iterator[slice]:
    """Rows 0 .. num_rows - 1 in pieces, so that a piece by `num_columns` numbers fits well into memory."""
    size = max(1, _MAX_ENTRIES // max(1, num_columns))
    for start in range(0, num_rows, size):
        yield slice(start, min(start + size, num_rows))


def neighbour_radii(points: Float[Tensor, "N D"], *, num_neighbours: int) -> Float[Tensor, " N"]:
    """Squared distance from each point to its k-th nearest other point.

    Raises:
        ValueError: There are not k other points.
    """
    if not 1 <= num_neighbours < len(points):
        raise ValueError(f"a {num_neighbours}-th neighbour needs more than {num_neighbours} points, got {len(points)}")
    radii = []
    for rows in pieces(len(points), len(points)):
        squared = squared_distances(points[rows], points)
        own = torch.arange(rows.start, rows.stop)
        squared[own - rows.start, own] = torch.inf  # a point is not its own neighbour, its duplicates are
        radii.append(squared.kthvalue(num_neighbours, 1).values)
    return torch.cat(radii)


def nearest(
    points: Float[Tensor, "N D"], candidates: Iterable[Float[Tensor, "B D"]], *, num_neighbours: int
) -> tuple[Float[Tensor, "N k"], Int[Tensor, "N k"]]:
    """Distance to the nearest candidates of each point and their number in the stream, nearest first.

    Args:
        points: What to find neighbours for.
        candidates: A stream of them that need not fit into memory.
        num_neighbours: k; fewer are returned where the stream has fewer.
    """
    best = points.new_empty(len(points), 0, dtype=torch.float64)
    numbers = torch.empty(len(points), 0, dtype=torch.int64)
    num_seen = 0
    for batch in candidates:
        squared = torch.cat((best, squared_distances(points, batch)), 1)
        new = torch.arange(num_seen, num_seen + len(batch)).expand(len(points), -1)
        best, order = squared.topk(min(num_neighbours, squared.shape[1]), dim=1, largest=False)
        numbers = torch.cat((numbers, new), 1).gather(1, order)
        num_seen += len(batch)
    return best.sqrt(), numbers
