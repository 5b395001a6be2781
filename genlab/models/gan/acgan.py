"""Auxiliary classifier GAN (Odena et al. 2016, arXiv:1610.09585): the discriminator also classifies images.

L_C = E[log P(C = c | x)] + E[log P(C = c | G(z, c))] (equation 3): the discriminator maximises L_S + L_C, the
generator L_C - L_S, where L_S is the objective. Each part has a weight; the conditional program of WGAN-GP
(arXiv:1704.00028, gan_cifar_resnet.py) has 1 for real images, 0 for generated ones, and 0.1 in the generator's loss.

The networks are those of the appendix of Odena et al. for CIFAR-10, for any image size divisible by 4.

Differs from the papers:
- images without a label have no part in L_C;
- the number of halvings follows the image, as in DCGAN;
- the discriminator has no noise between its layers, which the paper chose from three values by experiment.

Dimensions: B batch, L labelled images, E extra inputs of the generator, O outputs of the discriminator, C channels,
H height, W width, I inputs of the generator, F features, K conditions.
"""

import math
from itertools import pairwise

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from genlab.functional import at_least_float32
from genlab.models.classification import CLASSIFICATION_MEASURES, classification_loss, classification_measures
from genlab.models.gan.conditioning import ClassInputs, Labels, Sizes
from genlab.models.gan.discriminator import DiscriminatorOutput
from genlab.models.gan.networks import (
    DiscriminatorNetwork,
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
from genlab.nn.dropout import Dropout
from genlab.types import UNLABELLED, ImageSpec, Loss

# Standard deviation of the initial weights of both networks, as in the appendix; the outputs start Xavier-uniform.
_WEIGHT_STD = 0.02
# Channels of the discriminator's last map, 512 in the paper, over those of its first, 16.
_LARGEST_GROWTH = 32


class ACGANGenerator(GeneratorNetwork):
    """A projection to a small map, then transposed 5x5 convolutions that double it; ReLU.

    Args:
        spec: The images.
        num_inputs: I.
        channels: Of the largest hidden map, 96 in the paper; each smaller one has twice as many.
        normalization: Normalisation of the hidden convolutions; None for no normalisation.

    Raises:
        ValueError: An argument is out of range, or the image size is not divisible by 4.
    """

    def __init__(self, *, spec: ImageSpec, num_inputs: int, channels: int, normalization: Normalization | None) -> None:
        super().__init__()
        require_divisible_by_four(spec)
        require_count("model.generator.channels", channels)
        halvings = num_halvings(spec)
        widths = [channels * 2**index for index in reversed(range(halvings))]
        self.shape = (widths[0], spec.height >> halvings, spec.width >> halvings)
        self.project = nn.Sequential(nn.Linear(num_inputs, math.prod(self.shape)), nn.ReLU())
        hidden: list[nn.Module] = []
        for before, after in pairwise(widths):
            convolution = nn.ConvTranspose2d(before, after, 5, 2, 2, output_padding=1, bias=normalization is None)
            hidden += [convolution, normalized(normalization, after), nn.ReLU()]
        output = nn.ConvTranspose2d(widths[-1], spec.channels, 5, 2, 2, output_padding=1)
        self.layers = nn.Sequential(*hidden, output)
        initialize_normal(self, std=_WEIGHT_STD)
        lay_out_for_convolutions(self)

    def forward(self, inputs: Float[Tensor, "B I"]) -> Float[Tensor, "B C H W"]:
        images: Tensor = self.layers(as_maps(self.project(inputs), self.shape))
        return images


class ACGANDiscriminator(DiscriminatorNetwork):
    """3x3 convolutions, every other one of stride 2, with leaky ReLUs and dropout.

    Args:
        spec: The images.
        num_conditions: K, joined to the image as constant channels.
        channels: Of the first map, 16 in the paper; each further one has twice as many, up to 32 times as many.
        normalization: Normalisation of every layer but the first; None for no normalisation.
        leak: Slope of the leaky ReLUs below zero, in [0, 1).
        dropout: Probability of a zero, behind every leaky ReLU; 0.5 in the paper.

    Raises:
        ValueError: An argument is out of range, or the image size is not divisible by 4.
    """

    def __init__(
        self,
        *,
        spec: ImageSpec,
        num_conditions: int,
        channels: int,
        normalization: Normalization | None,
        leak: float,
        dropout: float,
    ) -> None:
        super().__init__()
        require_divisible_by_four(spec)
        require_count("model.discriminator.channels", channels)
        require_between("model.discriminator.leak", leak, 0.0, 0.99)
        require_between("model.discriminator.dropout", dropout, 0.0, 0.99)
        halvings = num_halvings(spec)
        widths = [channels * min(2**index, _LARGEST_GROWTH) for index in range(2 * halvings)]
        layers: list[nn.Module] = []
        for index, (before, after) in enumerate(pairwise((spec.channels + num_conditions, *widths))):
            normalization_here = normalization if index else None
            stride = 1 + (index + 1) % 2
            layers.append(nn.Conv2d(before, after, 3, stride, 1, bias=normalization_here is None))
            if normalization_here is not None:
                layers.append(normalization_here(after))
            layers += [nn.LeakyReLU(leak), Dropout(dropout)]
        self.layers = nn.Sequential(*layers)
        self.num_features = widths[-1] * (spec.height >> halvings) * (spec.width >> halvings)
        initialize_normal(self, std=_WEIGHT_STD)
        lay_out_for_convolutions(self)

    def forward(self, images: Float[Tensor, "B C H W"], conditions: Float[Tensor, "B K"]) -> Float[Tensor, "B F"]:
        return flattened(self.layers(with_planes(images, conditions)))


class AuxiliaryClassifier(ClassInputs):
    """Conditioning of the generator on the class, which the discriminator predicts by one more output per class.

    Args:
        real_weight: Of the cross-entropy of training images in the discriminator's loss.
        fake_weight: The same for generated images.
        generator_weight: Of the cross-entropy of generated images in the generator's loss.

    Raises:
        ValueError: A weight is out of range.
    """

    declarations = CLASSIFICATION_MEASURES
    reads_single_images = True

    def __init__(self, *, real_weight: float, fake_weight: float, generator_weight: float) -> None:
        super().__init__()
        require_between("model.conditioning.real_weight", real_weight, 0.0, 1e6)
        require_between("model.conditioning.fake_weight", fake_weight, 0.0, 1e6)
        require_between("model.conditioning.generator_weight", generator_weight, 0.0, 1e6)
        self.real_weight = real_weight
        self.fake_weight = fake_weight
        self.generator_weight = generator_weight

    def sizes(self, spec: ImageSpec) -> Sizes:
        inputs = super().sizes(spec).num_inputs
        return Sizes(num_inputs=inputs, num_outputs=1 + inputs)

    def discriminator_term(
        self,
        supervised: DiscriminatorOutput | None,
        labels: Int[Tensor, " L"],
        fake: DiscriminatorOutput,
        inputs: Float[Tensor, "B E"],
    ) -> Loss:
        assert supervised is not None, "the game leaves no image out"
        real, generated = _class_loss(supervised, labels), _class_loss(fake, _labels_of(inputs))
        return Loss(
            value=self.real_weight * real.value + self.fake_weight * generated.value,
            metrics={
                "cross_entropy_real_nats": real.metrics["cross_entropy_nats"],
                "cross_entropy_fake_nats": generated.metrics["cross_entropy_nats"],
                "class_error_real": real.metrics["error"],
                "class_error_fake": generated.metrics["error"],
            },
        )

    def generator_term(self, fake: DiscriminatorOutput, inputs: Float[Tensor, "B E"]) -> Loss:
        generated = _class_loss(fake, _labels_of(inputs))
        return Loss(
            value=self.generator_weight * generated.value,
            metrics={"cross_entropy_fake_nats": generated.metrics["cross_entropy_nats"]},
        )

    def measures(self, outputs: Float[Tensor, "B O"], labels: Labels) -> dict[str, Float[Tensor, " B"]]:
        return classification_measures(outputs[:, 1:], labels)


def _class_loss(output: DiscriminatorOutput, labels: Int[Tensor, " B"]) -> Loss:
    """Return the cross-entropy of the classification, averaged over the labelled images."""
    return classification_loss(at_least_float32(output.outputs[:, 1:]), labels)


def _labels_of(inputs: Float[Tensor, "B E"]) -> Int[Tensor, " B"]:
    """Return the classes of one-hot rows; a row of zeros has none."""
    return torch.where(inputs.any(1), inputs.argmax(1), UNLABELLED)
