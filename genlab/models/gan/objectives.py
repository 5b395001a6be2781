"""Objectives: the losses of both networks, as functions of the discriminator's scores.

A score is an unbounded number per image, larger for what looks real; no network here ends in a sigmoid. The
discriminator's loss is E[real(D(x))] + E[fake(D(G(z)))], averaged over the batch; each objective says what `real`,
`fake` and the generator's loss are. One that compares pairs takes differences of two scores in the place of scores.

Dimensions: B batch, R real images, P pairs.
"""

from abc import ABC, abstractmethod
from collections.abc import Sequence
from functools import cached_property
from types import MappingProxyType
from typing import ClassVar

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor

from genlab.measures import Measure
from genlab.models.ranges import require_between
from genlab.types import Loss

Scores = Float[Tensor, " B"]

# Scores far out on a ray and a thousand times as far: a loss that still falls by this much between them has no bound.
_FAR, _FARTHER = 1e3, 1e6
_LEAST_FALL = 1.0


GAME_MEASURES = MappingProxyType(
    {
        "score_real": Measure(unit="1", kind="exact", direction="neither"),
        "score_fake": Measure(unit="1", kind="estimate", direction="neither"),
        "accuracy_real": Measure(unit="1", kind="exact", direction="neither"),
        "accuracy_fake": Measure(unit="1", kind="estimate", direction="neither"),
    }
)
"""Of :meth:`Objective.game_metrics`. Each network's are measured against the other, so they order no models."""


def pair_differences(scores: Float[Tensor, " R"], others: Float[Tensor, " B"]) -> Float[Tensor, " P"]:
    """Return the differences of the i-th scores of two batches, up to the length of the shorter one."""
    num_pairs = min(len(scores), len(others))
    return scores[:num_pairs] - others[:num_pairs]


class Objective(ABC):
    """Base class of objectives: the losses of both networks."""

    unit: ClassVar[str] = "score"
    """Unit of the losses, which is the last part of their names."""
    decision_threshold: ClassVar[float | None] = None
    """Threshold of the score above which an image counts as real; None for a critic."""
    compares_pairs: ClassVar[bool] = False
    """True if the discriminator's loss is E[real(D(x) - D(G(z)))], and the generator's that of D(G(z)) - D(x)."""

    @abstractmethod
    def real(self, scores: Scores) -> Scores:
        """Return the discriminator's loss of each score of a real image."""

    @abstractmethod
    def fake(self, scores: Scores) -> Scores:
        """Return the discriminator's loss of each score of a generated image."""

    @abstractmethod
    def generator_loss(self, scores: Scores) -> Float[Tensor, ""]:
        """Return the generator's loss for the scores of its images."""

    def discriminator_loss(self, real_scores: Float[Tensor, " R"], fake_scores: Scores) -> Float[Tensor, ""]:
        """Return the sum of both terms, each averaged over its images; for pairs, the single term."""
        if self.compares_pairs:
            return self.real(pair_differences(real_scores, fake_scores)).mean()
        return self.real(real_scores).mean() + self.fake(fake_scores).mean()

    def margins(self, real_scores: Float[Tensor, " R"], fake_scores: Scores) -> Scores | None:
        """Return the distance of real images from the threshold, or from the fake image of their pair.

        Positive on the right side; None for a critic.
        """
        if self.compares_pairs:
            return pair_differences(real_scores, fake_scores)
        return None if self.decision_threshold is None else real_scores - self.decision_threshold

    def with_terms(self, adversarial: Float[Tensor, ""], terms: Sequence[Loss | None], *, weight: float) -> Loss:
        """Return the weighted loss of this objective and further terms; a term of weight zero is still logged."""
        metrics = {f"adversarial_{self.unit}": adversarial.detach()}
        value = weight * adversarial if weight else torch.zeros_like(adversarial)
        for term in terms:
            if term is not None:
                value = value + term.value
                metrics |= term.metrics
        return Loss(value=value, metrics=metrics)

    def game_metrics(self, real_scores: Float[Tensor, " R"], fake_scores: Scores) -> dict[str, Float[Tensor, "..."]]:
        """Return the scores, and with a threshold the accuracy: 1 for each on its correct side, else 0."""
        metrics = {"score_real": real_scores, "score_fake": fake_scores}
        if self.decision_threshold is not None:
            metrics["accuracy_real"] = (real_scores > self.decision_threshold).to(real_scores.dtype)
            metrics["accuracy_fake"] = (fake_scores <= self.decision_threshold).to(fake_scores.dtype)
        return metrics

    @cached_property
    def rewards_a_constant(self) -> bool:
        """True if adding a constant to all scores lowers the discriminator's loss without bound."""
        return self._falls_along(1.0, 1.0) or self._falls_along(-1.0, -1.0)

    @cached_property
    def needs_a_bounded_slope(self) -> bool:
        """True if ever larger differences between scores lower the discriminator's loss without bound."""
        return self._falls_along(1.0, -1.0)

    def _falls_along(self, real: float, fake: float) -> bool:
        """Return True if the loss falls without bound as real and generated images' scores move this way."""

        def loss(distance: float) -> float:
            scores = (torch.full((1,), distance * side, dtype=torch.float64, device="cpu") for side in (real, fake))
            return self.discriminator_loss(*scores).item()

        return loss(_FARTHER) < loss(_FAR) - _LEAST_FALL


