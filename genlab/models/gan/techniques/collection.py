"""The techniques of one GAN, acting as one at each of the places where techniques act.

Dimensions: B batch, R real images, C channels, H height, W width, K conditions.
"""

from collections.abc import Mapping

from jaxtyping import Float
from torch import Tensor, nn

from genlab.models.gan.discriminator import Discriminator
from genlab.models.gan.techniques.base import (
    ImageTechnique,
    LayerTechnique,
    Parts,
    StepTensors,
    TermTechnique,
    WeightTechnique,
)
from genlab.types import Loss


class Techniques(nn.ModuleDict):
    """Techniques by name, in the order in which they act.

    Those of a kind are looked up rather than kept: a copy of the model must find its own techniques.
    """

    @property
    def _of_images(self) -> list[ImageTechnique]:
        return [technique for technique in self.values() if isinstance(technique, ImageTechnique)]

    @property
    def _of_terms(self) -> list[TermTechnique]:
        return [technique for technique in self.values() if isinstance(technique, TermTechnique)]

    @property
    def _of_weights(self) -> list[WeightTechnique]:
        return [technique for technique in self.values() if isinstance(technique, WeightTechnique)]

    def rebuild(self, parts: Parts) -> None:
        """Change or replace networks.

        Raises:
            ValueError: A technique does not fit the networks.
        """
        for technique in self.values():
            if isinstance(technique, LayerTechnique):
                technique.rebuild(parts)

    def prepare(self, generator: nn.Module, discriminator: Discriminator) -> None:
        """Parametrise the discriminator's weights, then prepare each technique for the finished networks.

        Raises:
            ValueError: A technique does not fit the networks.
        """
        for technique in self._of_weights:
            technique.parametrize(discriminator)
        for term in self._of_terms:
            term.prepare(generator, discriminator)

    def initialize(
        self, discriminator: Discriminator, images: Float[Tensor, "B C H W"], conditions: Float[Tensor, "B K"]
    ) -> None:
        """Set initial values of the weights that depend on the data."""
        for technique in self._of_weights:
            technique.initialize(discriminator, images, conditions)

    def project(self, discriminator: Discriminator) -> None:
        """Change the weights in place, after each update of the discriminator."""
        for technique in self._of_weights:
            technique.project(discriminator)

    def transform(self, images: Float[Tensor, "B C H W"], *, black: float) -> Float[Tensor, "B C H W"]:
        """Change images as the discriminator sees them in training, with fresh draws.

        Args:
            images: In the range of the networks.
            black: The lower end of this range; the upper one is 1.
        """
        if not self._of_images:
            return images
        middle, half = (1 + black) / 2, (1 - black) / 2
        images = (images - middle) / half  # [-1, 1]
        for technique in self._of_images:
            images = technique.transform(images)
        return images * half + middle

    def observe(self, margins: Float[Tensor, " R"] | None) -> Mapping[str, Float[Tensor, ""]]:
        """Follow an update of the discriminator and return the scalars to log (:meth:`ImageTechnique.observe`)."""
        metrics: dict[str, Float[Tensor, ""]] = {}
        for technique in self._of_images:
            metrics |= technique.observe(margins)
        return metrics

    def discriminator_terms(self, tensors: StepTensors) -> list[Loss | None]:
        """Return the terms of the discriminator's loss."""
        return [term.discriminator_term(tensors) for term in self._of_terms]

    def generator_terms(self, tensors: StepTensors) -> list[Loss | None]:
        """Return the terms of the generator's loss."""
        return [term.generator_term(tensors) for term in self._of_terms]
