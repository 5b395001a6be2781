"""Historical averaging (Salimans et al. 2016, arXiv:1606.03498, section 3.3)."""

import torch
from torch import Tensor, nn

from genlab.models.gan.discriminator import Discriminator
from genlab.models.gan.techniques.base import StepTensors, TermTechnique
from genlab.models.ranges import require_between
from genlab.types import Loss


class HistoricalAveraging(TermTechnique):
    """Penalty on the distance of parameters to their past average, || theta - (1 / t) sum_i theta[i] ||^2.

    theta are the trained parameters of a network, without the head that reads InfoGAN's codes; under a
    parametrisation the weights that act are made of them. The averages are buffers: they are in every checkpoint, and
    a resumed run continues from them.

    Args:
        weight: Of the term; the paper gives none.

    Raises:
        ValueError: The weight is not between 1e-12 and 1e6.
    """

    needs_whole_batch = True
    num_seen: Tensor
    slope = "free"

    def __init__(self, *, weight: float) -> None:
        super().__init__()
        require_between("model.techniques.historical_averaging.weight", weight, 1e-12, 1e6)
        self.weight = weight
        self.register_buffer("num_seen", torch.zeros(2))  # of the generator, of the discriminator

    def prepare(self, generator: nn.Module, discriminator: Discriminator) -> None:
        for name, network in (("generator", generator), ("discriminator", discriminator)):
            for index, parameter in enumerate(network.parameters()):
                self.register_buffer(f"{name}_{index}", torch.zeros_like(parameter))

    def discriminator_term(self, tensors: StepTensors) -> Loss:
        return self._term("discriminator", tensors.discriminator, 1)

    def generator_term(self, tensors: StepTensors) -> Loss:
        return self._term("generator", tensors.generator, 0)

    def _term(self, name: str, network: nn.Module, place: int) -> Loss:
        parameters: list[Tensor] = list(network.parameters())
        averages = [self.get_buffer(f"{name}_{index}") for index in range(len(parameters))]
        with torch.no_grad():
            self.num_seen[place] += 1
            steps = torch._foreach_sub(parameters, averages)
            torch._foreach_div_(steps, self.num_seen[place])
            torch._foreach_add_(averages, steps)
        distances = torch._foreach_norm(torch._foreach_sub(parameters, averages))
        distance = torch.stack(distances).square().sum()
        return Loss(value=self.weight * distance, metrics={"historical_distance_squared": distance.detach()})
