"""PixelCNN over 2x2 blocks: four pixels of few levels are one symbol on a grid of a quarter of the sites.

The network is that of arXiv:1601.06759 (:mod:`genlab.models.pixelcnn.pixelcnn`); the grouping of pixels is ours. The
chain rule over blocks is exact, so the likelihood is comparable with any other exact likelihood of the same images. The
order in which pixels are generated differs, and the pixels of a block are drawn jointly.

Order: raster order of 2x2 blocks; within a block one draw from all num_levels ** (4 * channels) combinations.

Dimensions: B batch, n images drawn together, C channels, H height, W width, h = H / 2, w = W / 2, K combinations.
"""

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from torch import Tensor, nn

from genlab.functional import one_hot
from genlab.models.capabilities import SamplesIncrementally
from genlab.models.pixelcnn.autoregressive import AutoregressiveModel
from genlab.models.pixelcnn.pixelcnn_decoder import MaskedResidualDecoder
from genlab.models.pixelcnn.pixelcnn_network import MaskedResidualNetwork, Normalization
from genlab.models.pixelcnn.sampler import Decoder
from genlab.types import ImageSpec

SIDE = 2
# More combinations than this make the softmax the largest layer, and most of them are never seen in training.
MOST_VALUES = 1296


class PixelCNNBlocks(AutoregressiveModel, SamplesIncrementally):
    """PixelCNN whose symbols are 2x2 blocks: a quarter of the sites to compute and to draw.

    Args:
        spec: The images; even height and width, and few levels (2 to 6 with one channel).
        num_blocks: Residual blocks.
        stream_channels: Width of the residual stream.
        block_channels: Width inside a residual block.
        input_kernel: Side of the first convolution, in 2x2 blocks, odd.
        block_kernel: Side of the residual blocks' convolutions, in 2x2 blocks, odd.
        reduces: True if residual blocks begin with a 1x1 convolution to `block_channels`.
        head_channels: Widths of the 1x1 convolutions before the logits.
        normalization: Called with a number of channels and num_groups, after every convolution but the head's.
        dropout: In the residual blocks, in training.
        position_bias: True if a bias per position is learned, on the stream and on the logits.

    Raises:
        ValueError: The images have an odd side or too many levels, or an argument is out of range.
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
        if spec.height % SIDE or spec.width % SIDE:
            raise ValueError(
                "pixelcnn_blocks needs an even height and width to cut images into 2x2 blocks, "
                f"got {spec.height}x{spec.width}: use model=pixelcnn"
            )
        num_values = spec.num_levels ** (SIDE * SIDE * spec.channels)
        if num_values > MOST_VALUES:
            raise ValueError(
                f"pixelcnn_blocks needs at most {MOST_VALUES} combinations of levels in a 2x2 block, got {num_values} "
                f"({spec.num_levels} levels, {spec.channels} channels): binarise the images or use model=pixelcnn"
            )
        grid = (spec.height // SIDE, spec.width // SIDE)
        super().__init__(spec=spec, num_symbols=1, num_values=num_values, grid=grid, class_conditional=False)
        self.network = MaskedResidualNetwork(
            in_channels=num_values,
            out_channels=num_values,
            num_groups=1,
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
        digits = spec.num_levels ** torch.arange(SIDE * SIDE * spec.channels)
        self.register_buffer("place_values", digits, persistent=False)

    place_values: Tensor
    """Place value of each sub-pixel in the block's symbol, a number in base num_levels."""

    def to_symbols(self, images: Float[Tensor, "B C H W"]) -> Int[Tensor, "B 1 h w"]:
        levels = F.pixel_unshuffle(super().to_symbols(images), SIDE)  # (B, C * 4, h, w)
        return (levels * self.place_values[:, None, None]).sum(1, keepdim=True)

    def to_images(self, symbols: Int[Tensor, "B 1 h w"]) -> Float[Tensor, "B C H W"]:
        levels = symbols // self.place_values[:, None, None] % self.spec.num_levels  # (B, C * 4, h, w)
        return super().to_images(F.pixel_shuffle(levels, SIDE))

    def logits(self, symbols: Int[Tensor, "B 1 h w"], labels: Int[Tensor, " B"]) -> Float[Tensor, "B 1 K h w"]:
        del labels
        blocks = one_hot(symbols[:, 0], self.num_values).permute(0, 3, 1, 2)  # (B, K, h, w)
        logits: Tensor = self.network(blocks.to(self.dtype))
        return logits[:, None]

    def decoder(self, labels: Int[Tensor, " n"], *, dtype: torch.dtype) -> Decoder:
        # Here, because the decoder is written in terms of the network of another model.
        return MaskedResidualDecoder(
            self.network, encode=self._encode, num_samples=len(labels), grid=self.grid, dtype=dtype
        )

    def _encode(self, symbols: Int[Tensor, " n"]) -> Float[Tensor, "n K"]:
        return one_hot(symbols, self.num_values)

    def compilable(self) -> tuple[nn.Module, ...]:
        return (self.network,)

    def shardable(self) -> tuple[nn.Module, ...]:
        return (*self.network.blocks, self.network)
