"""Euclidean distances between many points, computed in pieces.

Dimensions: N points, M other points, P pairs, D coordinates, k neighbours.
"""

from collections.abc import Iterable, Iterator

import torch
from jaxtyping import Float, Int
from torch import Tensor
from tqdm import tqdm

from genlab.terminal import hides_bar

# Of the matrix of distances that is in memory at one time.
_MAX_ENTRIES = 2**22
_MOMENT_SECONDS = 1.0


def squared_distances(points: Float[Tensor, "N D"], others: Float[Tensor, "M D"]) -> Float[Tensor, "N M"]:
    """Return |x - y|^2 of all pairs, in float64, because the difference of large squares leaves few digits."""
    points, others = points.double(), others.double()
    squares = points.square().sum(1).unsqueeze(1) + others.square().sum(1)  # (N, M)
    return squares.addmm_(points, others.t(), alpha=-2).clamp_min_(0)


def pieces(num_rows: int, num_columns: int) -> Iterator[slice]:
    """Yield rows 0 .. num_rows - 1 in pieces, so that a piece by `num_columns` numbers fits well into memory.

    A terminal shows a bar if they take longer than a moment.
    """
    size = max(1, _MAX_ENTRIES // max(1, num_columns))
    starts = range(0, num_rows, size)
    for start in tqdm(starts, "comparing", unit="piece", leave=False, disable=hides_bar(), delay=_MOMENT_SECONDS):
        yield slice(start, min(start + size, num_rows))


def distances_of_pairs(
    points: Float[Tensor, "N D"], others: Float[Tensor, "M D"], rows: Int[Tensor, " P"], columns: Int[Tensor, " P"]
) -> Float[Tensor, " P"]:
    """Return |x - y|^2 of some pairs, in float64, from the differences themselves.

    Unlike those of :func:`squared_distances` they are 0 for equal points, and equal for equal pairs, wherever they
    stand: so that ties are ties.
    """
    found = [
        (points[rows[piece]].double() - others[columns[piece]].double()).square_().sum(1)
        for piece in pieces(len(rows), points.shape[1])
    ]
    return torch.cat(found) if found else torch.empty(0, dtype=torch.float64)


def rounding_of(points: Float[Tensor, "N D"], others: Float[Tensor, "M D"]) -> float:
    """Return a bound on the rounding error of a distance of :func:`squared_distances`."""
    largest = sum(float(side.double().square().sum(1).max()) for side in (points, others) if len(side))
    return 4 * points.shape[1] * torch.finfo(torch.float64).eps * largest


def nearest_others(
    points: Float[Tensor, "N D"], *, num_neighbours: int
) -> tuple[Float[Tensor, "N k"], Int[Tensor, "N k"]]:
    """Return squared distances from each point to its k nearest other points, nearest first, and their indices.

    Raises:
        ValueError: There are not k other points.
    """
    if not 1 <= num_neighbours < len(points):
        raise ValueError(f"a {num_neighbours}-th neighbour needs more than {num_neighbours} points, got {len(points)}")
    found, numbers = [], []
    for piece in pieces(len(points), len(points)):
        squared = squared_distances(points[piece], points)
        own = torch.arange(piece.start, piece.stop)
        squared[own - piece.start, own] = torch.inf  # a point is not its own neighbour, its duplicates are
        columns = squared.topk(num_neighbours, dim=1, largest=False).indices
        exact = distances_of_pairs(points, points, own.repeat_interleave(num_neighbours), columns.flatten())
        exact, order = exact.view(columns.shape).sort(1)
        found.append(exact)
        numbers.append(columns.gather(1, order))
    return torch.cat(found), torch.cat(numbers)


def nearest(
    points: Float[Tensor, "N D"], candidates: Iterable[Float[Tensor, "_ D"]], *, num_neighbours: int
) -> tuple[Float[Tensor, "N k"], Int[Tensor, "N k"]]:
    """Return the distance of each point to its nearest candidates, nearest first, and their index in the stream.

    Args:
        points: Points whose neighbours are found.
        candidates: A stream of them that need not fit into memory.
        num_neighbours: k; fewer are returned where the stream has fewer.
    """
    best = points.new_empty(len(points), 0, dtype=torch.float64)
    numbers = torch.empty(len(points), 0, dtype=torch.int64)
    num_seen = 0
    for batch in candidates:
        count = min(num_neighbours, len(batch))
        columns = squared_distances(points, batch).topk(count, dim=1, largest=False).indices
        rows = torch.arange(len(points)).repeat_interleave(count)
        squared = torch.cat((best, distances_of_pairs(points, batch, rows, columns.flatten()).view(-1, count)), 1)
        numbers = torch.cat((numbers, columns + num_seen), 1)
        best, order = squared.topk(min(num_neighbours, squared.shape[1]), dim=1, largest=False)
        numbers = numbers.gather(1, order)
        num_seen += len(batch)
    return best.sqrt(), numbers
