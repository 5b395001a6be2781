"""Conditioning of the two networks: extra inputs (a class, hidden codes) and extra outputs (the class of an image).

Dimensions: B batch, L labelled images, N images, K conditions, E extra inputs of the generator, O outputs of
the discriminator.
"""

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from types import MappingProxyType
from typing import Union

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float, Int
from torch import Generator, Tensor, nn

from genlab.errors import ConfigurationError
from genlab.functional import one_hot
from genlab.measures import Measure
from genlab.models.classification import CLASSIFICATION_MEASURES, classification_measures
from genlab.models.gan.discriminator import DiscriminatorOutput
from genlab.models.ranges import require_between
from genlab.parallel.collectives import draw_rows, gather_rows
from genlab.types import Batch, ImageSpec, Loss

# The pattern of a semi-supervised GAN that does no better than its labels alone; see ClassPrediction.
_FEWEST_VALIDATIONS = 3
_KNOWN_BY_HEART = 0.02
_DIVERGED = 2.0  # times the least distance
_STANDS_STILL = 0.98  # of the least error before

Labels = Int[Tensor, " B"]
Rows = Union[Bool[Tensor, " B"], slice]  # noqa: UP007 - jaxtyping's types have no |


@dataclass(frozen=True, kw_only=True)
class Sizes:
    """The numbers of inputs and outputs of the networks under a conditioning."""

    num_inputs: int = 0
    """E: inputs of the generator beside the noise."""
    num_conditions: int = 0
    """K: inputs of the discriminator beside the image."""
    num_outputs: int = 1
    """O: outputs of the discriminator."""
    projects_conditions: bool = False
    """True if the conditions are projected on the discriminator's features instead of being inputs of its network."""


class Conditioning(nn.Module, ABC):
    """Base class of conditionings: the information of a GAN besides images and noise."""

    num_classes: int = 0
    """Number of classes that samples can be drawn from; 0 without classes."""
    reads_single_images: bool = False
    """True if the discriminator's features or outputs of a single image are used, for example to predict a class."""
    needs_whole_batch: bool = False
    """True if the parts of a batch (``trainer.gradient_accumulation``) would train otherwise than the whole."""
    followed: tuple[str, ...] = ()
    """Tags of metrics.jsonl that :meth:`warning_in_training` looks at."""
    game_weight: float = 1.0
    """Weight of the objective in the discriminator's loss."""
    declarations: Mapping[str, Measure] = MappingProxyType({})
    """Declarations of the measures that :meth:`measures` returns."""
    selection_measure: str | None = None
    """The one of these by which the best checkpoint is chosen; None leaves it to the quality of samples."""

    @abstractmethod
    def sizes(self, spec: ImageSpec) -> Sizes:
        """Return the numbers of inputs and outputs of the networks.

        Raises:
            ValueError: The data lack what the conditioning needs.
        """

    def build_head(self, num_features: int) -> None:
        """Build the head that reads the discriminator's features, once their number is known."""

    def draw(
        self, num: int, *, labels: Int[Tensor, " N"] | None, generator: Generator | None, device: torch.device
    ) -> Float[Tensor, "N E"]:
        """Return the generator's extra inputs, for the given classes if the model has classes."""
        del labels, generator
        return torch.empty(num, 0, device=device)

    def conditions(self, labels: Labels) -> Float[Tensor, "B K"]:
        """Return the discriminator's extra inputs."""
        return torch.empty(len(labels), 0, device=labels.device)

    def divided(self, batch: Batch) -> tuple[Rows, Rows] | None:
        """Return the rows of the training images of the adversarial loss, and of the other ones.

        None if the game uses all of them.
        """
        del batch
        return None

    def scores(self, outputs: Float[Tensor, "B O"]) -> Float[Tensor, " B"]:
        """Return the score of each image, larger for images that look real."""
        return outputs[:, 0]

    def discriminator_term(
        self,
        supervised: DiscriminatorOutput | None,
        labels: Int[Tensor, " L"],
        fake: DiscriminatorOutput,
        inputs: Float[Tensor, "B E"],
    ) -> Loss | None:
        """Return a term of the discriminator's loss.

        Args:
            supervised: Output for the images that the game left out, or for all images if it left out none; None where
                there are no such images.
            labels: Labels of these images.
            fake: Output for generated images, detached from the generator.
            inputs: The generator's extra inputs that they were drawn from.
        """
        del supervised, labels, fake, inputs
        return None

    def generator_term(self, fake: DiscriminatorOutput, inputs: Float[Tensor, "B E"]) -> Loss | None:
        """Return a term of the generator's loss."""
        del fake, inputs
        return None

    def measures(self, outputs: Float[Tensor, "B O"], labels: Labels) -> dict[str, Float[Tensor, " B"]]:
        """Return the measures of each image that the discriminator's outputs give."""
        del outputs, labels
        return {}

    def warning_in_training(self, course: Sequence[Mapping[str, float]]) -> str | None:
        """Return a warning about the course of a training (:meth:`genlab.models.base.Model.warning_in_training`)."""
        del course
        return None


def require_classes(spec: ImageSpec) -> int:
    """Return the number of classes, which a conditioning needs.

    Raises:
        ValueError: The images have no labels.
    """
    if spec.num_classes == 0:
        raise ValueError("model.conditioning needs images with labels, and these have none: use model=gan")
    return spec.num_classes


class Unconditional(Conditioning):
    """No conditioning: images and noise only."""

    def sizes(self, spec: ImageSpec) -> Sizes:
        del spec
        return Sizes()


