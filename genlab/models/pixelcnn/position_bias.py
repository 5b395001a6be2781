"""A learned bias on the logits of each position, so that a border does not look like black pixels."""

import torch
from jaxtyping import Float
from torch import Tensor, nn

MOST_FREE_LOGITS = 32
"""Logits per position that have a free bias at each position; more have the sum of a row's and a column's."""


class RowAndColumnBias(nn.Module):
    """The sum of a bias per row and one per column: K (H + W) parameters, where a free bias has K H W.

    With 768 logits, as of colour images, a free bias would have more parameters than the rest of the network.

    Args:
        num_logits: K.
        grid: H and W.
    """

    def __init__(self, num_logits: int, grid: tuple[int, int]) -> None:
        super().__init__()
        height, width = grid
        self.rows = nn.Parameter(torch.zeros(num_logits, height))
        self.columns = nn.Parameter(torch.zeros(num_logits, width))

    def forward(self) -> Float[Tensor, "K H W"]:
        return self.rows[:, :, None] + self.columns[:, None, :]


LogitBias = nn.Parameter | RowAndColumnBias | None


def logit_bias(num_logits: int, grid: tuple[int, int] | None) -> LogitBias:
    """Return the bias of so many logits, which starts at zero; None without a grid."""
    if grid is None:
        return None
    if num_logits > MOST_FREE_LOGITS:
        return RowAndColumnBias(num_logits, grid)
    return nn.Parameter(torch.zeros(num_logits, *grid))


def biases_of(bias: LogitBias) -> Float[Tensor, "K H W"] | None:
    """Return the values of a bias."""
    if isinstance(bias, RowAndColumnBias):
        values: Tensor = bias()
        return values
    return bias
