"""Gated PixelCNN: a vertical and a horizontal stack of gated convolutions, and no blind spot.

Paper: Conditional Image Generation with PixelCNN Decoders, van den Oord et al., arXiv:1606.05328, sections 2.1 to
2.3 and figure 2.

Differs from the paper:
    - The vertical n x n kernel has only the rows that it may see: above in the first layer, up to its own afterwards
      (its features already belong to the rows above). Each layer's reach upwards is n // 2 rows, as in the paper.
    - The weights of gated layers start with a variance of 1 / fan-in; the paper does not say how its own start.
    - The class's contribution V h is a table with a row per class and one for images without a label; it is added to
      the biases of the convolutions.
    - Optional: a learned bias per position, on the horizontal stack after the first layer and on the logits; in the
      paper only a condition may give a bias that varies over the image (section 2.3). Off unless the configuration
      says so.

Order: raster order of pixels, within a pixel R, G, B.

Dimensions: B batch, n images drawn together, C channels, H height, W width, p features of a stack, G colour groups,
K levels.
"""

import math
from collections.abc import Sequence

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from genlab.models.capabilities import Decoder, SamplesIncrementally
from genlab.models.pixelcnn.autoregressive import AutoregressiveModel
from genlab.models.pixelcnn.gated_decoder import GatedDecoder
from genlab.models.pixelcnn.gated_network import GatedNetwork
from genlab.models.ranges import require_between, require_count, require_kernel
from genlab.types import CompilationCost, ImageSpec


class GatedPixelCNN(AutoregressiveModel, SamplesIncrementally):
    """Gated PixelCNN, optionally class-conditional.

    Args:
        spec: The images.
        num_layers: Gated layers.
        channels: Features of each stack, p; divisible by the number of image channels.
        input_kernel: Side of the first layer's kernels, odd, at least 3.
        kernel_size: Side of the other layers' kernels, odd, at least 3.
        head_channels: Widths of the 1x1 convolutions before the logits.
        class_conditional: True if the class is an input; images marked UNLABELLED have a row of their own.
        dropout: On the gated features of the horizontal stack, in training.
        position_bias: True if a bias per position is learned; without it, a border looks like black pixels.

    Raises:
        ValueError: An argument is out of range, or classes were asked for and the images have none.
    """

    def __init__(
        self,
        *,
        spec: ImageSpec,
        num_layers: int,
        channels: int,
        input_kernel: int,
        kernel_size: int,
        head_channels: Sequence[int],
        class_conditional: bool,
        dropout: float,
        position_bias: bool,
    ) -> None:
        require_count("model.num_layers", num_layers)
        require_between("model.dropout", dropout, 0.0, 0.99)
        require_kernel("model.input_kernel", input_kernel, 3)
        require_kernel("model.kernel_size", kernel_size, 3)
        if channels % spec.channels:
            raise ValueError(f"model.channels must be divisible by the {spec.channels} image channels, got {channels}")
        super().__init__(
            spec=spec,
            num_symbols=spec.channels,
            num_values=spec.num_levels,
            grid=(spec.height, spec.width),
            class_conditional=class_conditional,
        )
        self._channels = channels
        self.network = GatedNetwork(
            in_channels=spec.channels,
            out_channels=spec.channels * spec.num_levels,
            num_layers=num_layers,
            channels=channels,
            input_kernel=input_kernel,
            kernel_size=kernel_size,
            head_channels=head_channels,
            num_classes=self.num_classes,
            dropout=dropout,
            position_grid=self.grid if position_bias else None,
        )

    def logits(self, symbols: Int[Tensor, "B C H W"], labels: Int[Tensor, " B"]) -> Float[Tensor, "B C K H W"]:
        logits: Tensor = self.network(self.to_images(symbols), labels)
        return torch.unflatten(logits, 1, (self.num_symbols, self.num_values))

    def decoder(self, labels: Int[Tensor, " n"], *, dtype: torch.dtype) -> Decoder:
        return GatedDecoder(self.network, encode=self._encode, labels=labels, width=self.spec.width, dtype=dtype)

    def _encode(self, symbols: Int[Tensor, " n"]) -> Float[Tensor, "n 1"]:
        return symbols[:, None] / (self.spec.num_levels - 1)

    def compilable(self) -> tuple[nn.Module, ...]:
        return (self.network,)

    def compilation_cost(self) -> CompilationCost:
        """Return the figures for 6 layers of 24 channels and 28x28 pixels, in proportion to their product.

        In bfloat16, networks of 32 to 64 channels gain 1.54 to 1.73, with dropout 1.33, one of 24 only 1.05.
        """
        size = len(self.network.layers) * self._channels * math.prod(self.grid) / (6 * 24 * 28 * 28)
        in_bfloat16 = 1.4 if self._channels >= 32 else 1.03
        return CompilationCost(
            seconds=25.0, milliseconds_per_image=9.0 * size, speedup=1.16, speedup_in_bfloat16=in_bfloat16
        )

    def shardable(self) -> tuple[nn.Module, ...]:
        return (*self.network.layers, self.network)
