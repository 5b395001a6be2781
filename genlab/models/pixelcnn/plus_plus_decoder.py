"""The decoder of :class:`genlab.models.pixelcnn.plus_plus_network.TwoStreamNetwork`.

The stream u of a row depends on the rows above only: it is computed once per row, a whole row at a time. The stream
ul is computed pixel by pixel. A scale of half the resolution moves on every second row and column; in between, its
last outputs are kept, because the way up reads them.

The private classes run once or more per pixel; their shapes stand in words, because checking them in tests would
take longer than what they do.

Dimensions: n images, W columns of a scale, F filters, E = 2 F activated ones, K levels.
"""

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from torch import Tensor, nn

from genlab.functional import at_least_float32
from genlab.models.pixelcnn.cached_layers import PixelConvolution, RowConvolution
from genlab.models.pixelcnn.mixture import (
    channel_log_probs,
    invert_channel_cdf,
    level_positions,
    split_mixture_parameters,
    upper_edges,
)
from genlab.models.pixelcnn.plus_plus_network import GatedResidualBlock, TwoStreamNetwork, concat_elu
from genlab.nn.shifted import WeightNormConv2d, WeightNormUpsample2d
from genlab.types import ImageSpec


def _row_convolution(layer: WeightNormConv2d, num_samples: int, width: int, dtype: torch.dtype) -> RowConvolution:
    return RowConvolution(
        layer.weight().to(dtype),
        layer.bias.to(dtype),
        num_samples=num_samples,
        width=width,
        padding=layer.padding,
        stride=layer.stride,
    )


def _pixel_convolution(layer: WeightNormConv2d, num_samples: int, width: int, dtype: torch.dtype) -> PixelConvolution:
    return PixelConvolution(
        layer.weight().to(dtype),
        layer.bias.to(dtype),
        num_samples=num_samples,
        width=width,
        left=layer.padding[0],
        stride=layer.stride,
    )


def _gate(x: Tensor, y: Tensor) -> Tensor:
    a, b = y.chunk(2, -1)
    return x + a * b.sigmoid()


def _concat_elu(x: Float[Tensor, "n F"]) -> Float[Tensor, "n E"]:
    """Return `concat_elu` of one pixel's features in few operations, whose number decides the time."""
    return F.elu(torch.cat((x, -x), 1))


class _ConcatELUInputs:
    """A writer of `concat_elu` of a pixel's features into the input of a convolution."""

    def __init__(self, convolution: PixelConvolution) -> None:
        self._columns = [(whole, *whole.chunk(2, 1)) for whole in convolution.inputs[0]]

    def write(self, column: int, x: Float[Tensor, "n F"]) -> None:
        whole, positive, negative = self._columns[column]
        positive.copy_(x)
        torch.neg(x, out=negative)
        F.elu(whole, inplace=True)


class _RowBlock:
    """A gated residual block of the stream u."""

    def __init__(self, block: GatedResidualBlock, labels: Tensor, width: int, dtype: torch.dtype) -> None:
        self._first = _row_convolution(block.first, len(labels), width, dtype)
        self._second = _row_convolution(block.second, len(labels), width, dtype)
        class_bias = block.class_bias(labels)
        self._class_bias = None if class_bias is None else class_bias[:, None].to(dtype)
        self._skip: tuple[Tensor, Tensor] | None = None
        if block.skip is not None:
            self._skip = (block.skip.weight()[:, :, 0, 0].to(dtype), block.skip.bias.to(dtype))

    def row(self, x: Tensor, skip: Tensor | None) -> Tensor:
        """(n, W, F) to (n, W, F)."""
        self._first.push(concat_elu(x, -1))
        y = self._first.output()
        if self._skip is not None and skip is not None:
            y = y + F.linear(concat_elu(skip, -1), *self._skip)
        self._second.push(concat_elu(y, -1))
        y = self._second.output()
        return _gate(x, y if self._class_bias is None else y + self._class_bias)


