"""Base classes of techniques: for layers, objectives, losses, weights, and the images that the discriminator sees.

A technique acts at one of these places, knows nothing of the others, and declares what it does to the discriminator and
what it needs of it. :mod:`genlab.models.gan.techniques.compatibility` decides from this which of them go together.

Dimensions: B batch, R real images, C channels, H height, W width, K conditions, F features.
"""

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Literal

import torch
from jaxtyping import Float
from torch import Tensor, nn

from genlab.models.gan.discriminator import Discriminator, DiscriminatorOutput
from genlab.models.gan.networks import DiscriminatorNetwork
from genlab.models.gan.objectives import Objective
from genlab.types import Loss


@dataclass(kw_only=True)
class Parts:
    """The networks while a GAN is put together; a layer technique changes or replaces them."""

    generator: nn.Module
    network: DiscriminatorNetwork
    feature_layer: nn.Module
    num_features: int
    """Width after the feature layer."""
    draw_inputs: Callable[[int], Tensor]
    """Draws inputs of the generator."""

    def append_features(self, layer: nn.Module, *, num_features: int) -> None:
        """Append a layer after the features and after the layers of other techniques.

        Args:
            layer: From (B, ``self.num_features``) to (B, num_features).
            num_features: Width after it.
        """
        is_first = isinstance(self.feature_layer, nn.Identity)
        self.feature_layer = layer if is_first else nn.Sequential(self.feature_layer, layer)
        self.num_features = num_features


@dataclass(kw_only=True)
class StepTensors:
    """The tensors of a training step that a term of a phase's loss may use."""

    generator: nn.Module
    discriminator: Discriminator
    real: Float[Tensor, "R C H W"]
    """In the range of the networks; as the discriminator sees them."""
    fake: Float[Tensor, "B C H W"]
    """In the same range; attached to the generator in the generator's phase alone."""
    real_conditions: Float[Tensor, "R K"]
    fake_conditions: Float[Tensor, "B K"]
    fake_output: DiscriminatorOutput
    score: Callable[[Tensor], Tensor]
    """From the discriminator's outputs to one score per image."""

    @cached_property
    def real_features(self) -> Float[Tensor, "R F"]:
        """The discriminator's features of the real images, without a graph, for the generator's phase."""
        with torch.no_grad():
            return self.discriminator.features(self.real, self.real_conditions)


Slope = Literal["free", "bounded", "one", "undeclared"]
"""Bound of the score's slope: unbounded; bounded by some number; at most one, or pulled to one."""


class Technique(nn.Module):
    """The base of all techniques; derive from one of the five below.

    The attributes declare properties that decide whether parts of a GAN go together. A default is the careful answer;
    where there is none it is undeclared, and a warning asks for it.
    """

    couples_images: bool | None = False
    """True if the score of an image then depends on the other images of its batch; None is undeclared."""
    needs_uncoupled_images: bool = False
    """True if it assumes that the score of an image is a function of that image only."""
    slope: Slope = "undeclared"
    """The slope of the discriminator's score by the image with this technique."""
    bounds_layers_alone: bool = False
    """True if it bounds each layer by itself, so that a normalisation between two layers undoes the bound."""
    replaces_objective: bool = False
    """True if the generator's loss is a term of this technique instead of the objective's."""
    needs_grey_levels: bool = False
    """True if it produces values other than those of binarised images."""
    needs_margins: bool = False
    """True if it uses the side of the objective's threshold on which a real image is."""
    needs_whole_batch: bool = False
    """True if the parts of a batch (``trainer.gradient_accumulation``) would train otherwise than the whole: it counts
    updates, or compares images of a batch in its loss."""
    uses_bare_weights: bool = True
    """True if it uses weights outside of their modules or differentiates them twice: such a GAN is not sharded."""


class LayerTechnique(Technique, ABC):
    """Technique that changes the layers of a network, once."""

    couples_images: bool | None = None

    @abstractmethod
    def rebuild(self, parts: Parts) -> None:
        """Change or replace networks.

        Raises:
            ValueError: The technique does not fit the networks.
        """


class ObjectiveTechnique(Technique, ABC):
    """Technique that changes the objective, once. Its properties are then computed, not declared."""

    slope: Slope = "free"
    uses_bare_weights = False

    @abstractmethod
    def wrap(self, objective: Objective) -> Objective:
        """Return the changed objective."""


class ImageTechnique(Technique, ABC):
    """Technique that changes the discriminator's images in training.

    Real and generated images, in both phases, pass the same random transformation with fresh draws: equal distributions
    stay equal. Its draws come from :mod:`genlab.parallel.collectives`, so that several processes train as one.
    """

    slope: Slope = "free"
    uses_bare_weights = False

    @abstractmethod
    def transform(self, images: Float[Tensor, "B C H W"]) -> Float[Tensor, "B C H W"]:
        """Change images in [-1, 1], differentiably, each one alone."""

    def observe(self, margins: Float[Tensor, " R"] | None) -> Mapping[str, Float[Tensor, ""]]:
        """Observe an update of the discriminator, and return scalars to log.

        Args:
            margins: :meth:`genlab.models.gan.objectives.Objective.margins`.

        Returns:
            The scalars to log, by name.
        """
        del margins
        return {}


class TermTechnique(Technique):
    """Technique that adds a term to the loss of one phase or of both."""

    def prepare(self, generator: nn.Module, discriminator: Discriminator) -> None:
        """Prepare for the finished networks, once: allocate buffers, refuse incompatible networks.

        Raises:
            ValueError: The technique does not fit the networks.
        """

    def discriminator_term(self, tensors: StepTensors) -> Loss | None:
        """Return a term of the discriminator's loss; None where the technique adds no such term."""
        del tensors
        return None

    def penalty_of_slope(self, slope: float) -> float | None:
        """Return the first :meth:`discriminator_term` for a score that is linear in the image; None if not known.

        `genlab check` compares both.

        Args:
            slope: Norm of the gradient of the score, the same everywhere.
        """
        del slope
        return None

    def generator_term(self, tensors: StepTensors) -> Loss | None:
        """Return a term of the generator's loss; None where the technique adds no such term."""
        del tensors
        return None


class WeightTechnique(Technique):
    """Technique that constrains the discriminator's weights by a parametrisation, or by a projection after updates."""

    divides_by_norm: bool = False
    """True if it divides the initial weights of a layer by a norm of these, which must not be zero."""

    def parametrize(self, discriminator: Discriminator) -> None:
        """Parametrise the weights, once, on the finished discriminator.

        Raises:
            ValueError: The technique does not fit the weights.
        """

    def initialize(
        self, discriminator: Discriminator, images: Float[Tensor, "B C H W"], conditions: Float[Tensor, "B K"]
    ) -> None:
        """Set initial values that depend on the data, once, from a sample of the training images."""

    def project(self, discriminator: Discriminator) -> None:
        """Change the weights in place, after each update of the discriminator."""

    @property
    def reparametrizes(self) -> bool:
        """True if the stored weights are no longer the effective ones."""
        return type(self).parametrize is not WeightTechnique.parametrize

    @property
    def needs_stored_weights(self) -> bool:
        """True if it assumes that the stored weights are the effective ones, to parametrise or to change them."""
        return self.reparametrizes or type(self).project is not WeightTechnique.project
