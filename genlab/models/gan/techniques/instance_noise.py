"""Instance noise (Arjovsky & Bottou 2017, arXiv:1701.04862, section 3; Sonderby et al. 2016, arXiv:1610.04490).

Differs from the papers: the noise does not fade. Equal distributions with noise are equal distributions without.
"""

from jaxtyping import Float
from torch import Tensor

from genlab.models.gan.networks import noise_like
from genlab.models.gan.techniques.base import ImageTechnique
from genlab.models.ranges import require_between


class InstanceNoise(ImageTechnique):
    """Gaussian noise on all images of the discriminator, so that the two distributions overlap.

    Args:
        std: Standard deviation, in units of [-1, 1].

    Raises:
        ValueError: It is not between 1e-6 and 10.
    """

    def __init__(self, *, std: float) -> None:
        super().__init__()
        require_between("model.techniques.instance_noise.std", std, 1e-6, 10.0)
        self.std = std

    def transform(self, images: Float[Tensor, "B C H W"]) -> Float[Tensor, "B C H W"]:
        return images + self.std * noise_like(images)
