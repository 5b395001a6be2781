"""Feature matching (Salimans et al. 2016, arXiv:1606.03498, section 3.1)."""

from genlab.functional import at_least_float32
from genlab.models.gan.techniques.base import StepTensors, TermTechnique
from genlab.models.ranges import require_between
from genlab.parallel.collectives import mean_over_processes
from genlab.types import Loss


class FeatureMatching(TermTechnique):
    """Distance between mean features of the discriminator over a batch, || E f(x) - E f(G(z)) ||^2.

    The batch's mean is matched, never one image's features with another's.

    Args:
        weight: Of the term.
        replaces_objective: True if the generator's own objective is left out, as in the paper.

    Raises:
        ValueError: The weight is not between 1e-6 and 1e6.
    """

    needs_whole_batch = True
    slope = "free"
    uses_bare_weights = False

    def __init__(self, *, weight: float, replaces_objective: bool) -> None:
        super().__init__()
        require_between("model.techniques.feature_matching.weight", weight, 1e-6, 1e6)
        self.weight = weight
        self.replaces_objective = replaces_objective

    def generator_term(self, tensors: StepTensors) -> Loss:
        real = at_least_float32(tensors.real_features).mean(0)
        fake = at_least_float32(tensors.fake_output.features).mean(0)
        difference = mean_over_processes(real - fake)
        distance = difference.square().sum()
        return Loss(value=self.weight * distance, metrics={"feature_distance_squared": distance.detach()})
