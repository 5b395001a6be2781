"""Weight clipping of the critic (Arjovsky, Chintala, Bottou 2017, arXiv:1701.07875, algorithm 1)."""

import torch
from torch import Tensor

from genlab.models.gan.discriminator import Discriminator
from genlab.models.gan.techniques.base import WeightTechnique
from genlab.models.ranges import require_between


class WeightClipping(WeightTechnique):
    """Clipping of the critic's parameters to [-bound, bound], which bounds its Lipschitz constant.

    Args:
        bound: c in the paper, 0.01 there.

    Raises:
        ValueError: The bound is out of range.
    """

    slope = "bounded"

    def __init__(self, *, bound: float) -> None:
        super().__init__()
        require_between("model.techniques.weight_clipping.bound", bound, 1e-6, 100.0)
        self.bound = bound

    @torch.no_grad()
    def project(self, discriminator: Discriminator) -> None:
        parameters: list[Tensor] = list(discriminator.parameters())
        torch._foreach_clamp_min_(parameters, -self.bound)
        torch._foreach_clamp_max_(parameters, self.bound)
