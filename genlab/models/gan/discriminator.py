"""The discriminator: a network's features, layers that techniques add to them, and linear outputs.

If a layer couples the images of a batch, as batch normalisation does, real and generated images pass the network
separately in training, and each pass is normalised by itself. The running statistics are therefore kept apart, too: of
both kinds together they would be those of no pass, and the network in evaluation another function than the trained one.

With a projection (Miyato & Koyama 2018, arXiv:1802.05637, equation 3) an image x of class y has the score
psi(phi(x)) + <V y, phi(x)>: psi is the linear output, phi(x) are the features, V y is the embedding of the class.

Dimensions: B batch, R real images, C channels, H height, W width, F features, K conditions, O outputs.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from genlab.models.base import coupling_layer
from genlab.models.gan.networks import DiscriminatorNetwork, GaussianNoiseLayer

_STATISTICS = {"running_mean": "generated_mean", "running_var": "generated_var"}
"""Buffers of real images, and those of generated ones."""


class DiscriminatorOutput(NamedTuple):
    """The output of a discriminator for one batch."""

    features: Float[Tensor, "B F"]
    """Features of the network, read by feature matching and by further heads."""
    outputs: Float[Tensor, "B O"]


class Discriminator(nn.Module):
    """A discriminator: features, then the layers that techniques add, then one linear layer and the projection.

    Args:
        network: From images to features.
        feature_layer: Between the features and the outputs; it may widen the features.
        num_joint_features: Width after it.
        num_outputs: O: 1, or as many as the conditioning reads.
        num_projected: Conditions that are projected on the features instead of being inputs of the network; 0 without
            a projection.
    """

    def __init__(
        self,
        network: DiscriminatorNetwork,
        *,
        feature_layer: nn.Module,
        num_joint_features: int,
        num_outputs: int,
        num_projected: int = 0,
    ) -> None:
        super().__init__()
        self.network = network
        self.feature_layer = feature_layer
        self.output = nn.Linear(num_joint_features, num_outputs)
        nn.init.xavier_uniform_(self.output.weight)
        nn.init.zeros_(self.output.bias)
        self.embedding: nn.Linear | None = None
        if num_projected:
            self.embedding = nn.Linear(num_projected, num_joint_features, bias=False)
            nn.init.xavier_uniform_(self.embedding.weight)
        self._normalizing = tuple(
            layer for layer in self.modules() if isinstance(layer, _BatchNorm) and layer.running_mean is not None
        )
        for layer in self._normalizing:
            for name, other in _STATISTICS.items():
                layer.register_buffer(other, getattr(layer, name).clone())

    @property
    def couples_batches(self) -> bool:
        """True if the output of one image in training depends on the others of its batch."""
        return not isinstance(self.feature_layer, nn.Identity | GaussianNoiseLayer) or (
            coupling_layer(self.network, training=True) is not None
        )

    @contextmanager
    def on_generated(self) -> Iterator[None]:
        """Use the running statistics of generated images; without it, those of real ones."""
        self._exchange_statistics()
        try:
            yield
        finally:
            self._exchange_statistics()

    def _exchange_statistics(self) -> None:
        for layer in self._normalizing:
            for name, other in _STATISTICS.items():
                kept, given = getattr(layer, name), getattr(layer, other)
                setattr(layer, name, given)
                setattr(layer, other, kept)

    def forward(self, images: Float[Tensor, "B C H W"], conditions: Float[Tensor, "B K"]) -> DiscriminatorOutput:
        features = self.features(images, conditions)
        joint = self.feature_layer(features)
        outputs = self.output(joint)
        if self.embedding is not None:
            outputs = outputs + (self.embedding(conditions) * joint).sum(1, keepdim=True)
        return DiscriminatorOutput(features=features, outputs=outputs)

    def features(self, images: Float[Tensor, "B C H W"], conditions: Float[Tensor, "B K"]) -> Float[Tensor, "B F"]:
        """Return the features of the network, whose inputs are the conditions unless they are projected."""
        features: Tensor = self.network(images, conditions if self.embedding is None else conditions[:, :0])
        return features

    def forward_both(
        self,
        real: Float[Tensor, "R C H W"],
        fake: Float[Tensor, "B C H W"],
        real_conditions: Float[Tensor, "R K"],
        fake_conditions: Float[Tensor, "B K"],
    ) -> tuple[DiscriminatorOutput, DiscriminatorOutput]:
        """Return the outputs for real and generated images, in one pass if the images of a batch are independent."""
        if self.couples_batches:
            real_output: DiscriminatorOutput = self(real, real_conditions)
            with self.on_generated():
                return real_output, self(fake, fake_conditions)
        # One pass over both is the same function, and fills the matrix products better.
        both = self(torch.cat((real, fake)), torch.cat((real_conditions, fake_conditions)))
        parts = torch.tensor_split(both.features, [len(real)]), torch.tensor_split(both.outputs, [len(real)])
        return DiscriminatorOutput(parts[0][0], parts[1][0]), DiscriminatorOutput(parts[0][1], parts[1][1])
