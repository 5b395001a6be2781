"""Weight-normalised convolutions over pixels above, or above and to the left, by asymmetric padding.

Papers: PixelCNN++, arXiv:1701.05517, figure 2, and its authors' program; Weight Normalization, arXiv:1602.07868,
sections 2 (equation 2) and 3 (data-dependent initialisation).

Dimensions: B batch, H height, W width.
"""

from contextlib import AbstractContextManager

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

from genlab.nn import weight_norm

# As in the program of PixelCNN++. The length of v has no effect on the weight; a learning rate turns a longer v less.
DIRECTION_STD = 0.05


class WeightNormConv2d(nn.Module):
    """A convolution with weight g v / |v|, norm per output channel, padded at the top and at the sides only.

    Args:
        in_channels: Of the input.
        out_channels: Of the output.
        kernel_size: Rows and columns; the last row acts on the output's own row.
        padding: Zero columns to the left and to the right.
        stride: In both directions.
        initial_scale: Standard deviation of the output after :func:`data_dependent_initialization`.
    """

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        kernel_size: tuple[int, int] = (1, 1),
        *,
        padding: tuple[int, int] = (0, 0),
        stride: int = 1,
        initial_scale: float = 1.0,
    ) -> None:
        super().__init__()
        self.direction = nn.Parameter(torch.randn(out_channels, in_channels, *kernel_size) * DIRECTION_STD)
        self.gain = nn.Parameter(torch.full((out_channels,), initial_scale))
        self.bias = nn.Parameter(torch.zeros(out_channels))
        self.padding = padding
        self.stride = stride
        self.initial_scale = initial_scale

    def weight(self) -> Float[Tensor, "C_out C_in K_h K_w"]:
        """Return the normalised weight (eq. 2)."""
        return torch._weight_norm(self.direction, self.gain[:, None, None, None], 0)

    def forward(self, x: Float[Tensor, "B C_in H W"]) -> Float[Tensor, "B C_out H_out W_out"]:
        rows, columns = self.direction.shape[2:]
        if (rows, columns) != (1, 1):
            x = F.pad(x, (*self.padding, rows - 1, 0))
        return F.conv2d(x, self.weight(), self.bias, self.stride)


class WeightNormUpsample2d(nn.Module):
    """A transposed convolution of stride 2 with two kernel rows: rows 2 r and 2 r + 1 come from row r alone.

    Args:
        in_channels: Of the input.
        out_channels: Of the output.
        num_columns: 2: columns 2 c and 2 c + 1 come from column c; 3: column 2 c from c, 2 c + 1 from c and c + 1.
    """

    def __init__(self, in_channels: int, out_channels: int, num_columns: int) -> None:
        super().__init__()
        self.direction = nn.Parameter(torch.randn(in_channels, out_channels, 2, num_columns) * DIRECTION_STD)
        self.gain = nn.Parameter(torch.ones(out_channels))
        self.bias = nn.Parameter(torch.zeros(out_channels))
        self.initial_scale = 1.0

    def weight(self) -> Float[Tensor, "C_in C_out 2 K_w"]:
        """Return the normalised weight (eq. 2); the norm runs over all but the output channel."""
        return torch._weight_norm(self.direction, self.gain[:, None, None], 1)

    def forward(self, x: Float[Tensor, "B C_in H W"]) -> Float[Tensor, "B C_out 2*H 2*W"]:
        x_up = F.conv_transpose2d(x, self.weight(), self.bias, stride=2)
        first = self.direction.shape[3] - 2
        return x_up[..., first : first + 2 * x.shape[3]]


def data_dependent_initialization(network: nn.Module) -> AbstractContextManager[None]:
    """Let a forward pass in the context normalise the outputs of these layers to `initial_scale`."""
    layers = [m for m in network.modules() if isinstance(m, WeightNormConv2d | WeightNormUpsample2d)]
    return weight_norm.data_dependent_initialization([(layer, layer.gain, layer.initial_scale) for layer in layers])
