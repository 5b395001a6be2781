"""The features of a convolutional network with fixed random weights (Naeem et al. 2020, arXiv:2002.09797, section 4.1).

They know no classes and need no training, no download and no labels: measures for images that no trained network fits.
The paper draws the weights of a VGG-16 with 64 outputs; this network is far smaller, so that a look takes a fraction of
a second on one core. Values of two networks do not compare: the seed is part of the protocol and is fixed.

Dimensions: B batch, C channels, H height, W width, F = 64 features.
"""

import hashlib
import math

import torch
from jaxtyping import Float
from torch import Generator, Tensor, nn

from genlab.metrics.features import Description
from genlab.types import ImageSpec

_SEED = 0
_NUM_FEATURES = 64
_SIDE = 4
_WIDTHS = (32, 64, 128)


class RandomNetworkFeatures:
    """A random network as an extractor of features.

    Args:
        spec: Of the images; the weights depend on the number of channels and on the size.
        device: Device of the network.
    """

    name = "random_network"

    def __init__(self, spec: ImageSpec, *, device: torch.device) -> None:
        layers: list[nn.Module] = []
        channels, side = spec.channels, min(spec.height, spec.width)
        while side > _SIDE:
            width = _WIDTHS[min(len(layers) // 2, len(_WIDTHS) - 1)]
            layers += [nn.Conv2d(channels, width, 3, stride=2, padding=1, bias=False), nn.ReLU()]
            channels, side = width, -(-side // 2)
        pooled = nn.AdaptiveAvgPool2d(_SIDE)
        head = nn.Linear(channels * _SIDE**2, _NUM_FEATURES, bias=False)
        network = nn.Sequential(*layers, pooled, nn.Flatten(), head)
        generator, digest = Generator().manual_seed(_SEED), hashlib.sha256()
        for weight in network.parameters():  # the variance of the images is kept from layer to layer (He et al. 2015)
            deviation = math.sqrt(2 / weight[0].numel())
            weight.data.copy_(deviation * torch.randn(weight.shape, generator=generator))
            digest.update(weight.detach().numpy().tobytes())
        self.identity = f"{self.name} {digest.hexdigest()[:8]}"
        self.network = network.to(device).eval().requires_grad_(False)

    def describe(self, images: Float[Tensor, "B C H W"]) -> Description:
        """Return the features of images in [0, 1], with a single class for all."""
        features: Tensor = self.network(2 * images - 1)
        return Description(features, features.new_zeros(len(features), 1))
