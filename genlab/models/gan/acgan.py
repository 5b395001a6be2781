"""Auxiliary classifier GAN (Odena et al. 2016, arXiv:1610.09585): the discriminator also classifies images.

L_C = E[log P(C = c | x)] + E[log P(C = c | G(z, c))] (equation 3): the discriminator maximises L_S + L_C, the
generator L_C - L_S, where L_S is the objective. Each part has a weight; the conditional program of WGAN-GP
(arXiv:1704.00028, gan_cifar_resnet.py) has 1 for real images, 0 for generated ones, and 0.1 in the generator's loss.

Differs from the papers: images without a label have no part in L_C.

Dimensions: B batch, L labelled images, E extra inputs of the generator, O outputs of the discriminator.
"""

import torch
from jaxtyping import Float, Int
from torch import Tensor

from genlab.functional import at_least_float32
from genlab.models.classification import CLASSIFICATION_MEASURES, classification_loss, classification_measures
from genlab.models.gan.conditioning import ClassInputs, Labels, Sizes
from genlab.models.gan.discriminator import DiscriminatorOutput
from genlab.models.ranges import require_between
from genlab.types import UNLABELLED, ImageSpec, Loss


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
