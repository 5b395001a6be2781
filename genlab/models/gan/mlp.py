"""Fully connected networks, as in the first GANs and in the CS231n assignment.

Dimensions: B batch, C channels, H height, W width, I inputs of the generator, F features, K conditions.
"""

from collections.abc import Callable, Sequence
from itertools import pairwise

import torch
from jaxtyping import Float
from torch import Tensor, nn

from genlab.models.gan.networks import (
    DiscriminatorNetwork,
    GaussianNoiseLayer,
    GeneratorNetwork,
    Normalization,
    initialize_xavier,
    normalized,
)
from genlab.models.ranges import require_between, require_count
from genlab.nn.weight_norm import normalize_weight
from genlab.types import ImageSpec

Activation = Callable[[], nn.Module]


class MLPGenerator(GeneratorNetwork):
    """Fully connected generator: layers with a normalisation and an activation each, then one output per sub-pixel.

    Args:
        spec: The images.
        num_inputs: I.
        hidden: Widths of the hidden layers.
        activation: After each of them.
        normalization: Before each activation, in place of a bias; None for no normalisation.
        normalizes_output_weights: True for weight normalisation of the last layer, with lengths that start at 1.

    Raises:
        ValueError: A width is out of range, or there is none.
    """

    def __init__(
        self,
        *,
        spec: ImageSpec,
        num_inputs: int,
        hidden: Sequence[int],
        activation: Activation,
        normalization: Normalization | None,
        normalizes_output_weights: bool,
    ) -> None:
        super().__init__()
        _require_widths("model.generator.hidden", hidden)
        self.shape = (spec.channels, spec.height, spec.width)
        stack: list[nn.Module] = []
        for before, after in pairwise((num_inputs, *hidden)):
            has_bias = normalization is None
            stack += [nn.Linear(before, after, bias=has_bias), normalized(normalization, after), activation()]
        output = nn.Linear(hidden[-1], spec.channels * spec.height * spec.width)
        self.layers = nn.Sequential(*stack, output)
        initialize_xavier(self)
        if normalizes_output_weights:
            normalize_weight(output, learns_scale=True)

    def forward(self, inputs: Float[Tensor, "B I"]) -> Float[Tensor, "B C H W"]:
        flat: Tensor = self.layers(inputs)
        return torch.unflatten(flat, 1, self.shape)


class MLPDiscriminator(DiscriminatorNetwork):
    """Fully connected discriminator: hidden layers with leaky ReLUs on the flattened image.

    Args:
        spec: The images.
        num_conditions: K, joined to the flattened image.
        hidden: Widths of the hidden layers; the last is F.
        leak: Slope of the leaky ReLUs below zero, in [0, 1).
        input_noise: Standard deviation of the noise added to the inputs in training.
        hidden_noise: The same for the inputs of every later layer, the outputs' included. The features are the clean
            values of the last hidden layer, which feature matching compares.

    Raises:
        ValueError: An argument is out of range.
    """

    def __init__(
        self,
        *,
        spec: ImageSpec,
        num_conditions: int,
        hidden: Sequence[int],
        leak: float,
        input_noise: float,
        hidden_noise: float,
    ) -> None:
        super().__init__()
        _require_widths("model.discriminator.hidden", hidden)
        require_between("model.discriminator.leak", leak, 0.0, 0.99)
        require_between("model.discriminator.input_noise", input_noise, 0.0, 10.0)
        require_between("model.discriminator.hidden_noise", hidden_noise, 0.0, 10.0)
        widths = (spec.channels * spec.height * spec.width + num_conditions, *hidden)
        stack: list[nn.Module] = [GaussianNoiseLayer(input_noise)] if input_noise else []
        for index, (before, after) in enumerate(pairwise(widths)):
            if index and hidden_noise:
                stack.append(GaussianNoiseLayer(hidden_noise))
            stack += [nn.Linear(before, after), nn.LeakyReLU(leak)]
        self.layers = nn.Sequential(*stack)
        self.num_features = hidden[-1]
        self.output_noise = hidden_noise
        initialize_xavier(self)

    def forward(self, images: Float[Tensor, "B C H W"], conditions: Float[Tensor, "B K"]) -> Float[Tensor, "B F"]:
        x = images.flatten(1)
        if conditions.shape[1]:
            x = torch.cat((x, conditions), 1)  # (B, C * H * W + K)
        features: Tensor = self.layers(x)
        return features


def _require_widths(key: str, hidden: Sequence[int]) -> None:
    if not hidden:
        raise ValueError(f"{key} must list at least one width, got []")
    for width in hidden:
        require_count(key, width)
