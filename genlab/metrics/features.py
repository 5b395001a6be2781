"""Feature extractors of sample measures: features and class probabilities of images, with an identity.

Two values of one measure compare only if the extractor's identity is the same: the same network, the same weights.

Dimensions: N images, B batch, F features, K classes.
"""

from collections.abc import Iterable
from typing import NamedTuple, Protocol, runtime_checkable

import torch
from jaxtyping import Float
from torch import Tensor

from genlab.functional import at_least_float32
from genlab.models.classifier import Classifier
from genlab.parallel.processes import dealt


class Description(NamedTuple):
    """The output of an extractor for images."""

    features: Float[Tensor, "N F"]
    logits: Float[Tensor, "N K"]
    """Log-probabilities of the extractor's classes, up to a constant."""


@runtime_checkable
class FeatureExtractor(Protocol):
    """A network that computes features of images for measures."""

    name: str
    """Suffix of every measure's name."""
    identity: str
    """Name and weights."""

    def describe(self, images: Float[Tensor, "B C H W"]) -> Description:
        """Return features and logits of images in [0, 1]."""


class ClassifierFeatures:
    """The hidden layer and the classes of a genlab classifier.

    Args:
        classifier: In evaluation mode.
        weights_id: Identifier of its weights, such as the start of a hash.
    """

    name = "classifier"

    def __init__(self, classifier: Classifier, *, weights_id: str) -> None:
        self.classifier = classifier
        self.identity = f"{self.name} {weights_id}"

    def describe(self, images: Float[Tensor, "B C H W"]) -> Description:
        """Return features and logits of images in [0, 1]."""
        features = self.classifier.features(images)
        return Description(features, self.classifier.logits_of(features))


@torch.no_grad()
def describe_all(extractor: FeatureExtractor, batches: Iterable[Float[Tensor, "B C H W"]]) -> Description:
    """Return the features and logits of all images, on the CPU, where the measures are computed in float64.

    Several processes look at the batches in turn, and all get all.

    Raises:
        ValueError: There are no images.
    """

    def describe(images: Tensor) -> tuple[Tensor, ...]:
        return tuple(at_least_float32(part).cpu() for part in extractor.describe(images))

    described = dealt(batches, describe)
    if not described:
        raise ValueError("there are no images to describe")
    features, logits = (torch.cat(parts) for parts in zip(*described, strict=True))
    return Description(features, logits)
