"""Residual networks of WGAN-GP (Gulrajani et al. 2017, arXiv:1704.00028, appendix F) and SNGAN (Miyato et al. 2018,
arXiv:1802.05957, appendix B.4), for any image size divisible by 4.

The two papers' networks for CIFAR-10 differ in the width of the generator (128 and 256 channels) and in how the
discriminator joins the positions of its last map (mean and sum).

Differs from the papers:
- the number of blocks follows the image: the generator's map begins, and the discriminator's ends, as at 32x32 (4x4
  and 8x8), or at a side that is odd (28 -> 7); all blocks have the same width;
- the discriminator's outputs have a bias, which SNGAN's program leaves out.

Dimensions: B batch, C channels, H height, W width, I inputs of the generator, F features, K conditions or classes,
M channels of a block.
"""

import math
from collections.abc import Callable, Sequence
from functools import partial

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import init

from genlab.models.gan.networks import (
    ConditionalBatchNorm2d,
    DiscriminatorNetwork,
    GeneratorNetwork,
    Normalization,
    as_maps,
    initialize_xavier,
    lay_out_for_convolutions,
    normalized,
    num_halvings,
    require_divisible_by_four,
    with_planes,
)
from genlab.models.ranges import require_count
from genlab.nn.self_attention import SelfAttention
from genlab.types import ImageSpec

# The discriminator ends at maps of 8x8 for 32x32, the generator begins at 4x4.
_SIDE_OF_LAST_MAP = 8


class GeneratorBlock(nn.Module):
    """Block that doubles the sides of a map: up(x) through a 1x1 convolution, plus two 3x3 ones of normalised ReLUs.

    Args:
        channels: M.
        normalization: Of both convolutions' inputs.
    """

    def __init__(self, channels: int, *, normalization: Callable[[int], nn.Module]) -> None:
        super().__init__()
        self.first_norm = normalization(channels)
        self.first = nn.Conv2d(channels, channels, 3, padding=1)
        self.second_norm = normalization(channels)
        self.second = nn.Conv2d(channels, channels, 3, padding=1)
        self.shortcut = nn.Conv2d(channels, channels, 1)

    def forward(self, x: Float[Tensor, "B M H W"], classes: Float[Tensor, "B K"]) -> Float[Tensor, "B M height width"]:
        y = F.relu(_normalize(self.first_norm, x, classes))
        y = self.first(_doubled(y))
        y = self.second(F.relu(_normalize(self.second_norm, y, classes)))
        # A 1x1 convolution of equal pixels: a quarter of the work of the papers' order, the same numbers.
        sum_of_paths: Tensor = _doubled(self.shortcut(x)) + y
        return sum_of_paths


class DiscriminatorBlock(nn.Module):
    """Two 3x3 convolutions of ReLUs beside a 1x1 convolution, or the map itself, and a mean over 2x2 pixels.

    Args:
        in_channels: Of the map that comes in.
        channels: M.
        halves: True if the sides are halved; otherwise `in_channels` must be M.
        is_first: True if the map is an image, whose values pass neither a normalisation nor a ReLU.
        normalization: Of the convolutions' inputs; None for no normalisation.
    """

    def __init__(
        self, in_channels: int, channels: int, *, halves: bool, is_first: bool, normalization: Normalization | None
    ) -> None:
        super().__init__()
        self.is_first = is_first
        if is_first:
            normalization = None
        self.first_norm = normalized(normalization, in_channels)
        self.first = nn.Conv2d(in_channels, channels, 3, padding=1)
        self.second_norm = normalized(normalization, channels)
        self.second = nn.Conv2d(channels, channels, 3, padding=1)
        self.pool = nn.AvgPool2d(2) if halves else nn.Identity()
        self.shortcut = nn.Conv2d(in_channels, channels, 1) if halves else nn.Identity()

    def forward(self, x: Float[Tensor, "B C H W"]) -> Float[Tensor, "B M height width"]:
        y = x if self.is_first else F.relu(self.first_norm(x))
        y = self.second(F.relu(self.second_norm(self.first(y))))
        # A mean and a 1x1 convolution may change places.
        sum_of_paths: Tensor = self.shortcut(self.pool(x)) + self.pool(y)
        return sum_of_paths


