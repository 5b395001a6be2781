"""The network of PixelCNN: masked convolutions in residual blocks.

Paper and departures: :mod:`genlab.models.pixelcnn.pixelcnn`.

Dimensions: B batch, C channels, H height, W width, K levels.
"""

from collections.abc import Callable, Sequence
from itertools import pairwise

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

from genlab.functional import at_least_float32
from genlab.models.pixelcnn.position_bias import add_positions, biases_of, logit_bias
from genlab.models.ranges import require_between, require_count, require_kernel
from genlab.nn.dropout import Dropout
from genlab.nn.masked import MaskedConv2d

Normalization = Callable[..., nn.Module]
"""Called with the number of channels and the keyword num_groups."""


class ResidualBlock(nn.Module):
    """Residual block (figure 5, left): 1x1 to half the channels, masked 3x3, 1x1 back, added to the stream.

    Args:
        stream_channels: 2h in the paper.
        block_channels: h in the paper.
        kernel_size: Of the spatial convolution.
        num_groups: Colour groups.
        reduces: False leaves the first 1x1 convolution out, so that the spatial one acts on the whole stream.
        normalization: After every convolution; None for no normalisation.
        dropout: Probability of an element of the block's last hidden layer being zeroed in training.
    """

    def __init__(
        self,
        *,
        stream_channels: int,
        block_channels: int,
        kernel_size: int,
        num_groups: int,
        reduces: bool,
        normalization: Normalization | None,
        dropout: float,
    ) -> None:
        super().__init__()

        def normalize(channels: int) -> nn.Module:
            return nn.Identity() if normalization is None else normalization(channels, num_groups=num_groups)

        self.reduce: MaskedConv2d | None = None
        if reduces:
            self.reduce = MaskedConv2d(stream_channels, block_channels, 1, num_groups=num_groups, mask_type="B")
            self.reduce_norm = normalize(block_channels)
        spread_channels = block_channels if reduces else stream_channels
        self.spread = MaskedConv2d(spread_channels, block_channels, kernel_size, num_groups=num_groups, mask_type="B")
        self.spread_norm = normalize(block_channels)
        self.expand = MaskedConv2d(block_channels, stream_channels, 1, num_groups=num_groups, mask_type="B")
        self.expand_norm = normalize(stream_channels)
        self.dropout = Dropout(dropout)

    def forward(self, x: Float[Tensor, "B stream H W"]) -> Float[Tensor, "B stream H W"]:
        y: Tensor = F.relu(x)
        if self.reduce is not None:
            y = F.relu(self.reduce_norm(self.reduce(y)))  # (B, block, H, W)
        y = F.relu(self.spread_norm(self.spread(y)))  # (B, block, H, W)
        y = self.expand_norm(self.expand(self.dropout(y)))  # (B, stream, H, W)
        return x + y


class MaskedResidualNetwork(nn.Module):
    """Network of PixelCNN (table 1): a mask-A convolution, residual blocks, 1x1 convolutions, logits.

    Args:
        in_channels: Input features per site.
        out_channels: Logits per site, grouped by colour.
        num_groups: Colour groups; 1 where a site is one symbol.
        num_blocks: Residual blocks.
        stream_channels: Width of the residual stream, 2h in the paper.
        block_channels: Width inside a block, h in the paper.
        input_kernel: Side of the first convolution.
        block_kernel: Side of the blocks' spatial convolutions.
        reduces: True if blocks begin with a 1x1 convolution to `block_channels`.
        head_channels: Widths of the 1x1 convolutions before the logits.
        normalization: After every convolution but the head's; None for no normalisation.
        dropout: In the blocks, in training.
        position_grid: Height and width of a learned bias per position, added to the stream before the blocks and
            to the logits; None for no bias.
    """

    def __init__(
        self,
        *,
        in_channels: int,
        out_channels: int,
        num_groups: int,
        num_blocks: int,
        stream_channels: int,
        block_channels: int,
        input_kernel: int,
        block_kernel: int,
        reduces: bool,
        head_channels: Sequence[int],
        normalization: Normalization | None,
        dropout: float,
        position_grid: tuple[int, int] | None,
    ) -> None:
        super().__init__()
        require_count("model.num_blocks", num_blocks, 0)
        require_between("model.dropout", dropout, 0.0, 0.99)
        require_kernel("model.input_kernel", input_kernel)
        require_kernel("model.block_kernel", block_kernel)
        self.input = MaskedConv2d(in_channels, stream_channels, input_kernel, num_groups=num_groups, mask_type="A")
        self.input_norm = (
            nn.Identity() if normalization is None else normalization(stream_channels, num_groups=num_groups)
        )
        self.blocks = nn.ModuleList(
            ResidualBlock(
                stream_channels=stream_channels,
                block_channels=block_channels,
                kernel_size=block_kernel,
                num_groups=num_groups,
                reduces=reduces,
                normalization=normalization,
                dropout=dropout,
            )
            for _ in range(num_blocks)
        )
        widths = [stream_channels, *head_channels, out_channels]
        self.head = nn.ModuleList(
            MaskedConv2d(before, after, 1, num_groups=num_groups, mask_type="B") for before, after in pairwise(widths)
        )
        self.stream_position: nn.Parameter | None = None
        self.logit_position = logit_bias(out_channels, position_grid)
        if position_grid is not None:
            self.stream_position = nn.Parameter(torch.zeros(stream_channels, *position_grid))

    def forward(self, x: Float[Tensor, "B C_in H W"]) -> Float[Tensor, "B C_out H W"]:
        x = self.input_norm(self.input(x))
        # Convolutions on the CPU and tensor cores are faster on channels-last memory, and keep it.
        x = add_positions(x.contiguous(memory_format=torch.channels_last), self.stream_position)
        for block in self.blocks:
            x = block(x)
        for convolution in self.head:
            x = convolution(F.relu(x))
        return add_positions(at_least_float32(x), biases_of(self.logit_position))
