"""The network of the gated PixelCNN: a vertical and a horizontal stack of gated convolutions.

Paper and departures: :mod:`genlab.models.pixelcnn.gated`.

Dimensions: B batch, C channels, H height, W width, p features of a stack, G colour groups, K levels.
"""

import math
from collections.abc import Sequence
from itertools import pairwise

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from torch import Tensor, nn

from genlab.functional import at_least_float32, tanh
from genlab.models.pixelcnn.position_bias import add_positions, biases_of, logit_bias
from genlab.nn.dropout import Dropout
from genlab.nn.masked import MaskedConv2d, MaskType, RowsAboveConv2d
from genlab.types import UNLABELLED

# PyTorch's default weights have a variance of 1 / (3 fan-in), and behind a gate the signal would fade from layer to
# layer; with three times this variance a convolution passes the variance of its input on. Larger weights shut the gates
# and learn more slowly.
_INITIAL_GAIN = math.sqrt(3.0)


def gate(x: Tensor, num_groups: int, dim: int = 1) -> Tensor:
    """Return tanh(first half) * sigmoid(second half) within each colour group (eq. 2); halves the channels."""
    pieces = x.chunk(2 * num_groups, dim)  # signal and opening of the first group, of the second, ...
    # Gathered, not viewed: on the CPU tanh and sigmoid of channels-last slices would fall back to scalar code, and
    # the gradient of a view over five dimensions would leave the channels-last format.
    signal, opening = torch.cat(pieces[0::2], dim), torch.cat(pieces[1::2], dim)  # (B, p, ...)
    return tanh(signal) * opening.sigmoid()


class GatedLayer(nn.Module):
    """One layer of both stacks (figure 2).

    Args:
        in_channels: Of the vertical and of the horizontal input; p, or the image's channels in the first layer.
        channels: p, divisible by the number of colour groups.
        kernel_size: n, odd, at least 3.
        num_groups: Colour groups.
        num_classes: Rows of the class table; 0 without classes.
        mask_type: A in the first layer, which must not see the pixel itself, B in the others.
        dropout: On the gated features of the horizontal stack, in training.
    """

    def __init__(
        self,
        *,
        in_channels: int,
        channels: int,
        kernel_size: int,
        num_groups: int,
        num_classes: int,
        mask_type: MaskType,
        dropout: float,
    ) -> None:
        super().__init__()
        self.num_groups = num_groups
        self.is_residual = mask_type == "B"
        self.vertical = RowsAboveConv2d(in_channels, 2 * channels, kernel_size, mask_type=mask_type)
        self.vertical_to_horizontal = nn.Conv2d(2 * channels, 2 * channels, 1)
        self.horizontal = MaskedConv2d(
            in_channels, 2 * channels, (1, kernel_size), num_groups=num_groups, mask_type=mask_type
        )
        self.output = MaskedConv2d(channels, channels, 1, num_groups=num_groups, mask_type="B")
        with torch.no_grad():
            for convolution in (self.vertical, self.vertical_to_horizontal, self.horizontal, self.output):
                convolution.weight.mul_(_INITIAL_GAIN)
        self.dropout = Dropout(dropout)
        self.classes = nn.Embedding(num_classes + 1, 4 * channels) if num_classes else None
        if self.classes is not None:
            nn.init.zeros_(self.classes.weight)

    def class_biases(self, labels: Int[Tensor, " B"]) -> tuple[Tensor, Tensor]:
        """Return V h for the vertical and the horizontal stack (eq. 4), (B, 2p) each; UNLABELLED is the last row."""
        assert self.classes is not None
        rows = torch.where(labels == UNLABELLED, self.classes.num_embeddings - 1, labels)
        vertical, horizontal = self.classes(rows).chunk(2, 1)
        return vertical, horizontal

    def forward(
        self, vertical: Float[Tensor, "B C_in H W"], horizontal: Float[Tensor, "B C_in H W"], labels: Int[Tensor, " B"]
    ) -> tuple[Float[Tensor, "B p H W"], Float[Tensor, "B p H W"]]:
        # Channels last is faster on the CPU and on tensor cores; a copy in the first layer only.
        v = self.vertical(vertical).contiguous(memory_format=torch.channels_last)  # (B, 2p, H, W)
        h = self.horizontal(horizontal).contiguous(memory_format=torch.channels_last)  # (B, 2p, H, W)
        h = h + self.vertical_to_horizontal(v)
        if self.classes is not None:
            for_v, for_h = self.class_biases(labels)
            v, h = v + for_v[:, :, None, None], h + for_h[:, :, None, None]
        h = self.output(self.dropout(gate(h, self.num_groups)))  # (B, p, H, W)
        return gate(v, 1), h + horizontal if self.is_residual else h


class GatedNetwork(nn.Module):
    """Network of gated layers, then 1x1 convolutions on the horizontal stack, then logits.

    Args:
        in_channels: Of the images, and the number of colour groups.
        out_channels: Logits per pixel, grouped by colour.
        num_layers: Gated layers.
        channels: p.
        input_kernel: Side of the first layer's kernels.
        kernel_size: Side of the other layers' kernels.
        head_channels: Widths of the 1x1 convolutions before the logits.
        num_classes: Rows of the class tables; 0 without classes.
        dropout: On the gated features of the horizontal stack, in training.
        position_grid: Height and width of a learned bias per position, added to the horizontal stack after the first
            layer and to the logits; None for no bias.
    """

    def __init__(
        self,
        *,
        in_channels: int,
        out_channels: int,
        num_layers: int,
        channels: int,
        input_kernel: int,
        kernel_size: int,
        head_channels: Sequence[int],
        num_classes: int,
        dropout: float,
        position_grid: tuple[int, int] | None,
    ) -> None:
        super().__init__()
        num_groups = in_channels
        self.layers = nn.ModuleList(
            GatedLayer(
                in_channels=channels if index else in_channels,
                channels=channels,
                kernel_size=kernel_size if index else input_kernel,
                num_groups=num_groups,
                num_classes=num_classes,
                mask_type="B" if index else "A",
                dropout=dropout,
            )
            for index in range(num_layers)
        )
        widths = [channels, *head_channels, out_channels]
        self.head = nn.ModuleList(
            MaskedConv2d(before, after, 1, num_groups=num_groups, mask_type="B") for before, after in pairwise(widths)
        )
        self.stream_position: nn.Parameter | None = None
        self.logit_position = logit_bias(out_channels, position_grid)
        if position_grid is not None:
            self.stream_position = nn.Parameter(torch.zeros(channels, *position_grid))

    def forward(self, x: Float[Tensor, "B C H W"], labels: Int[Tensor, " B"]) -> Float[Tensor, "B C_out H W"]:
        vertical = horizontal = x
        for index, layer in enumerate(self.layers):
            vertical, horizontal = layer(vertical, horizontal, labels)
            if index == 0:
                horizontal = add_positions(horizontal, self.stream_position)
        x = horizontal
        for convolution in self.head:
            x = convolution(F.relu(x))
        return add_positions(at_least_float32(x), biases_of(self.logit_position))
