"""Minibatch discrimination (Salimans et al. 2016, arXiv:1606.03498, section 3.2).

Dimensions: B batch, F features, K kernels, D dimensions of a kernel.
"""

import torch
from jaxtyping import Float
from torch import Tensor, nn

from genlab.functional import at_least_float32
from genlab.models.gan.techniques.base import LayerTechnique, Parts
from genlab.models.ranges import require_count
from genlab.parallel.collectives import gather_rows


class MinibatchFeatures(nn.Module):
    """Layer that appends to an image's features their similarity to those of the other images of its batch.

    With M = f(x) T of shape (K, D), the k-th new feature of image i is sum over j != i of
    exp(-|| M_ik - M_jk ||_1). The paper's sum has j = i as well, which adds the constant 1.

    Args:
        num_features: F.
        num_kernels: K, B in the paper.
        kernel_size: D, C in the paper.
    """

    couples_images = True

    def __init__(self, *, num_features: int, num_kernels: int, kernel_size: int) -> None:
        super().__init__()
        self.num_kernels = num_kernels
        self.project = nn.Linear(num_features, num_kernels * kernel_size, bias=False)
        nn.init.normal_(self.project.weight, std=num_features**-0.5)

    def forward(self, features: Float[Tensor, "B F"]) -> Float[Tensor, "B F_plus_K"]:
        # In fp32 under autocast, too: the sums of distances are exponents.
        matrices = torch.unflatten(at_least_float32(self.project(features)), 1, (self.num_kernels, -1))  # (B, K, D)
        distances = (matrices[:, None] - gather_rows(matrices)[None]).abs().sum(3)  # (B, images of the batch, K)
        closeness = (-distances).exp().sum(1) - 1  # (B, K); an image is at distance 0 from itself
        return torch.cat((features, closeness.to(features.dtype)), 1)


class MinibatchDiscrimination(LayerTechnique):
    """Features of the similarity of the images of a batch, with which the discriminator detects a collapse.

    Args:
        num_kernels: 100 in the paper's program for CIFAR-10.
        kernel_size: 5 in that program.

    Raises:
        ValueError: A number is out of range.
    """

    couples_images = True
    needs_whole_batch = True
    slope = "free"
    uses_bare_weights = False

    def __init__(self, *, num_kernels: int, kernel_size: int) -> None:
        super().__init__()
        require_count("model.techniques.minibatch_discrimination.num_kernels", num_kernels)
        require_count("model.techniques.minibatch_discrimination.kernel_size", kernel_size)
        self.num_kernels = num_kernels
        self.kernel_size = kernel_size

    def rebuild(self, parts: Parts) -> None:
        layer = MinibatchFeatures(
            num_features=parts.num_features, num_kernels=self.num_kernels, kernel_size=self.kernel_size
        )
        parts.append_features(layer, num_features=parts.num_features + self.num_kernels)
