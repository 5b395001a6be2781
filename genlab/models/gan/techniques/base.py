"""Where a technique may act: on the layers of a network, on the objective, on a phase's loss, or on the weights.

A technique acts at one of these places and knows nothing of the others, so that any of them can be combined.

Dimensions: B batch, R real images, C channels, H height, W width, K conditions.
"""

from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn.utils.parametrize import is_parametrized

from genlab.models.gan.discriminator import Discriminator, Judgement
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


@dataclass(kw_only=True)
class Contest:
    """What a term of a phase's loss may look at."""

    generator: nn.Module
    discriminator: Discriminator
    real: Float[Tensor, "R C H W"]
    """In [-1, 1]."""
    fake: Float[Tensor, "B C H W"]
    """In [-1, 1]; attached to the generator in the generator's phase alone."""
    real_conditions: Float[Tensor, "R K"]
    fake_conditions: Float[Tensor, "B K"]
    fake_judgement: Judgement
    score: Callable[[Tensor], Tensor]
    """From the discriminator's outputs to one score per image."""

    @cached_property
    def real_features(self) -> Float[Tensor, "R F"]:
        """Of the discriminator, without a graph: the generator's phase does not train it."""
        with torch.no_grad():
            features: Tensor = self.discriminator.network(self.real, self.real_conditions)
            return features


class Technique(nn.Module):
    """The base of all techniques; derive from one of the four below."""

    uses_bare_weights: bool = False
    """Whether it looks at weights outside of their modules or differentiates them twice: such a GAN is not sharded."""


class LayerTechnique(Technique, ABC):
    """Changes the layers of a network, once."""

    @abstractmethod
    def rebuild(self, parts: Parts) -> None:
        """Change or replace networks.

        Raises:
            ValueError: The technique does not fit the networks.
        """


class ObjectiveTechnique(Technique, ABC):
    """Changes the objective, once."""

    @abstractmethod
    def wrap(self, objective: Objective) -> Objective:
        """The changed objective."""


class TermTechnique(Technique):
    """Adds a term to the loss of one phase or of both."""

    replaces_objective: bool = False
    """Whether the generator's loss is this term instead of the objective's."""

    def prepare(self, generator: nn.Module, discriminator: Discriminator) -> None:
        """Look at the finished networks, once: allocate buffers, refuse what does not fit.

        Raises:
            ValueError: The technique does not fit the networks.
        """

    def discriminator_term(self, contest: Contest) -> Loss | None:
        """A term of the discriminator's loss, or none."""
        del contest
        return None

    def generator_term(self, contest: Contest) -> Loss | None:
        """A term of the generator's loss, or none."""
        del contest
        return None


class WeightTechnique(Technique):
    """Constrains the discriminator's weights: by a parametrisation, or by bringing them back after each update."""

    def parametrize(self, discriminator: Discriminator) -> None:
        """Express the weights by others, once, on the finished discriminator.

        Raises:
            ValueError: The technique does not fit the weights.
        """

    def project(self, discriminator: Discriminator) -> None:
        """Change the weights in place, after each update of the discriminator."""


def require_plain_weight(module: nn.Module) -> None:
    """Refuse to parametrise a weight twice.

    Raises:
        ValueError: The module's weight has a parametrisation already.
    """
    if is_parametrized(module, "weight"):
        raise ValueError(
            "model.techniques: spectral_normalization and weight_normalization exclude each other; set one to null"
        )