class _PixelBlock:
    """A gated residual block of the stream ul; its skip input from u is known for the whole row."""

    def __init__(self, block: GatedResidualBlock, labels: Tensor, width: int, dtype: torch.dtype) -> None:
        self._first = _pixel_convolution(block.first, len(labels), width, dtype)
        self._second = _pixel_convolution(block.second, len(labels), width, dtype)
        self._first_inputs, self._second_inputs = _ConcatELUInputs(self._first), _ConcatELUInputs(self._second)
        class_bias = block.class_bias(labels)
        self._class_bias = None if class_bias is None else class_bias[:, None].to(dtype)
        assert block.skip is not None
        weight = block.skip.weight()[:, :, 0, 0].to(dtype)  # (F, E), or (F, 2 E) for u and ul
        filters = len(weight)
        positive, negative = weight.chunk(2, 1)
        self._skip_bias = block.skip.bias.to(dtype)
        self._skip_u = torch.cat((positive[:, :filters], negative[:, :filters]), 1)  # (F, 2F)
        self._skip_ul = torch.cat((positive[:, filters:], negative[:, filters:]), 1).t().contiguous()  # (2F or 0, F)

    def begin_row(self, u: Tensor) -> None:
        """Store the row (n, W, F) of the stream u for the skip connection."""
        self._first.begin_row(F.linear(concat_elu(u, -1), self._skip_u, self._skip_bias))
        self._second.begin_row(self._class_bias)

    def step(self, column: int, x: Tensor, skip: Tensor | None) -> Tensor:
        """(n, F) to (n, F)."""
        self._first_inputs.write(column, x)
        y = self._first.output(column)
        if skip is not None:
            y.addmm_(_concat_elu(skip), self._skip_ul)
        self._second_inputs.write(column, y)
        return _gate(x, self._second.output(column))