class ClassInputs(Conditioning):
    """Conditioning of the generator on the class, one-hot; an image without a label has no class at all: zeros."""

    def sizes(self, spec: ImageSpec) -> Sizes:
        self.num_classes = require_classes(spec)
        if self.num_classes == 1:
            raise ValueError(
                "model.conditioning needs images of at least two classes, and these have one: set "
                "model/conditioning=none"
            )
        return Sizes(num_inputs=spec.num_classes)

    def draw(
        self, num: int, *, labels: Int[Tensor, " N"] | None, generator: Generator | None, device: torch.device
    ) -> Float[Tensor, "N E"]:
        if labels is None:
            place = device if generator is None else generator.device
            labels = draw_rows(
                lambda rows: torch.randint(self.num_classes, (rows,), generator=generator, device=place), num
            )
        return one_hot(labels.to(device), self.num_classes)


class ClassLabels(ClassInputs):
    """Conditioning of both networks on the class, one-hot (Mirza & Osindero 2014, arXiv:1411.1784, equation 2).

    Most networks concatenate it with their input; those of the paper (:mod:`genlab.models.gan.cgan`) pass it through a
    layer of its own first.
    """

    def sizes(self, spec: ImageSpec) -> Sizes:
        return replace(super().sizes(spec), num_conditions=spec.num_classes)

    def conditions(self, labels: Labels) -> Float[Tensor, "B K"]:
        return one_hot(labels, self.num_classes)


class ClassProjection(ClassLabels):
    """Conditioning of the discriminator by a projection (Miyato & Koyama 2018, arXiv:1802.05637, equation 3).

    The score gains the inner product of the features and an embedding of the class.
    """

    def sizes(self, spec: ImageSpec) -> Sizes:
        return replace(super().sizes(spec), projects_conditions=True)


class ClassPrediction(Conditioning):
    """Semi-supervised learning: the discriminator predicts one of K classes or fake (arXiv:1606.03498, section 5).

    The logit of the class "fake" is fixed at zero, so that D(x) = Z(x) / (Z(x) + 1) with Z the sum of the exponentials
    of the K logits: the score log Z is the logit of D. Images with a label serve the classifier alone; those without
    one are the real images of the game. If every image has a label, all images serve both purposes.

    Args:
        game_weight: Of the game in the discriminator's loss, beside the classifier's cross-entropy; 1/2 in the authors'
            program.

    Raises:
        ValueError: The weight is not between 1e-6 and 1e6.
    """

    declarations = CLASSIFICATION_MEASURES
    selection_measure = "error"
    reads_single_images = True
    needs_whole_batch = True  # its parts would have labelled images of their own number, or none
    followed = (
        "train/discriminator/labelled_error",
        "train/generator/feature_distance_squared",
        "validation/error",
    )

    def __init__(self, *, game_weight: float) -> None:
        super().__init__()
        require_between("model.conditioning.game_weight", game_weight, 1e-6, 1e6)
        self.game_weight = game_weight

    def sizes(self, spec: ImageSpec) -> Sizes:
        return Sizes(num_outputs=require_classes(spec))

    def divided(self, batch: Batch) -> tuple[Rows, Rows] | None:
        if batch.num_labelled is not None:  # without a look at the labels, for which the host would wait
            return slice(batch.num_labelled, None), slice(batch.num_labelled)
        unlabelled = batch.labels < 0
        counts = gather_rows(unlabelled.sum().float()[None])  # (processes,)
        if bool((counts != counts[0]).any()):
            raise ConfigurationError(
                "model.conditioning needs equally many labelled images in each of several processes: set "
                "trainer.labelled_fraction, or use one process"
            )
        # A batch of labelled images alone, as in a fully labelled data set, would leave the game without real images.
        return (unlabelled, ~unlabelled) if bool(unlabelled.any()) else None

    def scores(self, outputs: Float[Tensor, "B O"]) -> Float[Tensor, " B"]:
        return outputs.logsumexp(1)

    def discriminator_term(
        self,
        supervised: DiscriminatorOutput | None,
        labels: Int[Tensor, " L"],
        fake: DiscriminatorOutput,
        inputs: Float[Tensor, "B E"],
    ) -> Loss | None:
        del fake, inputs
        if supervised is None:
            return None
        cross_entropy = F.cross_entropy(supervised.outputs, labels)
        error = (supervised.outputs.detach().argmax(1) != labels).float().mean()
        return Loss(
            value=cross_entropy, metrics={"cross_entropy_nats": cross_entropy.detach(), "labelled_error": error}
        )

    def measures(self, outputs: Float[Tensor, "B O"], labels: Labels) -> dict[str, Float[Tensor, " B"]]:
        return classification_measures(outputs, labels)

    def warning_in_training(self, course: Sequence[Mapping[str, float]]) -> str | None:
        """Warn of a generator that diverges while the labels are known by heart: the images then teach nothing."""
        if len(course) < _FEWEST_VALIDATIONS:
            return None
        labelled_errors, distances, errors = ([values[tag] for values in course] for tag in self.followed)
        is_known = labelled_errors[-1] <= _KNOWN_BY_HEART
        diverges = distances[-1] > _DIVERGED * min(distances)
        stands_still = errors[-1] > _STANDS_STILL * min(errors[:-1])
        if not (is_known and diverges and stands_still):
            return None
        return (
            f"the game may teach the classifier nothing: labelled_error is {labelled_errors[-1]:.2g}, validation/error "
            f"has not fallen ({min(errors[:-1]):.3g}, now {errors[-1]:.3g}), and feature_distance_squared has grown "
            f"from {min(distances):.3g} to {distances[-1]:.3g}; try model/output=softplus (docs/gans.md, Monitoring)"
        )
