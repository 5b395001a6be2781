"""Residual networks of R3GAN (Huang et al. 2024, arXiv:2501.05441), for any image size divisible by 4.

Without a normalisation, the start keeps the variance: the last convolution of each block starts at zero, and the others
are scaled down by the number of blocks (Zhang et al. 2019, arXiv:1901.09321).

Differs from the authors' program:
- the number of stages follows the image: maps halve down to a side of at most 4 or an odd one (28 -> 7); all maps have
  the same width, as theirs for CIFAR-10;
- the discriminator's output has a bias, which pairs of images cancel, and starts Xavier-uniform, as in every GAN here;
- the output function of the generator is `model/output`, where theirs has none.

Dimensions: B batch, C channels, H height, W width, I inputs of the generator, F features, K conditions, M channels of a
map.
"""

import math

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import init

from genlab.models.gan.networks import (
    DiscriminatorNetwork,
    GeneratorNetwork,
    lay_out_for_convolutions,
    num_halvings,
    require_divisible_by_four,
    with_planes,
)
from genlab.models.ranges import require_count
from genlab.types import ImageSpec

_LEAK = 0.2
_GAIN = math.sqrt(2 / (1 + _LEAK**2))  # keeps the variance through a leaky ReLU (He et al. 2015, arXiv:1502.01852)
_EXPANSION = 2  # channels within a block for each channel of the map