class _Scale:
    """The blocks of one resolution and of all below it.

    Args:
        network: In evaluation mode.
        scale: 0 is full resolution.
        labels: Classes, or UNLABELLED.
        width: Columns at this scale.
        dtype: Of weights and activations.
    """

    def __init__(self, network: TwoStreamNetwork, scale: int, labels: Tensor, width: int, dtype: torch.dtype) -> None:
        num_scales, num_samples = len(network.u_down), len(labels)
        up = num_scales - 1 - scale

        def row_blocks(blocks: nn.Module) -> list[_RowBlock]:
            return [_RowBlock(block, labels, width, dtype) for block in _blocks(blocks)]

        def pixel_blocks(blocks: nn.Module) -> list[_PixelBlock]:
            return [_PixelBlock(block, labels, width, dtype) for block in _blocks(blocks)]

        self._u_down, self._ul_down = row_blocks(network.u_down[scale]), pixel_blocks(network.ul_down[scale])
        self._u_up, self._ul_up = row_blocks(network.u_up[up]), pixel_blocks(network.ul_up[up])
        self._lower: _Scale | None = None
        if scale + 1 < num_scales:
            self._lower = _Scale(network, scale + 1, labels, width // 2, dtype)
            u_down, ul_down = network.u_downsample[scale], network.ul_downsample[scale]
            u_up, ul_up = network.u_upsample[up - 1], network.ul_upsample[up - 1]
            assert isinstance(u_down, WeightNormConv2d)
            assert isinstance(ul_down, WeightNormConv2d)
            assert isinstance(u_up, WeightNormUpsample2d)
            assert isinstance(ul_up, WeightNormUpsample2d)
            self._u_downsample = _row_convolution(u_down, num_samples, width, dtype)
            self._ul_downsample = _pixel_convolution(ul_down, num_samples, width, dtype)
            self._u_upsample = torch.split(u_up.weight().to(dtype), 1, 2)  # row parity -> (F, F, 1, 3)
            self._u_upsample_bias = u_up.bias.to(dtype)
            self._ul_upsample = ul_up.weight().to(dtype).permute(2, 3, 0, 1).contiguous()  # (2, 2, F_in, F_out)
            self._ul_upsample_bias = ul_up.bias.to(dtype)
            self._lower_u = u_up.weight().new_zeros((num_samples, width // 2, u_up.weight().shape[0]), dtype=dtype)
            self._lower_ul = ul_up.weight().new_zeros((num_samples, width // 2, ul_up.weight().shape[0]), dtype=dtype)

    def begin_row(self, row: int, u: Tensor) -> Tensor:
        """Return the stream u of one row, (n, W, F), down and up again."""
        skips = [u]
        for u_block, ul_block in zip(self._u_down, self._ul_down, strict=True):
            u = u_block.row(u, None)
            ul_block.begin_row(u)
            skips.append(u)
        if self._lower is None:
            u = skips.pop()
        else:
            self._u_downsample.push(u)
            if row % 2 == 0:
                self._ul_downsample.begin_row()
                self._lower_u.copy_(self._lower.begin_row(row // 2, self._u_downsample.output()))
            u = self._upsample_row(self._lower_u, row % 2)
        for u_block, ul_block in zip(self._u_up, self._ul_up, strict=True):
            u = u_block.row(u, skips.pop())
            ul_block.begin_row(u)
        return u

    def _upsample_row(self, lower: Tensor, parity: int) -> Tensor:
        channels_first = lower.transpose(1, 2)[:, :, None]  # (n, F, 1, W / 2)
        row = F.conv_transpose2d(channels_first, self._u_upsample[parity], self._u_upsample_bias, stride=(1, 2))
        return row[:, :, 0, 1:].transpose(1, 2)

    def step(self, row: int, column: int, ul: Tensor) -> Tensor:
        """Return the stream ul of one pixel, (n, F), down and up again."""
        skips = [ul]
        for block in self._ul_down:
            ul = block.step(column, ul, None)
            skips.append(ul)
        if self._lower is None:
            ul = skips.pop()
        else:
            self._ul_downsample.inputs[0][column].copy_(ul)
            if row % 2 == 0 and column % 2 == 0:
                lower = self._ul_downsample.output(column // 2)
                self._lower_ul[:, column // 2] = self._lower.step(row // 2, column // 2, lower)
            kept = self._lower_ul[:, column // 2]
            ul = torch.addmm(self._ul_upsample_bias, kept, self._ul_upsample[row % 2, column % 2])
        for block in self._ul_up:
            ul = block.step(column, ul, skips.pop())
        return ul


class TwoStreamDecoder:
    """Decoder that keeps, per layer, the row above that its kernel covers, and the current row.

    Args:
        network: In evaluation mode.
        spec: The images.
        labels: Classes, or UNLABELLED.
        dtype: Of weights and activations; the mixture is evaluated in fp32.
    """

    def __init__(
        self, network: TwoStreamNetwork, *, spec: ImageSpec, labels: Int[Tensor, " n"], dtype: torch.dtype
    ) -> None:
        num_samples, width = len(labels), spec.width
        self._num_levels = spec.num_levels
        self._u_input = _row_convolution(network.u_input, num_samples, width, dtype)
        self._ul_input_above = _row_convolution(network.ul_input_above, num_samples, width, dtype)
        # Its two taps lie in the column to the left; the column of the pixel itself has weight zero.
        self._ul_input_left = PixelConvolution(
            F.pad(network.ul_input_left.weight(), (0, 1)).to(dtype),
            network.ul_input_left.bias.to(dtype),
            num_samples=num_samples,
            width=width,
            left=1,
        )
        self._scales = _Scale(network, 0, labels, width, dtype)
        self._output = network.output.weight()[:, :, 0, 0].to(dtype)
        self._output_bias = network.output.bias.to(dtype)
        # The row above the first is padding: zero in the channel of ones as well.
        self._image_row = self._output.new_zeros(num_samples, width, spec.channels + 1)
        self._levels = labels.new_zeros(num_samples, spec.channels)
        self._parameters = split_mixture_parameters(
            at_least_float32(self._output_bias).expand(num_samples, -1), spec.channels
        )
        self._edges = upper_edges(spec.num_levels, like=self._parameters.means)
        self._row = 0
        self._num_scales = len(network.u_down)

    @property
    def row_period(self) -> int:
        return int(2 ** (self._num_scales - 1))

    def begin_row(self, row: int) -> None:
        self._row = row
        self._u_input.push(self._image_row)
        self._ul_input_above.push(self._image_row)
        self._ul_input_left.begin_row(self._ul_input_above.output())
        self._scales.begin_row(row, self._u_input.output())

    def advance(self, column: int, channel: int) -> None:
        if channel == 0:
            ul = self._scales.step(self._row, column, self._ul_input_left.output(column))
            raw = at_least_float32(F.linear(F.elu(ul), self._output, self._output_bias))
            self._parameters = split_mixture_parameters(raw, self._levels.shape[1])

    def logits(self, column: int, channel: int) -> Float[Tensor, "n K"]:
        del column
        return channel_log_probs(self._parameters, self._levels, channel, num_levels=self._num_levels)

    def invert_cdf(self, column: int, channel: int, uniforms: Float[Tensor, " n"]) -> Int[Tensor, " n"]:
        del column
        return invert_channel_cdf(
            self._parameters, self._levels, channel, uniforms, edges=self._edges, num_levels=self._num_levels
        )

    def write(self, column: int, channel: int, symbols: Int[Tensor, " n"]) -> None:
        self._levels[:, channel] = symbols
        if channel + 1 == self._levels.shape[1]:
            positions = level_positions(self._levels, self._num_levels, self._parameters.means.dtype)
            pixel = F.pad(positions, (0, 1), value=1.0)
            self._image_row[:, column] = pixel
            self._ul_input_left.inputs[0][column].copy_(pixel)


def _blocks(blocks: nn.Module) -> Sequence[GatedResidualBlock]:
    assert isinstance(blocks, nn.ModuleList)
    return [block for block in blocks if isinstance(block, GatedResidualBlock)]
