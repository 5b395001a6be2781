"""Convolutions that respect the order in which the sub-pixels of an image are generated.

Order: rows from the top, pixels from the left, channels within a pixel (R, then G, then B). The features of a
layer are split into one contiguous group per channel; group g may depend on every earlier pixel and, at its own
pixel, on groups before g (mask A, the first layer) or up to g (mask B, every later layer).

Paper: Pixel Recurrent Neural Networks, arXiv:1601.06759, section 3.4 and figure 2.

Dimensions: B batch, C channels, H height, W width, G groups, K kernel size.
"""

from itertools import pairwise
from typing import Literal, get_args

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float
from torch import Tensor, nn

MaskType = Literal["A", "B"]


def group_bounds(num_channels: int, num_groups: int) -> tuple[int, ...]:
    """Return the bounds of the groups: group g is channels bounds[g] to bounds[g + 1], sizes differ by at most one.

    Raises:
        ValueError: There are fewer channels than groups, so that a group would be empty.
    """
    if num_channels < num_groups:
        raise ValueError(f"{num_channels} feature channels cannot be split into {num_groups} colour groups")
    return tuple(num_channels * g // num_groups for g in range(num_groups + 1))


def group_of_channel(num_channels: int, num_groups: int) -> Tensor:
    """Return the group of each channel, shape (num_channels,)."""
    bounds = group_bounds(num_channels, num_groups)
    sizes = torch.tensor([high - low for low, high in pairwise(bounds)])
    return torch.repeat_interleave(torch.arange(num_groups), sizes, output_size=num_channels)


def causal_mask(
    in_channels: int, out_channels: int, kernel_size: tuple[int, int], *, num_groups: int, mask_type: MaskType
) -> Bool[Tensor, "C_out C_in K_h K_w"]:
    """Return True for each usable weight: rows above, pixels to the left, earlier groups of the same pixel.

    Raises:
        ValueError: The type of the mask is neither A nor B.
    """
    _require_type(mask_type)
    height, width = kernel_size
    mask = torch.zeros(out_channels, in_channels, height, width, dtype=torch.bool)
    mask[:, :, : height // 2] = True
    mask[:, :, height // 2, : width // 2] = True
    seen = group_of_channel(in_channels, num_groups)
    seeing = group_of_channel(out_channels, num_groups)[:, None]
    mask[:, :, height // 2, width // 2] = seen < seeing if mask_type == "A" else seen <= seeing
    return mask


def _require_type(mask_type: str) -> None:
    if mask_type not in get_args(MaskType):
        raise ValueError(f"mask_type must be A or B, got {mask_type}")


class MaskedConv2d(nn.Module):
    """A convolution of odd kernel size whose output keeps the height and width of its input.

    The weight has the shape of the unmasked convolution, as in the papers' tables. Masked entries start at zero,
    never act, and get a gradient of zero, because the mask is part of the function rather than written into the
    weight. Kernel rows below the centre are always masked and are cut away before the convolution: same values,
    for 4/7 (7x7) or 2/3 (3x3) of the arithmetic.

    Raises:
        ValueError: A side of the kernel is even, the mask type is unknown, or there are fewer channels than groups.
    """

    mask: Tensor

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        kernel_size: int | tuple[int, int],
        *,
        num_groups: int,
        mask_type: MaskType,
    ) -> None:
        super().__init__()
        size = (kernel_size, kernel_size) if isinstance(kernel_size, int) else kernel_size
        if size[0] % 2 == 0 or size[1] % 2 == 0:
            raise ValueError(f"a masked kernel must have odd sides to have a centre, got {size[0]}x{size[1]}")
        mask = causal_mask(in_channels, out_channels, size, num_groups=num_groups, mask_type=mask_type)
        self.register_buffer("mask", mask, persistent=False)
        self.is_masked = size[1] > 1 or mask_type == "A" or num_groups > 1
        self.num_rows = size[0] // 2 + 1
        self.bounds_in = group_bounds(in_channels, num_groups)
        self.bounds_out = group_bounds(out_channels, num_groups)
        # The usual uniform initialisation, with the fan-in that the mask leaves to the last output channel.
        num_whole = size[0] // 2 * size[1] + size[1] // 2
        fan_in = in_channels * num_whole + (self.bounds_in[-2] if mask_type == "A" else in_channels)
        bound = max(fan_in, 1) ** -0.5
        self.weight = nn.Parameter(torch.empty(out_channels, in_channels, *size).uniform_(-bound, bound) * mask)
        self.bias = nn.Parameter(torch.empty(out_channels).uniform_(-bound, bound))

    def effective_weight(self) -> Float[Tensor, "C_out C_in rows K_w"]:
        """Return the effective weight: masked, and without the rows below the centre."""
        weight = self.weight[:, :, : self.num_rows]
        return weight * self.mask[:, :, : self.num_rows] if self.is_masked else weight

    def forward(self, x: Float[Tensor, "B C_in H W"]) -> Float[Tensor, "B C_out H W"]:
        if self.num_rows > 1:
            x = F.pad(x, (0, 0, self.num_rows - 1, 0))
        return F.conv2d(x, self.effective_weight(), self.bias, padding=(0, self.weight.shape[3] // 2))

    def extra_repr(self) -> str:
        return f"{tuple(self.weight.shape)}, groups={len(self.bounds_in) - 1}"


class RowsAboveConv2d(nn.Module):
    """A convolution over whole rows, the vertical stack of the gated PixelCNN (arXiv:1606.05328, section 2.2).

    Row i of the output sees rows up to i of the input, or up to i - 1 where `mask_type` is A; within these rows it
    sees `kernel_size` columns around its own, to the right as well. No weight is masked: only the rows that can be
    seen have weights.

    Raises:
        ValueError: The kernel is even or below 3, or the mask type is unknown.
    """

    def __init__(self, in_channels: int, out_channels: int, kernel_size: int, *, mask_type: MaskType) -> None:
        super().__init__()
        if kernel_size % 2 == 0 or kernel_size < 3:
            raise ValueError(f"the vertical kernel must be odd and at least 3, got {kernel_size}")
        _require_type(mask_type)
        num_rows = kernel_size // 2 + (mask_type == "B")
        self.shift = int(mask_type == "A")
        bound = (in_channels * num_rows * kernel_size) ** -0.5
        shape = (out_channels, in_channels, num_rows, kernel_size)
        self.weight = nn.Parameter(torch.empty(shape).uniform_(-bound, bound))
        self.bias = nn.Parameter(torch.empty(out_channels).uniform_(-bound, bound))

    def forward(self, x: Float[Tensor, "B C_in H W"]) -> Float[Tensor, "B C_out H W"]:
        num_rows, width = self.weight.shape[2:]
        # Shifted down by one row where the row itself must stay unseen; a negative pad cuts the last row off.
        x = F.pad(x, (0, 0, num_rows - 1 + self.shift, -self.shift))
        return F.conv2d(x, self.weight, self.bias, padding=(0, width // 2))


class BatchNorm(nn.BatchNorm2d):
    """Batch normalisation, as in many public PixelCNNs; exact only in evaluation mode.

    In training mode a pixel sees later pixels and other images through the batch's mean and variance, so the
    training loss is not a likelihood. In evaluation mode it is a fixed affine map per channel.
    """

    def __init__(self, num_channels: int, *, num_groups: int) -> None:
        del num_groups
        super().__init__(num_channels)


class PixelNorm(nn.Module):
    """Causal layer normalisation over the channels of each group at each pixel."""

    EPSILON = 1e-5

    def __init__(self, num_channels: int, *, num_groups: int) -> None:
        super().__init__()
        self.bounds = group_bounds(num_channels, num_groups)
        self.weight = nn.Parameter(torch.ones(num_channels))
        self.bias = nn.Parameter(torch.zeros(num_channels))

    def forward(self, x: Float[Tensor, "B C H W"]) -> Float[Tensor, "B C H W"]:
        sizes = [high - low for low, high in pairwise(self.bounds)]
        groups = torch.split(x.movedim(1, -1), sizes, -1)
        return torch.cat([self.normalize_group(group, g) for g, group in enumerate(groups)], -1).movedim(-1, 1)

    def normalize_group(self, x: Float[Tensor, "*batch C_g"], group: int) -> Float[Tensor, "*batch C_g"]:
        """Return the channels of one group, last dimension, normalised."""
        part = slice(self.bounds[group], self.bounds[group + 1])
        return F.layer_norm(x, x.shape[-1:], self.weight[part], self.bias[part], self.EPSILON)
