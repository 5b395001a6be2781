"""PixelCNN over 2x2 blocks: four pixels of few levels are one symbol on a grid of a quarter of the sites.

The network is that of arXiv:1601.06759 (:mod:`genlab.models.pixelcnn.pixelcnn`); the grouping of pixels is ours. The
chain rule over blocks is exact, so the likelihood is comparable with any other exact likelihood of the same images. The
order in which pixels are generated differs, and the pixels of a block are drawn jointly.

Order: raster order of 2x2 blocks; within a block one draw from all num_levels ** (4 * channels) combinations.

Dimensions: B batch, n images drawn together, C channels, H height, W width, h = H / 2, w = W / 2, K combinations.
"""

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from torch import Tensor

from genlab.functional import one_hot
from genlab.models.pixelcnn.pixelcnn import PixelCNN
from genlab.types import ImageSpec

SIDE = 2
# More combinations than this make the softmax the largest layer, and most of them are never seen in training.
MOST_VALUES = 1296


class PixelCNNBlocks(PixelCNN):
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

    @staticmethod
    def _symbols_of(spec: ImageSpec) -> tuple[int, int, tuple[int, int], int]:
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
        return 1, num_values, (spec.height // SIDE, spec.width // SIDE), num_values

    def _place_values(self, device: torch.device) -> Int[Tensor, "D 1 1"]:
        """Return the place value of each sub-pixel in the block's symbol, a number of D digits in base num_levels."""
        digits = torch.arange(SIDE * SIDE * self.spec.channels, device=device)
        return (self.spec.num_levels**digits)[:, None, None]

    def to_symbols(self, images: Float[Tensor, "B C H W"]) -> Int[Tensor, "B 1 h w"]:
        levels = F.pixel_unshuffle(super().to_symbols(images), SIDE)  # (B, C * 4, h, w)
        return (levels * self._place_values(levels.device)).sum(1, keepdim=True)

    def to_images(self, symbols: Int[Tensor, "B 1 h w"]) -> Float[Tensor, "B C H W"]:
        levels = symbols // self._place_values(symbols.device) % self.spec.num_levels  # (B, C * 4, h, w)
        return super().to_images(F.pixel_shuffle(levels, SIDE))

    def _input_of(self, symbols: Int[Tensor, "B 1 h w"]) -> Float[Tensor, "B K h w"]:
        return one_hot(symbols[:, 0], self.num_values).permute(0, 3, 1, 2).to(self.dtype)

    def _encode(self, symbols: Int[Tensor, " n"]) -> Float[Tensor, "n K"]:
        return one_hot(symbols, self.num_values)