class NonSaturating(Objective):
    """Cross-entropy; G maximises log D(G(z)) (Goodfellow et al. 2014, arXiv:1406.2661, section 3)."""

    unit = "nats"
    decision_threshold: ClassVar[float | None] = 0.0

    def real(self, scores: Scores) -> Scores:
        return F.softplus(-scores)  # -log sigmoid(s)

    def fake(self, scores: Scores) -> Scores:
        return F.softplus(scores)  # -log(1 - sigmoid(s))

    def generator_loss(self, scores: Scores) -> Float[Tensor, ""]:
        return F.softplus(-scores).mean()


class Minimax(NonSaturating):
    """Cross-entropy; G minimises log(1 - D(G(z))), equation 1 of arXiv:1406.2661: saturates when D wins."""

    def generator_loss(self, scores: Scores) -> Float[Tensor, ""]:
        return -F.softplus(scores).mean()


class Relativistic(NonSaturating):
    """Cross-entropy of the real image of each pair (Jolicoeur-Martineau 2018, arXiv:1807.00734: RSGAN).

    D minimises E[softplus(-(D(x) - D(G(z))))] and G the same with the two exchanged (arXiv:2501.05441).
    Under label smoothing with a target t, D's loss is t times this plus 1 - t times that of the exchanged pair.
    """

    decision_threshold = None
    compares_pairs = True


class LeastSquares(Objective):
    """Least squares with targets 1 for real, 0 for fake, 1 for the generator (arXiv:1611.04076, equation 9)."""

    unit = "squared_score"
    decision_threshold = 0.5

    def real(self, scores: Scores) -> Scores:
        return (scores - 1).square() / 2

    def fake(self, scores: Scores) -> Scores:
        return scores.square() / 2

    def generator_loss(self, scores: Scores) -> Float[Tensor, ""]:
        return self.real(scores).mean()


class Wasserstein(Objective):
    """The difference of mean scores (arXiv:1701.07875, equation 2); a technique must bound the critic's slope."""

    unit = "score"
    decision_threshold = None

    def real(self, scores: Scores) -> Scores:
        return -scores

    def fake(self, scores: Scores) -> Scores:
        return scores

    def generator_loss(self, scores: Scores) -> Float[Tensor, ""]:
        return -scores.mean()


class Hinge(Objective):
    """Hinges at +1 and -1 for the discriminator, the mean score for the generator (arXiv:1705.02894)."""

    unit = "score"
    decision_threshold = 0.0

    def real(self, scores: Scores) -> Scores:
        return F.relu(1 - scores)

    def fake(self, scores: Scores) -> Scores:
        return F.relu(1 + scores)

    def generator_loss(self, scores: Scores) -> Float[Tensor, ""]:
        return -scores.mean()


class SmoothedObjective(Objective):
    """Wrapper of an objective in which real images count as real with a weight below one, and as fake with the rest.

    For cross-entropy this is the target `real_target` in place of 1; for least squares it is the same up to a constant.

    Args:
        objective: The objective to smooth.
        real_target: Between 0.5 and 1; 1 changes nothing.

    Raises:
        ValueError: The target is out of range.
    """

    def __init__(self, objective: Objective, *, real_target: float) -> None:
        require_between("real_target", real_target, 0.5, 1.0)
        self.unit = objective.unit  # type: ignore[misc]
        self.decision_threshold = objective.decision_threshold  # type: ignore[misc]
        self.compares_pairs = objective.compares_pairs  # type: ignore[misc]
        self._objective = objective
        self._real_target = real_target

    def real(self, scores: Scores) -> Scores:
        target = self._real_target
        return target * self._objective.real(scores) + (1 - target) * self._objective.fake(scores)

    def fake(self, scores: Scores) -> Scores:
        return self._objective.fake(scores)

    def generator_loss(self, scores: Scores) -> Float[Tensor, ""]:
        return self._objective.generator_loss(scores)
