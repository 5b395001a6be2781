"""Deep convolutional GAN (Radford, Metz, Chintala 2015, arXiv:1511.06434), for any image size divisible by 4.

Differs from the paper:
- the number of halvings follows the image: down to a side of at most 4 or an odd one (28 -> 7, 64 -> 4); channels
  double with each as in the paper, up to its 8 times, and stay there in images of more than 64 pixels a side;
- the discriminator's normalisation can be left out, as gradient penalties need;
- kernels are 4x4 and normalisations have a gain for each channel, at first 1; the authors' program has 5x5, gains from
  N(1, 0.02), one for each unit of the projection, and a penalty of 1e-5 on the weights;
- the discriminator's last, linear layer starts Xavier-uniform, as in every GAN here.

Dimensions: B batch, C channels, H height, W width, I inputs of the generator, F features, K conditions.
"""

from itertools import pairwise

import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

from genlab.models.gan.networks import (
    DiscriminatorNetwork,
    Flatten,
    GeneratorNetwork,
    Normalization,
    as_maps,
    flattened,
    initialize_normal,
    lay_out_for_convolutions,
    normalized,
    num_halvings,
    require_divisible_by_four,
    with_planes,
)
from genlab.models.ranges import require_between, require_count
from genlab.nn.transposed import ImageConvTranspose2d
from genlab.types import ImageSpec

# Standard deviation of all initial weights (section 4).
_WEIGHT_STD = 0.02
# One pixel more on each side, stride 2: each layer exactly halves or doubles.
_KERNEL, _STRIDE, _PADDING = 4, 2, 1
_MOST_WIDENING = 8  # figure 1: 128 channels at the largest map, 1,024 at the smallest


def _channels_of_maps(channels: int, num_maps: int) -> list[int]:
    """Return the channels of each map, the largest map first."""
    return [channels * min(2**index, _MOST_WIDENING) for index in range(num_maps)]


class DCGANGenerator(GeneratorNetwork):
    """Generator with a projection to a small map, then transposed convolutions that double its sides; ReLU.

    Args:
        spec: The images.
        num_inputs: I.
        channels: Of the largest hidden map; each smaller one has twice as many, up to 8 times.
        normalization: Normalisation of every layer but the last; None for no normalisation.

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
    ) -> None:
        super().__init__()
        require_divisible_by_four(spec)
        require_count("model.generator.channels", channels)
        halvings = num_halvings(spec)
        widths = _channels_of_maps(channels, halvings)[::-1]
        self.shape = (widths[0], spec.height >> halvings, spec.width >> halvings)
        has_bias = normalization is None
        self.project = nn.Linear(num_inputs, widths[0] * self.shape[1] * self.shape[2], bias=has_bias)
        self.project_norm = normalized(normalization, widths[0])
        hidden: list[nn.Module] = []
        for before, after in pairwise(widths):
            hidden += [
                nn.ConvTranspose2d(before, after, _KERNEL, _STRIDE, _PADDING, bias=has_bias),
                normalized(normalization, after),
                nn.ReLU(),
            ]
        to_image = ImageConvTranspose2d(widths[-1], spec.channels, _KERNEL, _STRIDE, _PADDING)
        self.layers = nn.Sequential(*hidden, to_image)
        initialize_normal(self, std=_WEIGHT_STD)
        lay_out_for_convolutions(self)

    def forward(self, inputs: Float[Tensor, "B I"]) -> Float[Tensor, "B C H W"]:
        x = as_maps(self.project(inputs), self.shape)
        x = F.relu(self.project_norm(x))
        images: Tensor = self.layers(x)
        return images


class DCGANDiscriminator(DiscriminatorNetwork):
    """Discriminator of strided convolutions with leaky ReLUs; no pooling, optionally a fully connected layer.

    Args:
        spec: The images.
        num_conditions: K, joined to the image as constant channels.
        channels: Of the first map; each smaller one has twice as many, up to 8 times.
        num_hidden: Units of a fully connected layer behind the maps, 1024 in InfoGAN (arXiv:1606.03657, appendix C.1);
            None leaves it out.
        normalization: Normalisation of every layer but the first; None for no normalisation.
        leak: Slope of the leaky ReLUs below zero, in [0, 1).

    Raises:
        ValueError: An argument is out of range, or the image size is not divisible by 4.
    """

    def __init__(
        self,
        *,
        spec: ImageSpec,
        num_conditions: int,
        channels: int,
        num_hidden: int | None,
        normalization: Normalization | None,
        leak: float,
    ) -> None:
        super().__init__()
        require_divisible_by_four(spec)
        require_count("model.discriminator.channels", channels)
        require_between("model.discriminator.leak", leak, 0.0, 0.99)
        halvings = num_halvings(spec)
        widths = [spec.channels + num_conditions, *_channels_of_maps(channels, halvings)]
        hidden: list[nn.Module] = []
        for index, (before, after) in enumerate(pairwise(widths)):
            # The first layer stays unnormalised (section 3): it would otherwise lose the images' contrast.
            normalization_here = normalization if index else None
            has_bias = normalization_here is None
            hidden.append(nn.Conv2d(before, after, _KERNEL, _STRIDE, _PADDING, bias=has_bias))
            if normalization_here is not None:
                hidden.append(normalization_here(after))
            hidden.append(nn.LeakyReLU(leak))
        self.num_features = widths[-1] * (spec.height >> halvings) * (spec.width >> halvings)
        if num_hidden is not None:
            require_count("model.discriminator.num_hidden", num_hidden)
            hidden += [Flatten(), nn.Linear(self.num_features, num_hidden, bias=normalization is None)]
            if normalization is not None:  # of one value per unit and image
                hidden += [nn.Unflatten(1, (num_hidden, 1, 1)), normalization(num_hidden)]
            hidden.append(nn.LeakyReLU(leak))
            self.num_features = num_hidden
        self.layers = nn.Sequential(*hidden)
        initialize_normal(self, std=_WEIGHT_STD)
        lay_out_for_convolutions(self)

    def forward(self, images: Float[Tensor, "B C H W"], conditions: Float[Tensor, "B K"]) -> Float[Tensor, "B F"]:
        return flattened(self.layers(with_planes(images, conditions)))
