"""The decoder of :class:`.pixelcnn_network.MaskedResidualNetwork`: three small matrix products a block.

With several colour groups a pixel takes one sub-step per group, in which only that group's features are computed,
from its own and the earlier groups' features of the same pixel.

A residual block ends in a bias that is added to the stream. Adding it to a running offset instead, known before
anything is drawn, saves an operation per block: relu(x + c) = max(x, -c) + c, and the + c passes through the next
1x1 convolution into its bias.

Dimensions: n images, h rows and w columns of sites, K values of a symbol.
"""

from collections.abc import Callable

import torch
from jaxtyping import Float, Int
from torch import Tensor

from genlab.models.pixelcnn.cached_layers import PixelConvolution, RowBiases
from genlab.models.pixelcnn.pixelcnn_network import MaskedResidualNetwork, ResidualBlock
from genlab.models.pixelcnn.pointwise import PixelLinear, PixelMap, PointwiseHead, fold, parts, prefixes
from genlab.models.pixelcnn.position_bias import biases_of


class _BlockDecoder:
    """One residual block; `stream` is shared by all blocks, and holds one pixel."""

    def __init__(self, block: ResidualBlock, stream: Tensor, offset: Tensor, width: int) -> None:
        num_samples, dtype = len(stream), stream.dtype
        bounds = block.expand.bounds_out
        self._stream = parts(stream, bounds)
        self._reduce: PixelLinear | None = None
        self._reduce_norm: PixelMap | None = None
        if block.reduce is None:
            self._offsets = parts(offset.to(dtype), bounds)
        else:
            weight, bias, self._reduce_norm = fold(block.reduce, block.reduce_norm)
            self._reduce = PixelLinear(weight, bias, offset, block.reduce, dtype)
            self._floors = parts(-offset.to(dtype), bounds)
            rectified = torch.empty_like(stream)
            self._rectified, self._seen = parts(rectified, bounds), prefixes(rectified, bounds)
        weight, bias, self._spread_norm = fold(block.spread, block.spread_norm)
        self.spread = PixelConvolution(
            weight.to(dtype),
            bias.to(dtype),
            num_samples=num_samples,
            width=width,
            left=weight.shape[3] // 2,
            bounds_in=block.spread.bounds_in,
            bounds_out=block.spread.bounds_out,
        )
        hidden = stream.new_empty(num_samples, weight.shape[0])
        self._hidden = parts(hidden, block.spread.bounds_out)
        self._hidden_seen = prefixes(hidden, block.spread.bounds_out)
        weight, bias, self._expand_norm = fold(block.expand, block.expand_norm)
        no_offset = torch.zeros_like(weight[0, :, 0, 0])
        self._expand = PixelLinear(weight, bias, no_offset, block.expand, dtype)
        # A normalised output is added with its bias; any other leaves it to the running offset.
        self.offset = offset if self._expand_norm else offset + bias

    def step(self, column: int, group: int) -> None:
        slot = self.spread.inputs[group][column]
        stream = self._stream[group]
        if self._reduce is None:
            torch.add(stream, self._offsets[group], out=slot)
        else:
            torch.maximum(stream, self._floors[group], out=self._rectified[group])
            torch.addmm(self._reduce.biases[group], self._seen[group], self._reduce.weights[group], out=slot)
            if self._reduce_norm:
                slot.copy_(self._reduce_norm(slot, group))
        slot.relu_()
        spread, hidden = self.spread, self._hidden[group]
        torch.addmm(spread.from_above[group][column], spread.windows[column], spread.weights[group], out=hidden)
        if self._spread_norm:
            hidden.copy_(self._spread_norm(hidden, group))
        hidden.relu_()
        if self._expand_norm:
            y = torch.addmm(self._expand.biases[group], self._hidden_seen[group], self._expand.weights[group])
            stream.add_(self._expand_norm(y, group))
        else:
            stream.addmm_(self._hidden_seen[group], self._expand.weights[group])


class MaskedResidualDecoder:
    """Decoder that keeps, per block, the input rows above a pixel that its spatial kernel covers.

    Args:
        network: In evaluation mode.
        encode: Symbols (n,) to the network's input features (n, C_g) of one group.
        num_samples: Images drawn together.
        grid: Rows and columns of sites.
        dtype: Of weights and activations; logits are fp32.
    """

    def __init__(
        self,
        network: MaskedResidualNetwork,
        *,
        encode: Callable[[Tensor], Tensor],
        num_samples: int,
        grid: tuple[int, int],
        dtype: torch.dtype,
    ) -> None:
        self._encode = encode
        width = grid[1]
        weight, bias, self._input_norm = fold(network.input, network.input_norm)
        self._input = PixelConvolution(
            weight.to(dtype),
            bias.to(dtype),
            num_samples=num_samples,
            width=width,
            left=weight.shape[3] // 2,
            bounds_in=network.input.bounds_in,
            bounds_out=network.input.bounds_out,
        )
        stream = weight.new_empty((num_samples, weight.shape[0]), dtype=dtype)
        self._stream = parts(stream, network.input.bounds_out)
        offset = torch.zeros_like(bias)
        self._blocks: list[_BlockDecoder] = []
        for block in network.blocks:
            assert isinstance(block, ResidualBlock)
            self._blocks.append(_BlockDecoder(block, stream, offset, width))
            offset = self._blocks[-1].offset
        self._floors = [-part.to(dtype) for part in parts(offset, network.input.bounds_out)]
        self._head = PointwiseHead(network.head, offset, num_samples, dtype)
        # Added in fp32, as in the full pass.
        self._stream_biases = RowBiases(network.stream_position, network.input.bounds_out)
        self._logit_biases = RowBiases(biases_of(network.logit_position), self._head.bounds)
        self._stream_position: list[Tensor] | None = None  # group -> (w, C_g) of the row
        self._logit_position: list[Tensor] | None = None  # group -> (w, K)

    @property
    def row_period(self) -> int:
        return 1

    def begin_row(self, row: int) -> None:
        del row
        self._stream_position = self._stream_biases.row()
        self._logit_position = self._logit_biases.row()
        self._input.begin_row()
        for block in self._blocks:
            block.spread.begin_row()

    def advance(self, column: int, channel: int) -> None:
        first, stream = self._input, self._stream[channel]
        torch.addmm(first.from_above[channel][column], first.windows[column], first.weights[channel], out=stream)
        if self._input_norm:
            stream.copy_(self._input_norm(stream, channel))
        if self._stream_position is not None:
            stream.add_(self._stream_position[channel][column])
        for block in self._blocks:
            block.step(column, channel)
        # The head's input has to be kept for the later groups of the pixel even where this symbol is given.
        torch.maximum(stream, self._floors[channel], out=self._head.inputs[channel])

    def logits(self, column: int, channel: int) -> Float[Tensor, "n K"]:
        logits = self._head.logits(channel)
        return logits if self._logit_position is None else logits + self._logit_position[channel][column]

    def write(self, column: int, channel: int, symbols: Int[Tensor, " n"]) -> None:
        self._input.inputs[channel][column].copy_(self._encode(symbols))