class R3GANBlock(nn.Module):
    """Three convolutions beside the map itself: 1x1 to twice the channels, 3x3 in groups, 1x1 back; leaky ReLU.

    Args:
        channels: M.
        group_size: Channels of a group of the 3x3 convolution; divides 2 M.
        num_blocks: Blocks of the network, which scale the initial weights.
    """

    def __init__(self, channels: int, *, group_size: int, num_blocks: int) -> None:
        super().__init__()
        wide = _EXPANSION * channels
        self.widen = nn.Conv2d(channels, wide, 1)
        self.mix = nn.Conv2d(wide, wide, 3, padding=1, groups=wide // group_size)
        self.narrow = nn.Conv2d(wide, channels, 1, bias=False)
        for layer in (self.widen, self.mix):
            _initialize(layer, gain=_GAIN * num_blocks**-0.25)  # L^(-1 / (2 m - 2)), m = 3 layers (Zhang et al.)
        init.zeros_(self.narrow.weight)

    def forward(self, x: Float[Tensor, "B M H W"]) -> Float[Tensor, "B M H W"]:
        y = self.mix(F.leaky_relu(self.widen(x), _LEAK))
        sum_of_paths: Tensor = x + self.narrow(F.leaky_relu(y, _LEAK))
        return sum_of_paths


class Resampling(nn.Module):
    """Doubling or halving of the sides of a map, by linear interpolation between pixels, zeros beyond the border.

    Args:
        doubles: True to double the sides, False to halve them.
    """

    kernel: Tensor

    def __init__(self, *, doubles: bool) -> None:
        super().__init__()
        self.doubles = doubles
        row = torch.tensor([1.0, 3.0, 3.0, 1.0]) / (4 if doubles else 8)
        self.register_buffer("kernel", torch.outer(row, row)[None, None], persistent=False)

    def forward(self, x: Float[Tensor, "B M H W"]) -> Float[Tensor, "B M height width"]:
        channels = x.shape[1]
        kernel = self.kernel.to(x.dtype).expand(channels, 1, 4, 4)
        resample = F.conv_transpose2d if self.doubles else F.conv2d
        return resample(x, kernel, stride=2, padding=1, groups=channels)


class R3GANGenerator(GeneratorNetwork):
    """A learned small map whose channels the inputs scale, then blocks, between which the sides double; 1x1 to colours.

    Args:
        spec: The images.
        num_inputs: I.
        channels: Of every map.
        group_size: Channels of a group of the 3x3 convolutions; divides twice the channels.
        blocks_per_stage: Blocks at each size of the map.

    Raises:
        ValueError: An argument is out of range, or the image size is not divisible by 4.
    """

    def __init__(
        self, *, spec: ImageSpec, num_inputs: int, channels: int, group_size: int, blocks_per_stage: int
    ) -> None:
        super().__init__()
        halvings = _num_halvings(spec, channels, group_size, blocks_per_stage, network="generator")
        self.basis = nn.Parameter(torch.empty(channels, spec.height >> halvings, spec.width >> halvings))
        self.scale = nn.Linear(num_inputs, channels, bias=False)
        self.stages = nn.Sequential(
            _blocks(channels, group_size, blocks_per_stage, halvings),
            *(
                nn.Sequential(Resampling(doubles=True), _blocks(channels, group_size, blocks_per_stage, halvings))
                for _ in range(halvings)
            ),
        )
        self.output = nn.Conv2d(channels, spec.channels, 1, bias=False)
        init.normal_(self.basis)
        for layer in (self.scale, self.output):
            _initialize(layer)
        lay_out_for_convolutions(self)

    def forward(self, inputs: Float[Tensor, "B I"]) -> Float[Tensor, "B C H W"]:
        x = self.basis * self.scale(inputs)[:, :, None, None]
        images: Tensor = self.output(self.stages(x.contiguous(memory_format=torch.channels_last)))
        return images


class R3GANDiscriminator(DiscriminatorNetwork):
    """1x1 from the colours, then blocks, between which the sides halve; at the end a learned weight for each position.

    Args:
        spec: The images.
        num_conditions: K, joined to the image as constant channels.
        channels: F, of every map.
        group_size: Channels of a group of the 3x3 convolutions; divides twice the channels.
        blocks_per_stage: Blocks at each size of the map.

    Raises:
        ValueError: An argument is out of range, or the image size is not divisible by 4.
    """

    has_zero_weights = True

    def __init__(
        self, *, spec: ImageSpec, num_conditions: int, channels: int, group_size: int, blocks_per_stage: int
    ) -> None:
        super().__init__()
        halvings = _num_halvings(spec, channels, group_size, blocks_per_stage, network="discriminator")
        self.num_features = channels
        self.extract = nn.Conv2d(spec.channels + num_conditions, channels, 1, bias=False)
        self.stages = nn.Sequential(
            *(
                nn.Sequential(_blocks(channels, group_size, blocks_per_stage, halvings), Resampling(doubles=False))
                for _ in range(halvings)
            ),
            _blocks(channels, group_size, blocks_per_stage, halvings),
        )
        last_map = (spec.height >> halvings, spec.width >> halvings)
        self.basis = nn.Conv2d(channels, channels, last_map, groups=channels, bias=False)
        for layer in (self.extract, self.basis):
            _initialize(layer)
        lay_out_for_convolutions(self)

    def forward(self, images: Float[Tensor, "B C H W"], conditions: Float[Tensor, "B K"]) -> Float[Tensor, "B F"]:
        features: Tensor = self.basis(self.stages(self.extract(with_planes(images, conditions))))
        return features.flatten(1)


def _num_halvings(spec: ImageSpec, channels: int, group_size: int, blocks_per_stage: int, *, network: str) -> int:
    """Return the number of halvings for valid arguments."""
    require_divisible_by_four(spec)
    require_count(f"model.{network}.channels", channels)
    require_count(f"model.{network}.group_size", group_size)
    require_count(f"model.{network}.blocks_per_stage", blocks_per_stage)
    if _EXPANSION * channels % group_size:
        raise ValueError(
            f"model.{network}.group_size must divide twice the channels, {_EXPANSION * channels}, got {group_size}"
        )
    return num_halvings(spec)


def _blocks(channels: int, group_size: int, blocks_per_stage: int, halvings: int) -> nn.Sequential:
    """Return the blocks at one size of the map."""
    num_blocks = blocks_per_stage * (halvings + 1)
    return nn.Sequential(
        *(R3GANBlock(channels, group_size=group_size, num_blocks=num_blocks) for _ in range(blocks_per_stage))
    )


def _initialize(layer: nn.Conv2d | nn.Linear, *, gain: float = 1.0) -> None:
    """Draw weights of mean zero whose variance is the squared gain over the inputs of an output; zero biases."""
    init.normal_(layer.weight, 0.0, gain / math.sqrt(layer.weight[0].numel()))
    if layer.bias is not None:
        init.zeros_(layer.bias)
