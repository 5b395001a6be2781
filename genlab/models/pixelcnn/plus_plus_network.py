"""The network of PixelCNN++: two streams of gated residual blocks with down- and up-sampling.

Paper and departures: :mod:`genlab.models.pixelcnn.plus_plus`.

Dimensions: B batch, C channels, H height, W width, F filters, E = 2 F activated ones, S those of a skip input,
N outputs.
"""

from collections.abc import Sequence
from typing import Any

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from torch import Tensor, nn

from genlab.functional import at_least_float32
from genlab.nn.dropout import Dropout
from genlab.nn.shifted import WeightNormConv2d, WeightNormUpsample2d
from genlab.types import UNLABELLED

# Data-dependent initialisation leaves the residual branches small, so that the network starts near the identity.
RESIDUAL_SCALE = 0.1


class _ConcatELU(torch.autograd.Function):
    """ELU of x and of -x with one exponential, as one of the two is positive; its gradient needs none."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, dim: int) -> Tensor:
        negative = -x
        tail = torch.minimum(x, negative).exp_().sub_(1)  # exp(-|x|) - 1, at least the negative one of x and -x
        result = torch.cat((torch.maximum(x, tail), torch.maximum(negative, tail)), dim)
        ctx.save_for_backward(result)
        ctx.dim = dim
        return result

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, None]:
        (result,) = ctx.saved_tensors
        of_x, of_negative = torch.ops.aten.elu_backward(gradients[0], 1.0, 1.0, 1.0, True, result).chunk(2, ctx.dim)
        return of_x - of_negative, None


def concat_elu(x: Tensor, dim: int = 1) -> Tensor:
    """Return ELU of x and of -x, which doubles the channels."""
    result: Tensor = _ConcatELU.apply(x, dim)
    return result


def down_shifted(in_filters: int, out_filters: int, *, stride: int = 1, initial_scale: float = 1.0) -> WeightNormConv2d:
    """Return a 2x3 convolution over the row above and the pixel's own, with a column on each side."""
    return WeightNormConv2d(in_filters, out_filters, (2, 3), padding=(1, 1), stride=stride, initial_scale=initial_scale)


def down_right_shifted(
    in_filters: int, out_filters: int, *, stride: int = 1, initial_scale: float = 1.0
) -> WeightNormConv2d:
    """Return a 2x2 convolution over the row above and its own, and the column to the left and its own."""
    return WeightNormConv2d(in_filters, out_filters, (2, 2), padding=(1, 0), stride=stride, initial_scale=initial_scale)


class GatedResidualBlock(nn.Module):
    """Residual block x + a * sigmoid(b), with (a, b) from two convolutions and a skip connection (section 2.4).

    Args:
        filters: F.
        is_vertical: True for the stream u (:func:`down_shifted`), False for ul (:func:`down_right_shifted`).
        skip_filters: Channels of the skip input; 0 without a skip input.
        num_classes: Rows of the class table; 0 without classes.
        dropout: Between the convolutions, in training.
    """

    def __init__(self, filters: int, *, is_vertical: bool, skip_filters: int, num_classes: int, dropout: float) -> None:
        super().__init__()
        shape = down_shifted if is_vertical else down_right_shifted
        self.first = shape(2 * filters, filters)
        self.skip = WeightNormConv2d(2 * skip_filters, filters) if skip_filters else None
        self.second = shape(2 * filters, 2 * filters, initial_scale=RESIDUAL_SCALE)
        self.classes = nn.Embedding(num_classes + 1, 2 * filters) if num_classes else None
        if self.classes is not None:
            nn.init.zeros_(self.classes.weight)
        self.dropout = Dropout(dropout)

    def class_bias(self, labels: Int[Tensor, " B"]) -> Float[Tensor, "B C_out"] | None:
        """Return the class's bias of (a, b); UNLABELLED is the last row."""
        if self.classes is None:
            return None
        bias: Tensor = self.classes(torch.where(labels == UNLABELLED, self.classes.num_embeddings - 1, labels))
        return bias

    def forward(
        self,
        x: Float[Tensor, "B F H W"],
        active: Float[Tensor, "B E H W"],
        skip: Float[Tensor, "B S H W"] | None,
        labels: Int[Tensor, " B"],
    ) -> Float[Tensor, "B F H W"]:
        """Return the block's output.

        Args:
            x: The input.
            active: ``concat_elu(x)``, which the caller also hands to other blocks.
            skip: ``concat_elu`` of the skip input.
            labels: Classes, or UNLABELLED.
        """
        y = self.first(active)
        if self.skip is not None and skip is not None:
            y = y + self.skip(skip)
        y = self.second(self.dropout(concat_elu(y)))  # (B, 2F, H, W)
        bias = self.class_bias(labels)
        a, b = torch.chunk(y if bias is None else y + bias[:, :, None, None], 2, 1)
        return x + a * b.sigmoid()


