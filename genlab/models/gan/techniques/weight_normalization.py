"""Weight normalisation of the discriminator (Salimans & Kingma 2016, arXiv:1602.07868)."""

from torch import nn
from torch.nn.utils.parametrizations import weight_norm

from genlab.models.gan.discriminator import Discriminator
from genlab.models.gan.techniques.base import WeightTechnique


class WeightNormalization(WeightTechnique):
    """Each row of a weight matrix, or each filter, as a length and a direction, as in arXiv:1606.03498's experiments.

    Differs from the paper: no data-dependent initial values.
    """

    slope = "free"

    def parametrize(self, discriminator: Discriminator) -> None:
        for module in discriminator.modules():
            if isinstance(module, nn.Linear | nn.Conv2d):
                weight_norm(module)
