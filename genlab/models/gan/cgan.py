"""The class-conditional GAN's own networks (Mirza & Osindero 2014, arXiv:1411.1784, section 4.1), fully connected.

Noise and class, and in the discriminator image and class, pass a hidden layer each before a joint one. The paper does
not say how the weights begin: they do as in the program that it builds on (goodfeli/adversarial, mnist.yaml), except in
the discriminator's last layer, which is Xavier-uniform as in every GAN here (there: within 0.005), and the biases of
the generator's, which are zero (there: an image starts at the mean of the data).

Differs from the paper:
- its noise is uniform on (0, 1), that of `model/latent=uniform` on (-1, 1);
- dropout acts behind the hidden layers, not on the inputs, which the paper leaves open (0.2 on the image in that
  program).

Dimensions: B batch, C channels, H height, W width, I inputs of the generator, U units, P pieces of a unit, F features,
K conditions.
"""

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import init

from genlab.models.gan.networks import DiscriminatorNetwork, GeneratorNetwork
from genlab.models.ranges import require_between, require_count
from genlab.nn.dropout import Dropout
from genlab.types import ImageSpec

# Weights are uniform between minus and plus these.
_GENERATOR_RANGE = 0.05
_DISCRIMINATOR_RANGE = 0.005


class Maxout(nn.Module):
    """Linear layer of units that are the largest of their pieces (Goodfellow et al. 2013, arXiv:1302.4389, section 2).

    Args:
        num_inputs: Features of an input.
        num_units: U.
        num_pieces: P.
    """

    def __init__(self, num_inputs: int, num_units: int, num_pieces: int) -> None:
        super().__init__()
        self.num_pieces = num_pieces
        self.linear = nn.Linear(num_inputs, num_units * num_pieces)

    def forward(self, x: Float[Tensor, "B inputs"]) -> Float[Tensor, "B U"]:
        return torch.unflatten(self.linear(x), 1, (-1, self.num_pieces)).amax(2)


class CGANGenerator(GeneratorNetwork):
    """A layer of ReLUs each for noise and class, a joint one, then one output per sub-pixel.

    Args:
        spec: The images; without classes all inputs are noise.
        num_inputs: I: the noise, then the class.
        noise_units: Units of the noise's layer; 200 in the paper.
        class_units: Units of the class's layer; 1,000 in the paper.
        joint_units: Units of the joint layer; 1,200 in the paper.
        dropout: Probability of a zero behind each hidden layer, in training; 0.5 in the paper. Samples are drawn
            without dropout. Trained with 0.5, the images of a class vary by dropout, not by noise, and samples do not.

    Raises:
        ValueError: An argument is out of range.
    """

    def __init__(
        self,
        *,
        spec: ImageSpec,
        num_inputs: int,
        noise_units: int,
        class_units: int,
        joint_units: int,
        dropout: float,
    ) -> None:
        super().__init__()
        _require("generator", dropout, noise_units=noise_units, class_units=class_units, joint_units=joint_units)
        self.shape = (spec.channels, spec.height, spec.width)
        self.num_classes = spec.num_classes
        self.of_noise = nn.Linear(num_inputs - spec.num_classes, noise_units)
        self.of_class = nn.Linear(spec.num_classes, class_units) if spec.num_classes else None
        self.joint = nn.Linear(noise_units + (class_units if spec.num_classes else 0), joint_units)
        self.output = nn.Linear(joint_units, spec.channels * spec.height * spec.width)
        self.dropout = Dropout(dropout)
        _initialize(self, reach=_GENERATOR_RANGE)

    def forward(self, inputs: Float[Tensor, "B I"]) -> Float[Tensor, "B C H W"]:
        noise, classes = inputs.tensor_split([inputs.shape[1] - self.num_classes], 1)
        hidden = self.of_noise(noise)
        if self.of_class is not None:
            hidden = torch.cat((hidden, self.of_class(classes)), 1)
        x = self.dropout(self.joint(self.dropout(hidden.relu())).relu())
        return torch.unflatten(self.output(x), 1, self.shape)


class CGANDiscriminator(DiscriminatorNetwork):
    """A maxout layer each for image and class, then a joint one.

    Args:
        spec: The images.
        num_conditions: K; 0 leaves out the class's layer.
        image_units: Units of the image's layer, of five pieces; 240 in the paper.
        class_units: Units of the class's layer, of five pieces; 50 in the paper.
        joint_units: Units of the joint layer, of four pieces; 240 in the paper.
        dropout: Probability of a zero behind each hidden layer, in training; 0.5 in the paper.

    Raises:
        ValueError: An argument is out of range.
    """

    def __init__(
        self,
        *,
        spec: ImageSpec,
        num_conditions: int,
        image_units: int,
        class_units: int,
        joint_units: int,
        dropout: float,
    ) -> None:
        super().__init__()
        _require("discriminator", dropout, image_units=image_units, class_units=class_units, joint_units=joint_units)
        self.of_image = Maxout(spec.channels * spec.height * spec.width, image_units, 5)
        self.of_class = Maxout(num_conditions, class_units, 5) if num_conditions else None
        self.joint = Maxout(image_units + (class_units if num_conditions else 0), joint_units, 4)
        self.dropout = Dropout(dropout)
        self.num_features = joint_units
        _initialize(self, reach=_DISCRIMINATOR_RANGE)

    def forward(self, images: Float[Tensor, "B C H W"], conditions: Float[Tensor, "B K"]) -> Float[Tensor, "B F"]:
        hidden: Tensor = self.of_image(images.flatten(1))
        if self.of_class is not None:
            hidden = torch.cat((hidden, self.of_class(conditions)), 1)
        features: Tensor = self.dropout(self.joint(self.dropout(hidden)))
        return features


def _require(network: str, dropout: float, **units: int) -> None:
    for name, number in units.items():
        require_count(f"model.{network}.{name}", number)
    require_between(f"model.{network}.dropout", dropout, 0.0, 0.99)


def _initialize(network: nn.Module, *, reach: float) -> None:
    for module in network.modules():
        if isinstance(module, nn.Linear):
            init.uniform_(module.weight, -reach, reach)
            init.zeros_(module.bias)
