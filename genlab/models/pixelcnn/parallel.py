"""Fixed-point decoding: the images of the incremental sampler, from full passes of the network only.

Paper: Accelerating Feedforward Computation via Parallel Nonlinear Equation Solving, Song, Meng, Liao, Ermon,
arXiv:2002.03629, section 3 (algorithms 1 and 3).

With the uniforms drawn beforehand, an image is the solution of x_i = f_i(x_<i), one equation for each symbol, f_i
being the inverse CDF at the i-th uniform. A Jacobi iteration redraws all symbols at once from those of the pass before.
The first symbol that changes was drawn from symbols that did not change: it is final, with all before it. Each pass
makes at least one symbol final, and usually many.

Differs from the paper:
    - An image that is solved leaves the batch, and rows that are final in all images are not drawn again.

Dimensions: n images, m of them unsolved, S symbols per site, h rows, r of them redrawn, w columns, P = h w S symbols.
"""

from collections.abc import Callable
from typing import Literal, NamedTuple

import torch
from jaxtyping import Int
from torch import Tensor
from tqdm import tqdm

SamplingMethod = Literal["auto", "incremental", "parallel"]


Redraw = Callable[[Tensor, Tensor, slice], Tensor]
"""A function of the symbols (m, S, h, w) of unsolved images, their indices among the n images and a slice of r rows.

It returns new symbols (m, S, r, w) of these rows, each drawn given the symbols before it.
"""


class FixedPoint(NamedTuple):
    """The solution of a fixed-point decoding."""

    symbols: Int[Tensor, "n S h w"]
    num_passes: int
    """Number of calls of the function that redraws."""


@torch.no_grad()
def solve_symbols(
    redraw: Redraw,
    start: Int[Tensor, "n S h w"],
    *,
    num_given_sites: int = 0,
    rows_at_once: int | None = None,
    progress: bool = False,
) -> FixedPoint:
    """Return the fixed point of a function that redraws, after at most P passes.

    Args:
        redraw: Deterministic, with no symbol depending on itself or later ones.
        start: First guess of all symbols; the nearer, the fewer passes. The given sites are kept.
        num_given_sites: Number of sites, in raster order, that are given.
        rows_at_once: Rows that are solved together (a block of Gauss-Seidel); None solves all (Jacobi).
        progress: Show a bar with the time left, a step a row.
    """
    symbols = start.clone()
    num_images, num_symbols, height, width = symbols.shape
    row_size = width * num_symbols
    places = torch.arange(height * row_size, device=symbols.device)
    places = places.view(height, width, num_symbols).permute(2, 0, 1)  # (S, h, w): place in the model's order
    num_final = torch.full((num_images,), num_given_sites * num_symbols, device=symbols.device)
    num_passes = 0
    with tqdm(total=height, desc=f"{num_images} images", unit="row", disable=not progress, leave=False) as bar:
        for end_row in _ends(height, rows_at_once or height):
            end = end_row * row_size
            unsolved = (num_final < end).nonzero()[:, 0]
            while len(unsolved):
                first_row = int(num_final[unsolved].min()) // row_size
                bar.update(first_row - bar.n)
                rows = slice(first_row, end_row)
                known, is_open = symbols[unsolved], places[:, rows] >= num_final[unsolved, None, None, None]
                # What is final stays, though a batch of another size may round it to the other side of a uniform.
                drawn = torch.where(is_open, redraw(known, unsolved, rows), known[:, :, rows])
                symbols[unsolved, :, rows] = drawn
                first_change = torch.where(drawn != known[:, :, rows], places[:, rows], end).flatten(1).amin(1)
                num_final[unsolved] = (first_change + 1).clamp(max=end)
                unsolved = unsolved[num_final[unsolved] < end]
                num_passes += 1
    return FixedPoint(symbols, num_passes)


def _ends(height: int, rows_at_once: int) -> list[int]:
    return [min(first + rows_at_once, height) for first in range(0, height, rows_at_once)]
