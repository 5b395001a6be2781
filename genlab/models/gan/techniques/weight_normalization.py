"""Weight normalisation of the discriminator (Salimans & Kingma 2016, arXiv:1602.07868)."""

from jaxtyping import Float
from torch import Tensor, nn

from genlab.models.gan.discriminator import Discriminator
from genlab.models.gan.techniques.base import WeightTechnique
from genlab.models.ranges import require_between
from genlab.nn.weight_norm import data_dependent_initialization, normalize_weight, scale_of


class WeightNormalization(WeightTechnique):
    """Parametrisation of each row or filter by a length and a direction, with data-dependent initialisation.

    Args:
        direction_std: Standard deviation of the initial directions. A learning rate turns long ones less: 0.05 in the
            paper, 0.1 in the MNIST experiment of arXiv:1606.03498.
        learns_scale: True if the lengths of hidden layers are trained. If False, they keep the values of the
            data-dependent initialisation, as in arXiv:1606.03498; those of the outputs are always trained.

    Raises:
        ValueError: The standard deviation is out of range.
    """

    slope = "free"

    def __init__(self, *, direction_std: float, learns_scale: bool) -> None:
        super().__init__()
        require_between("model.techniques.weight_normalization.direction_std", direction_std, 1e-6, 1e3)
        self.direction_std = direction_std
        self.learns_scale = learns_scale

    def parametrize(self, discriminator: Discriminator) -> None:
        for layer in _layers(discriminator):
            is_learned = self.learns_scale or layer in (discriminator.output, discriminator.embedding)
            normalize_weight(layer, learns_scale=is_learned, direction_std=self.direction_std)

    def initialize(
        self, discriminator: Discriminator, images: Float[Tensor, "B C H W"], conditions: Float[Tensor, "B K"]
    ) -> None:
        # The score sums the products of all features with those of the class.
        of_embedding = discriminator.output.in_features**-0.5
        deviations = (
            (layer, scale_of(layer), of_embedding if layer is discriminator.embedding else 1.0)
            for layer in _layers(discriminator)
        )
        with data_dependent_initialization([*deviations]):
            discriminator(images, conditions)


def _layers(discriminator: Discriminator) -> list[nn.Linear | nn.Conv2d]:
    return [module for module in discriminator.modules() if isinstance(module, nn.Linear | nn.Conv2d)]
