"""A small convolutional classifier whose classes and features are used by sample measures.

No paper: blocks of convolution, batch normalisation (Ioffe & Szegedy 2015, arXiv:1502.03167), ReLU and maximum
pooling, each block twice as wide on half the side, then one hidden layer. The activations of the hidden layer are
the features of an image, as the layer below the classes of Inception-v3 is for the Frechet distance (arXiv:1706.08500).

Dimensions: B batch, C channels, H height, W width, F features, K classes, L classes of one channel.
"""

import math
from typing import Final

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from genlab.models.base import Model
from genlab.models.classification import CLASSIFICATION_MEASURES, classification_loss, classification_measures
from genlab.models.ranges import require_count
from genlab.nn.convolution.layers import ConvolutionLayers
from genlab.types import Batch, ImageSpec, Loss, Phase

LEAST_SIDE: Final = 8
_LEAST_MAP: Final = 4
"""Side in pixels at which halving stops: 8 -> 4, 28 -> 14 -> 7, 32 -> 16 -> 8 -> 4."""


class Classifier(Model):
    """A classifier with convolutions and one hidden layer.

    Args:
        spec: Properties of the images, measured by the dataset; at least 8x8 pixels and two classes.
        width: Channels of the first block; each further block has twice as many.
        num_features: F, features of an image, or of a channel if `per_channel`.
        dropout: Probability of hiding a feature in training.
        per_channel: True if the class is a tuple of one class per channel, as in stacked MNIST, spelt as a number
            with the first channel's class as its leading digit. The network then looks at one channel at a time, and
            p(class | image) is the product over channels; the features of the channels stand one after another.
        layers: Convolutions and poolings that take the place of PyTorch's.

    Raises:
        ValueError: An argument is outside its range, or the images are too small or without classes.
    """

    selection_measure = "cross_entropy_nats"
    measures = CLASSIFICATION_MEASURES

    def __init__(
        self,
        spec: ImageSpec,
        *,
        width: int,
        num_features: int,
        dropout: float,
        per_channel: bool,
        layers: ConvolutionLayers,
    ) -> None:
        super().__init__()
        require_count("model.width", width)
        require_count("model.num_features", num_features)
        if not 0 <= dropout < 1:
            raise ValueError(f"model.dropout must be at least 0 and below 1, got {dropout}")
        if min(spec.height, spec.width) < LEAST_SIDE:
            raise ValueError(
                f"model=classifier needs images of at least {LEAST_SIDE} pixels a side, got {spec.height}x{spec.width}"
            )
        if spec.num_classes < 2:
            raise ValueError(
                f"model=classifier needs images of at least 2 classes, got {spec.num_classes}; choose labelled data"
            )
        self.spec = spec
        self.per_channel = per_channel
        num_looks = spec.channels if per_channel else 1
        self.num_features = num_features * num_looks
        channels, height, side_width = spec.channels // num_looks, spec.height, spec.width
        blocks = []
        while min(height, side_width) >= 2 * _LEAST_MAP:
            blocks.append(_block(channels, width))
            channels, width, height, side_width = width, 2 * width, height // 2, side_width // 2
        self.blocks = nn.Sequential(*blocks)
        layers.exchange_in(self.blocks)
        self.hidden = nn.Sequential(
            nn.Flatten(),
            nn.Linear(channels * height * side_width, num_features, bias=False),
            nn.BatchNorm1d(num_features),
            nn.ReLU(inplace=True),
        )
        self.dropout = nn.Dropout(dropout)
        self.classify = nn.Linear(num_features, _classes_of_one_channel(spec) if per_channel else spec.num_classes)

    def phases(self) -> tuple[Phase, ...]:
        """Return the only phase, which minimises the cross-entropy."""
        return (Phase(name="model", modules=(self,), loss=self.loss),)

    def compilable(self) -> tuple[nn.Module, ...]:
        """Return the network."""
        return (self.blocks, self.hidden)

    def shardable(self) -> tuple[nn.Module, ...]:
        return (self.blocks, self.hidden, self.classify)

    def loss(self, batch: Batch) -> Loss:
        """Return the cross-entropy in nats and share of errors, averaged over the labelled images of the batch."""
        return classification_loss(self.logits(batch.images), batch.labels)

    @torch.no_grad()
    def evaluate(self, batch: Batch) -> dict[str, Float[Tensor, "B ..."]]:
        """Return the cross-entropy of each image in nats, and its error: 1 if the predicted class is wrong, else 0."""
        return classification_measures(self.logits(batch.images), batch.labels)

    def features(self, images: Float[Tensor, "B C H W"]) -> Float[Tensor, "B F"]:
        """Return the non-negative activations of the hidden layer for images in [0, 1]."""
        images = images.to(self.dtype)
        looks = images.flatten(0, 1).unsqueeze(1) if self.per_channel else images  # (B C, 1, H, W)
        # Centred roughly: an image in [0, 1] is mostly at one end of it.
        features: Tensor = self.hidden(self.blocks(2 * looks - 1))
        return features.view(len(images), self.num_features)

    def logits(self, images: Float[Tensor, "B C H W"]) -> Float[Tensor, "B K"]:
        """Return the log-probabilities of the classes of images in [0, 1], up to a constant."""
        return self.logits_of(self.features(images))

    def logits_of(self, features: Float[Tensor, "B F"]) -> Float[Tensor, "B K"]:
        """Return the log-probabilities of the classes given the features, up to a constant."""
        # Dropped as rows of images, not of looks: what is drawn for an image does not depend on the others.
        looks = self.dropout(features).view(-1, self.classify.in_features)
        logits: Tensor = self.classify(looks)
        return _joint_logits(logits.view(len(features), -1, logits.shape[1])) if self.per_channel else logits

    def predict(self, images: Float[Tensor, "B C H W"]) -> Int[Tensor, " B"]:
        """Return the most likely class of each image."""
        return self.logits(images).argmax(1)


def _block(in_channels: int, out_channels: int) -> nn.Module:
    return nn.Sequential(
        nn.Conv2d(in_channels, out_channels, 3, padding=1, bias=False),
        nn.BatchNorm2d(out_channels),
        nn.ReLU(inplace=True),
        nn.MaxPool2d(2),
    )


def _joint_logits(logits: Float[Tensor, "B C L"]) -> Float[Tensor, "B K"]:
    """Return log p of every tuple of classes, the sum over independent channels; the first channel's class leads."""
    first, *others = logits.log_softmax(2).unbind(1)
    joint = first
    for log_probabilities in others:
        joint = (joint.unsqueeze(2) + log_probabilities.unsqueeze(1)).flatten(1)  # (B, L ** channels so far)
    return joint


def _classes_of_one_channel(spec: ImageSpec) -> int:
    count = round(math.pow(spec.num_classes, 1 / spec.channels))
    if count < 2 or count**spec.channels != spec.num_classes:
        raise ValueError(
            f"model.per_channel needs as many classes for each of the {spec.channels} channels, so that all are their "
            f"product, got {spec.num_classes} classes"
        )
    return count