class ResNetGenerator(GeneratorNetwork):
    """A projection to a small map, then residual blocks that double it; normalisation, ReLU, 3x3 to the colours.

    Args:
        spec: The images; the last ``num_classes`` inputs are the class, one-hot.
        num_inputs: I.
        channels: Of every map.
        normalization: Before each ReLU; None for no normalisation.
        class_conditional: True if the classes choose gains and shifts of the batch normalisation in the blocks
            (arXiv:1802.05637), and are no inputs of the projection.
        attention_side: Smaller side of the map behind which self-attention stands; None leaves it out.

    Raises:
        ValueError: An argument is out of range, or the image size is not divisible by 4.
    """

    def __init__(
        self,
        *,
        spec: ImageSpec,
        num_inputs: int,
        channels: int,
        normalization: Normalization | None,
        class_conditional: bool,
        attention_side: int | None,
    ) -> None:
        super().__init__()
        require_divisible_by_four(spec)
        require_count("model.generator.channels", channels, 2)
        if class_conditional and spec.num_classes == 0:
            raise ValueError(
                "model.generator.class_conditional must be false for a generator without classes, got true: set it to "
                "false, or model/conditioning to class_projection, auxiliary_classifier or class_labels"
            )
        halvings = num_halvings(spec)
        self.num_classes = spec.num_classes if class_conditional else 0
        self.shape = (channels, spec.height >> halvings, spec.width >> halvings)
        self.project = nn.Linear(num_inputs - self.num_classes, math.prod(self.shape))
        in_block = (
            partial(ConditionalBatchNorm2d, num_classes=self.num_classes)
            if class_conditional
            else partial(normalized, normalization)
        )
        self.blocks = nn.ModuleList(GeneratorBlock(channels, normalization=in_block) for _ in range(halvings))
        sides = [min(spec.height, spec.width) >> halvings - 1 - index for index in range(halvings)]
        self.attention = _attention(channels, sides, attention_side, key="model.generator.attention_side")
        self.output_norm = normalized(normalization, channels)
        if class_conditional and not isinstance(self.output_norm, nn.BatchNorm2d):
            raise ValueError(
                "model.generator.class_conditional must be false without batch normalisation, got true: set it to "
                "false, or leave model.generator.normalization as it is in model/generator=resnet"
            )
        self.output = nn.Conv2d(channels, spec.channels, 3, padding=1)
        _initialize(self)

    def forward(self, inputs: Float[Tensor, "B I"]) -> Float[Tensor, "B C H W"]:
        noise, classes = torch.tensor_split(inputs, [inputs.shape[1] - self.num_classes], 1)
        x = as_maps(self.project(noise), self.shape)
        for block, attention in zip(self.blocks, self.attention, strict=True):
            x = attention(block(x, classes))
        images: Tensor = self.output(F.relu(self.output_norm(x)))
        return images


class ResNetDiscriminator(DiscriminatorNetwork):
    """Residual blocks, the first of which halve the map; ReLU, then the sum or the mean over the positions.

    Args:
        spec: The images.
        num_conditions: K, joined to the image as constant channels.
        channels: F, of every map.
        num_plain_blocks: Blocks that keep the size, behind those that halve it; 2 in the papers.
        sums_positions: True if the positions are summed, as in SNGAN; False for their mean, as in WGAN-GP.
        normalization: Before each ReLU but the last, and not in the first block; None for no normalisation.
        attention_side: Smaller side of the first map behind which self-attention stands; None leaves it out.

    Raises:
        ValueError: An argument is out of range, or the image size is not divisible by 4.
    """

    def __init__(
        self,
        *,
        spec: ImageSpec,
        num_conditions: int,
        channels: int,
        num_plain_blocks: int,
        sums_positions: bool,
        normalization: Normalization | None,
        attention_side: int | None,
    ) -> None:
        super().__init__()
        require_divisible_by_four(spec)
        require_count("model.discriminator.channels", channels, 2)
        require_count("model.discriminator.num_plain_blocks", num_plain_blocks, 0)
        halvings = num_halvings(spec, smallest=_SIDE_OF_LAST_MAP)
        self.sums_positions = sums_positions
        self.num_features = channels
        self.blocks = nn.ModuleList(
            DiscriminatorBlock(
                channels if index else spec.channels + num_conditions,
                channels,
                halves=index < halvings,
                is_first=index == 0,
                normalization=normalization,
            )
            for index in range(halvings + num_plain_blocks)
        )
        sides = [min(spec.height, spec.width) >> min(index + 1, halvings) for index in range(len(self.blocks))]
        self.attention = _attention(channels, sides, attention_side, key="model.discriminator.attention_side")
        _initialize(self)

    def forward(self, images: Float[Tensor, "B C H W"], conditions: Float[Tensor, "B K"]) -> Float[Tensor, "B F"]:
        x = with_planes(images, conditions)
        for block, attention in zip(self.blocks, self.attention, strict=True):
            x = attention(block(x))
        x = F.relu(x)
        return x.sum((2, 3)) if self.sums_positions else x.mean((2, 3))


def _attention(channels: int, sides: Sequence[int], attention_side: int | None, *, key: str) -> nn.ModuleList:
    """Return the layer behind each block: self-attention behind the first whose map has this side, or nothing."""
    if attention_side is not None and attention_side not in sides:
        known = ", ".join(map(str, sorted(set(sides))))
        raise ValueError(f"{key} must be null or the smaller side of a map: {known}, got {attention_side}")
    place = None if attention_side is None else sides.index(attention_side)
    return nn.ModuleList(SelfAttention(channels) if i == place else nn.Identity() for i in range(len(sides)))


def _normalize(norm: nn.Module, x: Float[Tensor, "B M H W"], classes: Float[Tensor, "B K"]) -> Float[Tensor, "B M H W"]:
    y: Tensor = norm(x, classes) if isinstance(norm, ConditionalBatchNorm2d) else norm(x)
    return y


def _doubled(x: Float[Tensor, "B M H W"]) -> Float[Tensor, "B M height width"]:
    """Return each pixel as 2x2 equal ones."""
    return F.interpolate(x, scale_factor=2.0, mode="nearest")


def _initialize(network: nn.Module) -> None:
    """Draw Xavier-uniform weights; the 3x3 convolutions of blocks have a gain of sqrt(2), as in SNGAN's program."""
    initialize_xavier(network)
    for block in network.modules():
        if isinstance(block, GeneratorBlock | DiscriminatorBlock):
            for layer in (block.first, block.second):
                init.xavier_uniform_(layer.weight, math.sqrt(2))
    lay_out_for_convolutions(network)
