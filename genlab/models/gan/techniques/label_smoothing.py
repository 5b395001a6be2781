"""One-sided label smoothing (Salimans et al. 2016, arXiv:1606.03498, section 3.4)."""

from genlab.models.gan.objectives import Objective, SmoothedObjective
from genlab.models.gan.techniques.base import ObjectiveTechnique
from genlab.models.ranges import require_between


class LabelSmoothing(ObjectiveTechnique):
    """Smoothed targets of real images; those of generated images stay 0, or D would reward its own mistakes.

    Args:
        real_target: Between 0.5 and 1; 0.9 in the paper.

    Raises:
        ValueError: The target is out of range.
    """

    def __init__(self, *, real_target: float) -> None:
        super().__init__()
        require_between("model.techniques.label_smoothing.real_target", real_target, 0.5, 1.0)
        self.real_target = real_target

    def wrap(self, objective: Objective) -> Objective:
        return SmoothedObjective(objective, real_target=self.real_target)
