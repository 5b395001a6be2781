"""Output activations of a generator, which define the range of the images of both networks."""

from abc import ABC, abstractmethod

import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor

Images = Float[Tensor, "B C H W"]


class ImageOutput(ABC):
    """An output function of a generator.

    Attributes:
        black: The value of a black sub-pixel; that of a white one is 1.
    """

    black: float

    @abstractmethod
    def __call__(self, logits: Images) -> Images:
        """Return the images of the generator's last layer."""

    def from_unit(self, images: Images) -> Images:
        """Return images in [0, 1] in the range of the networks."""
        return images * (1 - self.black) + self.black

    def to_unit(self, images: Images) -> Images:
        """Return images of the networks in [0, 1]."""
        return (images - self.black) / (1 - self.black)


class Tanh(ImageOutput):
    """Images in [-1, 1]."""

    black = -1.0

    def __call__(self, logits: Images) -> Images:
        return logits.tanh()


class Sigmoid(ImageOutput):
    """Images in [0, 1]."""

    black = 0.0

    def __call__(self, logits: Images) -> Images:
        return logits.sigmoid()


class Softplus(ImageOutput):
    """Images from 0 on without an upper bound, so that white sub-pixels keep their gradient; drawn clipped at 1."""

    black = 0.0

    def __call__(self, logits: Images) -> Images:
        return F.softplus(logits)

    def to_unit(self, images: Images) -> Images:
        return images.clamp(max=1.0)
