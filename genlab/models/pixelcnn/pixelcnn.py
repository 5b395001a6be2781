"""PixelCNN: masked convolutions in residual blocks, a categorical distribution over the levels of each sub-pixel.

Paper: Pixel Recurrent Neural Networks, van den Oord, Kalchbrenner, Kavukcuoglu, arXiv:1601.06759, sections 3.4, 3.5.

Differs from the paper:
    - Binary images have two logits per pixel and a softmax where the paper has one and a sigmoid: same distributions.
    - Optional: normalisation, dropout, a learned bias per position, blocks without the 1x1 reduction. Off unless the
      configuration says so.

As in the paper, a pixel never sees a wedge to its upper right, the blind spot; :mod:`genlab.models.pixelcnn.gated` has
none.

Order: raster order of pixels, within a pixel R, G, B.

Dimensions: B batch, n images drawn together, S symbols (a sub-pixel each) per site, K values of a symbol, h rows and
w columns of sites, F channels of the network's input.
"""

from collections.abc import Sequence

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from genlab.models.capabilities import Decoder, SamplesIncrementally
from genlab.models.pixelcnn.autoregressive import AutoregressiveModel
from genlab.models.pixelcnn.pixelcnn_decoder import MaskedResidualDecoder
from genlab.models.pixelcnn.pixelcnn_network import MaskedResidualNetwork, Normalization
from genlab.types import ImageSpec


class PixelCNN(AutoregressiveModel, SamplesIncrementally):
    """PixelCNN of any depth and width, for 1 to 4 channels and 2 to 256 levels.

    The paper's network for CIFAR-10 has 15 blocks of h = 128 (section 4).

    Args:
        spec: The images.
        num_blocks: Residual blocks.
        stream_channels: Width of the residual stream, 2h in the paper.
        block_channels: Width inside a block, h in the paper.
        input_kernel: Side of the first convolution, odd.
        block_kernel: Side of the blocks' convolutions, odd.
        reduces: True if blocks begin with a 1x1 convolution to `block_channels`, as in the paper.
        head_channels: Widths of the 1x1 convolutions before the logits.
        normalization: Called with a number of channels and num_groups, after every convolution but the head's.
        dropout: In the blocks, in training.
        position_bias: True if a bias per position is learned; without it, a border looks like black pixels.

    Raises:
        ValueError: A width is smaller than the number of channels, a kernel is even, or a number is out of range.
    """

    def __init__(
        self,
        *,
        spec: ImageSpec,
        num_blocks: int,
        stream_channels: int,
        block_channels: int,
        input_kernel: int,
        block_kernel: int,
        reduces: bool,
        head_channels: Sequence[int],
        normalization: Normalization | None,
        dropout: float,
        position_bias: bool,
    ) -> None:
        num_symbols, num_values, grid, in_channels = self._symbols_of(spec)
        super().__init__(spec=spec, num_symbols=num_symbols, num_values=num_values, grid=grid, class_conditional=False)
        self.network = MaskedResidualNetwork(
            in_channels=in_channels,
            out_channels=num_symbols * num_values,
            num_groups=num_symbols,
            num_blocks=num_blocks,
            stream_channels=stream_channels,
            block_channels=block_channels,
            input_kernel=input_kernel,
            block_kernel=block_kernel,
            reduces=reduces,
            head_channels=head_channels,
            normalization=normalization,
            dropout=dropout,
            position_grid=grid if position_bias else None,
        )

    @staticmethod
    def _symbols_of(spec: ImageSpec) -> tuple[int, int, tuple[int, int], int]:
        """Return the symbols per site S, their values K, the grid of sites and the channels of the network's input."""
        return spec.channels, spec.num_levels, (spec.height, spec.width), spec.channels

    def _input_of(self, symbols: Int[Tensor, "B S h w"]) -> Float[Tensor, "B F h w"]:
        """Return the input of the network for all symbols of images."""
        return self.to_images(symbols)

    def logits(self, symbols: Int[Tensor, "B S h w"], labels: Int[Tensor, " B"]) -> Float[Tensor, "B S K h w"]:
        del labels
        logits: Tensor = self.network(self._input_of(symbols))
        return torch.unflatten(logits, 1, (self.num_symbols, self.num_values))

    def decoder(self, labels: Int[Tensor, " n"], *, dtype: torch.dtype) -> Decoder:
        return MaskedResidualDecoder(
            self.network, encode=self._encode, num_samples=len(labels), grid=self.grid, dtype=dtype
        )

    def _encode(self, symbols: Int[Tensor, " n"]) -> Float[Tensor, "n F"]:
        """Return the input of the network for one symbol of each image."""
        return symbols[:, None] / (self.spec.num_levels - 1)

    def compilable(self) -> tuple[nn.Module, ...]:
        return (self.network,)

    def shardable(self) -> tuple[nn.Module, ...]:
        return (*self.network.blocks, self.network)
