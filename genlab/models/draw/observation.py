"""Observation models: distributions of the integer levels of an image, given a canvas of real numbers.

Every observation model is located at sigmoid(canvas), its mean but for the logistic near 0 and 1, so that DRAW's error
image x - sigmoid(c) (arXiv:1502.04623, eq. 3) means the same for binary, grey and colour images. Every one is a
distribution over the levels themselves: the probabilities of all levels of a sub-pixel sum to 1, and the nats compare
with any other exact discrete likelihood.

Dimensions: B batch, H height, C channels, A width (the layout of :mod:`genlab.models.draw.attention`).
"""

import math
from abc import ABC, abstractmethod

import torch
from jaxtyping import Float
from torch import Tensor, nn

from genlab.functional import bernoulli_nll, binomial_nll, discretized_logistic_nll
from genlab.types import ImageSpec

# Up to this many levels the binomial has a useful width; at 256 its standard deviation is at most 8 levels, far less
# than real images vary, where the logistic learns its scale.
_MOST_BINOMIAL_LEVELS = 32


class ObservationModel(nn.Module, ABC):
    """A distribution of independent sub-pixels given a canvas.

    Args:
        spec: Properties of the images, measured by the dataset; levels and channels are used.
    """

    def __init__(self, spec: ImageSpec) -> None:
        super().__init__()
        self.num_levels = spec.num_levels

    @abstractmethod
    def nll(self, canvas: Float[Tensor, "B H C A"], images: Float[Tensor, "B H C A"]) -> Float[Tensor, " B"]:
        """Return -log p(images | canvas) of each image, in nats."""

    def mean(self, canvas: Float[Tensor, "*shape"]) -> Float[Tensor, "*shape"]:
        """Return the mean image in (0, 1) of a canvas."""
        return torch.sigmoid(canvas)

    def initialize(self, images: Float[Tensor, "B H C A"]) -> None:
        """Set the initial values that depend on a sample of training images."""


class Bernoulli(ObservationModel):
    """Binary sub-pixels (arXiv:1502.04623, section 2.2).

    Raises:
        ValueError: The images are not binary: their Bernoulli "likelihood" would not be the likelihood of anything.
    """

    def __init__(self, spec: ImageSpec) -> None:
        super().__init__(spec)
        if spec.num_levels != 2:
            raise ValueError(
                f"model.observation: Bernoulli needs images of 2 levels, got {spec.num_levels}; "
                "binarize them (dataset.binarization; in genlab check num_levels=2) or leave model.observation=null"
            )

    def nll(self, canvas: Float[Tensor, "B H C A"], images: Float[Tensor, "B H C A"]) -> Float[Tensor, " B"]:
        """See :func:`genlab.functional.bernoulli_nll`."""
        return bernoulli_nll(canvas, images).flatten(1).sum(1)


class Binomial(ObservationModel):
    """Level k of L as the number of successes in L - 1 trials: for few levels; the Bernoulli at L = 2."""

    def nll(self, canvas: Float[Tensor, "B H C A"], images: Float[Tensor, "B H C A"]) -> Float[Tensor, " B"]:
        """See :func:`genlab.functional.binomial_nll`."""
        return binomial_nll(canvas, images, num_levels=self.num_levels).flatten(1).sum(1)


class DiscretizedLogistic(ObservationModel):
    """A logistic around sigmoid(canvas), with a learned scale per channel, cut into the bins of the levels.

    See :func:`genlab.functional.discretized_logistic_nll`.
    """

    def __init__(self, spec: ImageSpec) -> None:
        super().__init__(spec)
        # The scale of a logistic whose standard deviation is that of uniform levels, until `initialize` knows better.
        self.log_scale = nn.Parameter(torch.full((spec.channels, 1), -math.log(2 * math.pi)))

    def nll(self, canvas: Float[Tensor, "B H C A"], images: Float[Tensor, "B H C A"]) -> Float[Tensor, " B"]:
        """See :func:`genlab.functional.discretized_logistic_nll`."""
        nll = discretized_logistic_nll(self.mean(canvas), self.log_scale, images, num_levels=self.num_levels)
        return nll.flatten(1).sum(1)

    @torch.no_grad()
    def initialize(self, images: Float[Tensor, "B H C A"]) -> None:
        """Start at the scale whose standard deviation, s pi / sqrt(3), is that of the images around their mean."""
        deviation = images.sub(images.mean(0)).square().mean((0, 1, 3)).sqrt().unsqueeze(1)
        least = 1 / (self.num_levels - 1)  # constant images would start at a scale of zero
        self.log_scale.copy_(torch.log(deviation.clamp_min(least) * math.sqrt(3) / math.pi))


def default_observation(spec: ImageSpec) -> ObservationModel:
    """Return a Bernoulli for 2 levels, a binomial up to 32 (digits have 17), a discretised logistic above."""
    if spec.num_levels == 2:
        return Bernoulli(spec)
    return Binomial(spec) if spec.num_levels <= _MOST_BINOMIAL_LEVELS else DiscretizedLogistic(spec)
