"""Gradient penalty of the critic (Gulrajani et al. 2017, arXiv:1704.00028, equation 3).

Dimensions: B batch, C channels, H height, W width.
"""

from collections.abc import Callable

import torch
from jaxtyping import Float
from torch import Tensor

from genlab.compiler import uncompiled
from genlab.functional import at_least_float32
from genlab.models.gan.techniques.base import StepTensors, TermTechnique
from genlab.models.ranges import require_between
from genlab.parallel.collectives import draw_rows
from genlab.types import Loss


class GradientPenalty(TermTechnique):
    """Penalty lambda E[(|| grad D(x) || - 1)^2] at points on straight lines between real and generated images.

    One point per pair of images, so one mixing coefficient per pair, shape (B, 1, 1, 1). The penalty is computed in
    fp32 under autocast, because its gradient is a second derivative, and outside of compiled code, which cannot be
    differentiated twice.

    Args:
        weight: lambda; 10 in the paper.

    Raises:
        ValueError: The weight is not between 1e-6 and 1e6.
    """

    needs_uncoupled_images = True
    slope = "one"

    def __init__(self, *, weight: float) -> None:
        super().__init__()
        require_between("model.techniques.gradient_penalty.weight", weight, 1e-6, 1e6)
        self.weight = weight

    def discriminator_term(self, tensors: StepTensors) -> Loss:
        num = min(len(tensors.real), len(tensors.fake))
        real, fake = at_least_float32(tensors.real[:num]), at_least_float32(tensors.fake[:num].detach())
        share = draw_rows(lambda rows: torch.rand(rows, 1, 1, 1, device=real.device), num).to(real.dtype)
        points = torch.lerp(fake, real, share).requires_grad_(True)
        conditions = at_least_float32(tensors.real_conditions[:num])
        norms = gradient_norms(lambda images: tensors.score(tensors.discriminator(images, conditions).outputs), points)
        penalty = (norms - 1).square().mean()
        return Loss(
            value=self.weight * penalty,
            metrics={"gradient_penalty": penalty.detach(), "critic_gradient_norm": norms.detach().mean()},
        )

    def penalty_of_slope(self, slope: float) -> float:
        return self.weight * (slope - 1) ** 2


def gradient_norms(score: Callable[[Tensor], Tensor], points: Float[Tensor, "B C H W"]) -> Float[Tensor, " B"]:
    """Return the Euclidean norm of the gradient of each image's score by the image, itself differentiable.

    Args:
        score: From images to one score each, (B,).
        points: Images at which the gradient is taken; they require gradients.
    """
    norms: Tensor = score_gradients(score, points).flatten(1).norm(dim=1)
    return norms


def score_gradients(score: Callable[[Tensor], Tensor], points: Float[Tensor, "B C H W"]) -> Float[Tensor, "B C H W"]:
    """Return the gradient of each image's score by the image, as :func:`gradient_norms` does."""
    with torch.autocast(points.device.type, enabled=False), uncompiled():
        (gradients,) = torch.autograd.grad(score(points).sum(), points, create_graph=True)
    return gradients
