"""Spectral normalisation (Miyato et al. 2018, arXiv:1802.05957)."""

from torch import nn
from torch.nn.utils.parametrizations import spectral_norm

from genlab.models.gan.discriminator import Discriminator
from genlab.models.gan.techniques.base import WeightTechnique
from genlab.models.ranges import require_count


class SpectralNormalization(WeightTechnique):
    """Division of each weight matrix of the discriminator by its largest singular value, from power iteration.

    The singular vectors are buffers: they are in every checkpoint, and a resumed run uses them. A convolution's
    matrix is its kernel with the output channels as rows, as in the paper. An average of the weights shares the
    vectors of the trained ones, so that its norms are 1 within some per cent: only scores and accuracies of an
    evaluation depend on them.

    Args:
        num_power_iterations: At each pass in training; 1 in the paper.

    Raises:
        ValueError: The number is out of range.
    """

    slope = "one"
    bounds_layers_alone = True
    divides_by_norm = True

    def __init__(self, *, num_power_iterations: int) -> None:
        super().__init__()
        require_count("model.techniques.spectral_normalization.num_power_iterations", num_power_iterations)
        self.num_power_iterations = num_power_iterations

    def parametrize(self, discriminator: Discriminator) -> None:
        for module in discriminator.modules():
            if isinstance(module, nn.Linear | nn.Conv2d):
                spectral_norm(module, n_power_iterations=self.num_power_iterations)
