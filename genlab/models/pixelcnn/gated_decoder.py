"""The decoder of :class:`genlab.models.pixelcnn.gated_network.GatedNetwork`.

The vertical stack of a row depends on the rows above only, so it is computed once per row, for the whole row; the
horizontal stack takes, per pixel and layer, two small matrix products and a gate.

Dimensions: n images, W columns, p features of a stack, K levels.
"""

from collections.abc import Callable

import torch
from jaxtyping import Float, Int
from torch import Tensor

from genlab.models.pixelcnn.cached_layers import PixelConvolution, RowBiases, RowConvolution
from genlab.models.pixelcnn.gated_network import GatedLayer, GatedNetwork, gate
from genlab.models.pixelcnn.pointwise import PixelLinear, PointwiseHead, parts, prefixes
from genlab.models.pixelcnn.position_bias import biases_of
from genlab.nn.masked import group_bounds


class _LayerDecoder:
    def __init__(self, layer: GatedLayer, labels: Tensor, width: int, dtype: torch.dtype) -> None:
        num_samples = len(labels)
        reach = layer.vertical.weight.shape[3] // 2
        self.vertical = RowConvolution(
            layer.vertical.weight.to(dtype),
            layer.vertical.bias.to(dtype),
            num_samples=num_samples,
            width=width,
            padding=(reach, reach),
        )
        self._link = layer.vertical_to_horizontal.weight[:, :, 0, 0].t().to(dtype).contiguous()
        weight = layer.horizontal.effective_weight()
        assert layer.vertical_to_horizontal.bias is not None
        self.horizontal = PixelConvolution(
            weight.to(dtype),
            (layer.horizontal.bias + layer.vertical_to_horizontal.bias).to(dtype),
            num_samples=num_samples,
            width=width,
            left=weight.shape[3] // 2,
            bounds_in=layer.horizontal.bounds_in,
            bounds_out=layer.horizontal.bounds_out,
        )
        self._vertical_class: Tensor | None = None
        self._horizontal_class: Tensor | None = None
        if layer.classes is not None:
            for_v, for_h = layer.class_biases(labels)
            self._vertical_class, self._horizontal_class = for_v[:, None].to(dtype), for_h[:, None].to(dtype)
        self.output_bias = layer.output.bias
        no_offset = torch.zeros_like(layer.output.bias)
        self._output = PixelLinear(layer.output.effective_weight(), layer.output.bias, no_offset, layer.output, dtype)
        gated = weight.new_empty((num_samples, layer.output.bounds_in[-1]), dtype=dtype)
        self._gated = parts(gated, layer.output.bounds_in)
        self._seen = prefixes(gated, layer.output.bounds_in)
        self._is_residual = layer.is_residual

    def begin_row(self, row_above: Float[Tensor, "n W C_in"]) -> Float[Tensor, "n W p"]:
        self.vertical.push(row_above)
        v = self.vertical.output()  # (n, W, 2p)
        link = v @ self._link
        self.horizontal.begin_row(link if self._horizontal_class is None else link + self._horizontal_class)
        return gate(v if self._vertical_class is None else v + self._vertical_class, 1, dim=2)

    def step(self, column: int, group: int, following: Tensor) -> None:
        """Compute one colour group of one pixel; the result goes to `following`, (n, p / G)."""
        self._gated[group].copy_(gate(self.horizontal.output(column, group), 1))
        torch.addmm(self._output.biases[group], self._seen[group], self._output.weights[group], out=following)
        if self._is_residual:
            following.add_(self.horizontal.inputs[group][column])


class GatedDecoder:
    """Decoder that keeps, per layer, the rows of the vertical kernel and the current row of the horizontal stack.

    Args:
        network: In evaluation mode.
        encode: Symbols (n,) to the network's input features (n, 1).
        labels: Classes, or UNLABELLED.
        width: Of the images.
        dtype: Of weights and activations; logits are fp32.
    """

    def __init__(
        self,
        network: GatedNetwork,
        *,
        encode: Callable[[Tensor], Tensor],
        labels: Int[Tensor, " n"],
        width: int,
        dtype: torch.dtype,
    ) -> None:
        self._encode = encode
        self._layers: list[_LayerDecoder] = []
        for layer in network.layers:
            assert isinstance(layer, GatedLayer)
            self._layers.append(_LayerDecoder(layer, labels, width, dtype))
        no_offset = torch.zeros_like(self._layers[-1].output_bias)
        self._head = PointwiseHead(network.head, no_offset, len(labels), dtype)
        self._image_row = no_offset.new_zeros((len(labels), width, len(self._head.inputs)), dtype=dtype)
        # Added in fp32, as in the full pass.
        self._stream_biases = RowBiases(network.stream_position, group_bounds(len(no_offset), len(self._head.inputs)))
        self._logit_biases = RowBiases(biases_of(network.logit_position), self._head.bounds)
        self._stream_position: list[Tensor] | None = None  # group -> (W, p / G) of the row
        self._logit_position: list[Tensor] | None = None  # group -> (W, K)

    @property
    def row_period(self) -> int:
        return 1

    def begin_row(self, row: int) -> None:
        del row
        self._stream_position = self._stream_biases.row()
        self._logit_position = self._logit_biases.row()
        # The first layer (mask A) gets the row above; a later one (mask B) this row's features of the layer before it.
        vertical = self._image_row
        for layer in self._layers:
            vertical = layer.begin_row(vertical)

    def advance(self, column: int, channel: int) -> None:
        outputs = [layer.horizontal.inputs[channel][column] for layer in self._layers[1:]]
        outputs.append(self._head.inputs[channel])
        self._layers[0].step(column, channel, outputs[0])
        if self._stream_position is not None:
            outputs[0].add_(self._stream_position[channel][column])
        for layer, output in zip(self._layers[1:], outputs[1:], strict=True):
            layer.step(column, channel, output)
        outputs[-1].relu_()

    def logits(self, column: int, channel: int) -> Float[Tensor, "n K"]:
        logits = self._head.logits(channel)
        return logits if self._logit_position is None else logits + self._logit_position[channel][column]

    def write(self, column: int, channel: int, symbols: Int[Tensor, " n"]) -> None:
        feature = self._encode(symbols)
        self._layers[0].horizontal.inputs[channel][column].copy_(feature)
        self._image_row[:, column, channel : channel + 1] = feature
