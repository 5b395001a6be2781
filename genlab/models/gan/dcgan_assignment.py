"""The convolutional GAN of the CS231n assignment, with the generator of InfoGAN's appendix C.1 (arXiv:1606.03657).

Differs from the assignment:
- batch normalisation after a linear layer is one-dimensional, and the second linear layer has its ReLU;
- the batch size is nowhere in the networks;
- images with a side below 16 are padded in the discriminator, so that its two 5x5 convolutions fit.

Dimensions: B batch, C channels, H height, W width, I inputs of the generator, F features, K conditions.
"""

from jaxtyping import Float
from torch import Tensor, nn

from genlab.models.gan.networks import (
    DiscriminatorNetwork,
    GeneratorNetwork,
    as_maps,
    flattened,
    initialize_normal,
    initialize_xavier,
    lay_out_for_convolutions,
    require_divisible_by_four,
    with_planes,
)
from genlab.models.ranges import require_between, require_count
from genlab.types import ImageSpec

# With a smaller side, two 5x5 convolutions without padding and two poolings leave nothing.
_SMALLEST_UNPADDED_SIDE = 16


class AssignmentGenerator(GeneratorNetwork):
    """Generator: FC 1024, FC 128 maps of a quarter of the side, two transposed 4x4 convolutions of stride 2.

    Args:
        spec: The images.
        num_inputs: I.
        channels: Of the last hidden map, 64 in the paper; the first has twice, the hidden layer 16 times as many.
        weight_std: Of all initial weights, 0.02 in the program of InfoGAN's authors; None starts Xavier-uniform, as in
            the assignment.

    Raises:
        ValueError: An argument is out of range, or the image size is not divisible by 4.
    """

    def __init__(self, *, spec: ImageSpec, num_inputs: int, channels: int, weight_std: float | None) -> None:
        super().__init__()
        require_divisible_by_four(spec)
        require_count("model.generator.channels", channels)
        self.shape = (2 * channels, spec.height // 4, spec.width // 4)
        num_hidden, num_small = 16 * channels, 2 * channels * self.shape[1] * self.shape[2]
        self.project = nn.Sequential(
            *(nn.Linear(num_inputs, num_hidden), nn.BatchNorm1d(num_hidden), nn.ReLU()),
            *(nn.Linear(num_hidden, num_small), nn.BatchNorm1d(num_small), nn.ReLU()),
        )
        self.layers = nn.Sequential(
            *(nn.ConvTranspose2d(2 * channels, channels, 4, 2, 1), nn.BatchNorm2d(channels), nn.ReLU()),
            nn.ConvTranspose2d(channels, spec.channels, 4, 2, 1),
        )
        if weight_std is None:
            initialize_xavier(self)
        else:
            require_between("model.generator.weight_std", weight_std, 1e-6, 1e3)
            initialize_normal(self, std=weight_std)
        lay_out_for_convolutions(self)

    def forward(self, inputs: Float[Tensor, "B I"]) -> Float[Tensor, "B C H W"]:
        images: Tensor = self.layers(as_maps(self.project(inputs), self.shape))
        return images


class AssignmentDiscriminator(DiscriminatorNetwork):
    """Discriminator: 32 and 64 5x5 convolutions with max-pooling, then FC 1024; leaky ReLUs.

    Args:
        spec: The images.
        num_conditions: K, joined to the image as constant channels.
        leak: Slope of the leaky ReLUs below zero, in [0, 1).

    Raises:
        ValueError: The leak is out of range, or the image size is not divisible by 4.
    """

    def __init__(self, *, spec: ImageSpec, num_conditions: int, leak: float) -> None:
        super().__init__()
        require_divisible_by_four(spec)
        require_between("model.discriminator.leak", leak, 0.0, 0.99)
        padding = 0 if min(spec.height, spec.width) >= _SMALLEST_UNPADDED_SIDE else 2
        self.layers = nn.Sequential(
            nn.Conv2d(spec.channels + num_conditions, 32, 5, padding=padding),
            *(nn.LeakyReLU(leak), nn.MaxPool2d(2)),
            nn.Conv2d(32, 64, 5, padding=padding),
            *(nn.LeakyReLU(leak), nn.MaxPool2d(2)),
        )
        lost = 4 - 2 * padding
        height, width = (((side - lost) // 2 - lost) // 2 for side in (spec.height, spec.width))
        self.num_features = 1024
        self.hidden = nn.Sequential(nn.Linear(64 * height * width, self.num_features), nn.LeakyReLU(leak))
        initialize_xavier(self)
        lay_out_for_convolutions(self)

    def forward(self, images: Float[Tensor, "B C H W"], conditions: Float[Tensor, "B K"]) -> Float[Tensor, "B F"]:
        features: Tensor = self.hidden(flattened(self.layers(with_planes(images, conditions))))
        return features