class TwoStreamNetwork(nn.Module):
    """Network of two streams (figure 2): u depends on all rows above, ul also on the pixels to the left.

    Args:
        in_channels: Of the images.
        out_channels: Mixture parameters per pixel.
        filters: F.
        blocks_down: Blocks of each stream at each scale, from full resolution down.
        num_classes: Rows of the class tables; 0 without classes.
        dropout: In the blocks, in training.
    """

    def __init__(
        self,
        *,
        in_channels: int,
        out_channels: int,
        filters: int,
        blocks_down: Sequence[int],
        num_classes: int,
        dropout: float,
    ) -> None:
        super().__init__()
        in_channels += 1  # a channel of ones, by which the padding can be distinguished from the image

        def blocks(number: int, *, is_vertical: bool, skip_filters: int) -> nn.ModuleList:
            return nn.ModuleList(
                GatedResidualBlock(
                    filters,
                    is_vertical=is_vertical,
                    skip_filters=skip_filters,
                    num_classes=num_classes,
                    dropout=dropout,
                )
                for _ in range(number)
            )

        self.u_input = WeightNormConv2d(in_channels, filters, (2, 3), padding=(1, 1))
        self.ul_input_above = WeightNormConv2d(in_channels, filters, (1, 3), padding=(1, 1))
        self.ul_input_left = WeightNormConv2d(in_channels, filters, (2, 1))
        lower = range(len(blocks_down) - 1)
        # Every block on the way up takes one output of the way down: the blocks' own and that of the layer that led
        # to the scale. The way up begins with the very last output, hence one fewer at the lowest scale.
        blocks_up = [blocks_down[-1], *(number + 1 for number in reversed(blocks_down[:-1]))]
        self.u_down = nn.ModuleList(blocks(n, is_vertical=True, skip_filters=0) for n in blocks_down)
        self.ul_down = nn.ModuleList(blocks(n, is_vertical=False, skip_filters=filters) for n in blocks_down)
        self.u_downsample = nn.ModuleList(down_shifted(filters, filters, stride=2) for _ in lower)
        self.ul_downsample = nn.ModuleList(down_right_shifted(filters, filters, stride=2) for _ in lower)
        self.u_up = nn.ModuleList(blocks(n, is_vertical=True, skip_filters=filters) for n in blocks_up)
        self.ul_up = nn.ModuleList(blocks(n, is_vertical=False, skip_filters=2 * filters) for n in blocks_up)
        self.u_upsample = nn.ModuleList(WeightNormUpsample2d(filters, filters, 3) for _ in lower)
        self.ul_upsample = nn.ModuleList(WeightNormUpsample2d(filters, filters, 2) for _ in lower)
        self.output = WeightNormConv2d(filters, out_channels, initial_scale=RESIDUAL_SCALE)

    def forward(self, x: Float[Tensor, "B C H W"], labels: Int[Tensor, " B"]) -> Float[Tensor, "B N H W"]:
        x = torch.cat((x, torch.ones_like(x[:, :1])), 1)
        above = F.pad(x, (0, 0, 1, -1))  # row i holds row i - 1
        left = F.pad(x, (1, -1, 0, 0))  # column j holds column j - 1
        u = self.u_input(above).contiguous(memory_format=torch.channels_last)
        ul = self.ul_input_above(above) + self.ul_input_left(left)
        ul = ul.contiguous(memory_format=torch.channels_last)
        # Every output is activated once and used up to three times: by the next block and as skip inputs.
        u_active, ul_active = concat_elu(u), concat_elu(ul)
        skips = [(u_active, ul_active)]
        for scale, (u_blocks, ul_blocks) in enumerate(zip(self.u_down, self.ul_down, strict=True)):
            if scale:
                u, ul = self.u_downsample[scale - 1](u), self.ul_downsample[scale - 1](ul)
                u_active, ul_active = concat_elu(u), concat_elu(ul)
                skips.append((u_active, ul_active))
            for u_block, ul_block in zip(modules_of(u_blocks), modules_of(ul_blocks), strict=True):
                u = u_block(u, u_active, None, labels)
                u_active = concat_elu(u)
                ul = ul_block(ul, ul_active, u_active, labels)
                ul_active = concat_elu(ul)
                skips.append((u_active, ul_active))
        # The lowest scale's last output is where the way up begins.
        skips.pop()
        for step, (u_blocks, ul_blocks) in enumerate(zip(self.u_up, self.ul_up, strict=True)):
            if step:
                u, ul = self.u_upsample[step - 1](u), self.ul_upsample[step - 1](ul)
                u_active, ul_active = concat_elu(u), concat_elu(ul)
            for u_block, ul_block in zip(modules_of(u_blocks), modules_of(ul_blocks), strict=True):
                u_skip, ul_skip = skips.pop()
                u = u_block(u, u_active, u_skip, labels)
                u_active = concat_elu(u)
                ul = ul_block(ul, ul_active, _join(u_active, ul_skip), labels)
                ul_active = concat_elu(ul)
        assert not skips
        raw: Tensor = self.output(ul_active.chunk(2, 1)[0])  # of ELU(ul)
        return at_least_float32(raw)


def _join(first: Float[Tensor, "B E H W"], second: Float[Tensor, "B E H W"]) -> Float[Tensor, "B S H W"]:
    """Return ``concat_elu`` of two maps together from that of each."""
    halves = zip(first.chunk(2, 1), second.chunk(2, 1), strict=True)  # of the maps, then of their negatives
    return torch.cat([half for pair in halves for half in pair], 1)


def modules_of(blocks: nn.Module) -> list[nn.Module]:
    """Return the modules of a list within a list, which type checks take for any module."""
    return list(blocks.children())
