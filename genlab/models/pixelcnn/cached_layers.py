"""Causal convolutions evaluated pixel by pixel, each value computed once.

A causal convolution has taps in the rows above and taps in the current row. The rows above are complete before
the first pixel of a row is drawn, so their part is one convolution for the whole row; what remains per pixel is
one matrix product with the pixels to the left and the pixel itself. Only the rows that a kernel still reaches are
kept. Source of the idea: Fast Generation for Convolutional Autoregressive Models, arXiv:1704.06001, which caches per
layer; the split of each kernel into whole rows and pixels is ours.

Everything here is channels last, without gradients, in one dtype; `n` is the number of images drawn together.

Dimensions: n images, W columns, C channels, G groups.
"""

from collections.abc import Sequence
from itertools import pairwise

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor

from genlab.models.pixelcnn.pointwise import parts


class RowBiases:
    """A bias for each position of an image, returned row by row; the row counter is on the device.

    Args:
        biases: (C, H, W); None gives None for each row.
        bounds: Borders of the colour groups of the C channels.
    """

    def __init__(self, biases: Float[Tensor, "C H W"] | None, bounds: Sequence[int]) -> None:
        self._bounds = bounds
        self._biases = None if biases is None else biases.detach().permute(1, 2, 0).contiguous()  # (H, W, C)
        self._next = None if biases is None else torch.zeros(1, dtype=torch.long, device=biases.device)

    def row(self) -> list[Float[Tensor, "W C_g"]] | None:
        """Return the biases of the next row for each group."""
        if self._biases is None or self._next is None:
            return None
        biases = self._biases.index_select(0, self._next)[0]
        self._next += 1
        return parts(biases, self._bounds)


class RowConvolution:
    """A convolution whose input arrives a whole row at a time.

    Args:
        weight: (C_out, C_in, rows, columns); its last row acts on the row that arrives.
        bias: (C_out,).
        num_samples: Images drawn together.
        width: Columns of the input.
        padding: Zero columns to the left and to the right.
        stride: Between output columns.
    """

    def __init__(
        self,
        weight: Float[Tensor, "C_out C_in rows columns"],
        bias: Float[Tensor, " C_out"] | None,
        *,
        num_samples: int,
        width: int,
        padding: tuple[int, int],
        stride: int = 1,
    ) -> None:
        self._weight = weight.contiguous(memory_format=torch.channels_last)
        self._bias = bias
        self._stride = (1, stride)
        left, right = padding
        self._rows = weight.new_zeros(num_samples, weight.shape[2], left + width + right, weight.shape[1])
        self._current = self._rows[:, -1, left : left + width]

    def push(self, row: Float[Tensor, "n W C_in"]) -> None:
        """Append the next row."""
        if self._rows.shape[1] > 1:
            self._rows[:, :-1] = self._rows[:, 1:].clone()
        self._current.copy_(row)

    def output(self) -> Float[Tensor, "n W_out C_out"]:
        """Return the output row of the last appended row."""
        channels_first = self._rows.permute(0, 3, 1, 2)
        return F.conv2d(channels_first, self._weight, self._bias, self._stride).squeeze(2).transpose(1, 2)


class PixelConvolution:
    """A causal convolution whose input arrives a pixel, or a colour group of a pixel, at a time.

    Args:
        weight: (C_out, C_in, rows, columns), masked; its last row acts on the current row up to the pixel itself.
        bias: (C_out,).
        num_samples: Images drawn together.
        width: Columns of the input.
        left: Columns of the kernel to the left of the pixel; the rest lies to its right, in the rows above only.
        stride: Between output columns and rows.
        bounds_in: Borders of the colour groups of the input channels.
        bounds_out: Borders of the colour groups of the output channels.
    """

    def __init__(
        self,
        weight: Float[Tensor, "C_out C_in rows columns"],
        bias: Float[Tensor, " C_out"],
        *,
        num_samples: int,
        width: int,
        left: int,
        stride: int = 1,
        bounds_in: tuple[int, ...] | None = None,
        bounds_out: tuple[int, ...] | None = None,
    ) -> None:
        out_channels, in_channels, rows, columns = weight.shape
        bounds_in = bounds_in or (0, in_channels)
        bounds_out = bounds_out or (0, out_channels)
        self._group_slices = [slice(*pair) for pair in pairwise(bounds_out)]
        # (C_out, C_in, left + 1) -> ((left + 1) * C_in, C_out): tap-major, as a window of the row lies in memory.
        pixel_weight = weight[:, :, -1, : left + 1].permute(2, 1, 0).reshape(-1, out_channels)
        self.weights = [pixel_weight[:, part].contiguous() for part in self._group_slices]
        self._rows_above = weight[:, :, :-1].contiguous(memory_format=torch.channels_last)
        self._stride = (1, stride)
        self._bias = bias
        right = columns - 1 - left
        buffer = weight.new_zeros(num_samples, max(rows - 1, 1), left + width + right, in_channels)
        self._rows = buffer
        self._num_outputs = width // stride
        self.windows = [buffer[:, -1, stride * j : stride * j + left + 1].flatten(1) for j in range(width // stride)]
        """Column -> the pixels to the left and the pixel itself, (n, (left + 1) * C_in), a view."""
        self.inputs = [
            [buffer[:, -1, left + j, bounds_in[g] : bounds_in[g + 1]] for j in range(width)]
            for g in range(len(bounds_in) - 1)
        ]
        """Group, column -> where that part of the input is to be written, (n, C_g), a view."""
        self.from_above: list[list[Tensor]] = []
        """Group, column -> what the rows above and the bias give, (n, C_g), a view; valid for the current row."""

    def begin_row(self, extra: Float[Tensor, "n W_out C_out"] | Float[Tensor, "W_out C_out"] | None = None) -> None:
        """Compute the terms of the rows above for the row that begins, and make room for its pixels.

        Args:
            extra: Added to the outputs of the row.
        """
        above = self._bias.expand(self._rows.shape[0], self._num_outputs, -1)
        if self._rows_above.shape[2]:
            channels_first = self._rows.permute(0, 3, 1, 2)
            above = F.conv2d(channels_first, self._rows_above, self._bias, self._stride).squeeze(2).transpose(1, 2)
        if extra is not None:
            above = above + extra
        columns = above.unbind(1)
        if len(self._group_slices) == 1:
            self.from_above = [list(columns)]
        else:
            self.from_above = [[column[:, part] for column in columns] for part in self._group_slices]
        self.end_row()

    def end_row(self) -> None:
        """Shift the rows up by one; the last one is then overwritten pixel by pixel."""
        if self._rows.shape[1] > 1:
            self._rows[:, :-1] = self._rows[:, 1:].clone()

    def output(self, column: int, group: int = 0) -> Float[Tensor, "n C_g"]:
        """Return one group of the output at one column; its input up to there has been written."""
        return torch.addmm(self.from_above[group][column], self.windows[column], self.weights[group])
