"""Zero-centred gradient penalties (Mescheder et al. 2018, arXiv:1801.04406; R1 and R2 there).

Computed every k updates at k times the weight, they are the same on average (arXiv:1912.04958, lazy regularisation).

Differs from the papers: with a technique that changes images, the gradient is by the changed images.

Dimensions: B batch, C channels, H height, W width, K conditions.
"""

from abc import abstractmethod

import torch
from jaxtyping import Float
from torch import Tensor

from genlab.functional import at_least_float32
from genlab.models.gan.techniques.base import StepTensors, TermTechnique
from genlab.models.gan.techniques.gradient_penalty import score_gradients
from genlab.models.ranges import require_between, require_count
from genlab.types import Loss


class _ZeroCenteredPenalty(TermTechnique):
    """Penalty gamma / 2 E || grad D ||^2 at images of one kind.

    Args:
        weight: gamma.
        interval: Updates of the discriminator from one computation to the next. The count of updates is a buffer. From
            2 on the host reads it, so that the update is not captured as a CUDA graph.

    Raises:
        ValueError: A number is out of range.
    """

    needs_uncoupled_images = True
    slope = "free"  # between the images it may be anything
    name: str
    num_updates: Tensor

    def __init__(self, *, weight: float, interval: int) -> None:
        super().__init__()
        require_between(f"model.techniques.{self.name}.weight", weight, 1e-6, 1e6)
        require_count(f"model.techniques.{self.name}.interval", interval)
        self.weight = weight
        self.interval = interval
        self.needs_whole_batch = interval > 1
        self.register_buffer("num_updates", torch.zeros((), dtype=torch.long))

    @abstractmethod
    def images(self, tensors: StepTensors) -> tuple[Float[Tensor, "B C H W"], Float[Tensor, "B K"]]:
        """Return the images and their conditions."""

    def discriminator_term(self, tensors: StepTensors) -> Loss | None:
        is_due = self.interval == 1 or self.num_updates.item() % self.interval == 0
        self.num_updates += 1
        if not is_due:
            return None
        images, conditions = map(at_least_float32, self.images(tensors))
        points = images.detach().clone().requires_grad_(True)
        gradients = score_gradients(lambda x: tensors.score(tensors.discriminator(x, conditions).outputs), points)
        penalty = gradients.square().flatten(1).sum(1).mean()
        return Loss(
            value=self.interval * self.weight / 2 * penalty, metrics={f"{self.name}_slope_squared": penalty.detach()}
        )

    def penalty_of_slope(self, slope: float) -> float:
        return self.interval * self.weight / 2 * slope**2


class R1Penalty(_ZeroCenteredPenalty):
    """Penalty gamma / 2 E || grad D(x) ||^2 at real images."""

    name = "r1_penalty"

    def images(self, tensors: StepTensors) -> tuple[Float[Tensor, "B C H W"], Float[Tensor, "B K"]]:
        return tensors.real, tensors.real_conditions


class R2Penalty(_ZeroCenteredPenalty):
    """Penalty gamma / 2 E || grad D(G(z)) ||^2 at generated images."""

    name = "r2_penalty"

    def images(self, tensors: StepTensors) -> tuple[Float[Tensor, "B C H W"], Float[Tensor, "B K"]]:
        return tensors.fake, tensors.fake_conditions
