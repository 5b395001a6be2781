"""A learned bias on the logits of each position, so that a border does not look like black pixels.

Dimensions: B batch, K logits of a position, H height, W width.
"""

from typing import Any

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
        # Channels last in memory, as the logits are.
        values: Tensor = self.rows.t()[:, None] + self.columns.t()  # (H, W, K)
        return values.permute(2, 0, 1)


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


class _AddToBatch(torch.autograd.Function):
    """The sum of a batch and one map for all examples.

    On the CPU torch's own sum over the batch, the map's gradient, takes ten times as long as a product with ones.
    """

    @staticmethod
    def forward(ctx: Any, x: Tensor, bias: Tensor) -> Tensor:
        del ctx
        return x + bias

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, Tensor]:
        del ctx
        (gradient,) = gradients
        rows = gradient.permute(0, 2, 3, 1)  # (B, H, W, K), contiguous where channels are last in memory
        total = rows.new_ones(1, len(rows)) @ rows.flatten(1)  # (1, H W K)
        return gradient, total.view(rows.shape[1:]).permute(2, 0, 1)


def add_positions(x: Float[Tensor, "B K H W"], bias: Float[Tensor, "K H W"] | None) -> Float[Tensor, "B K H W"]:
    """Add a bias per position to a batch of maps; None adds nothing."""
    if bias is None:
        return x
    bias = bias.to(x.dtype)
    if x.device.type != "cpu":
        return x + bias
    result: Tensor = _AddToBatch.apply(x, bias)
    return result
