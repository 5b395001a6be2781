"""Virtual batch normalisation of the generator (Salimans et al. 2016, arXiv:1606.03498, section 3.5).

Dimensions: B batch, R reference inputs, I inputs, F features or channels, C channels, H height, W width.
"""

import torch
from jaxtyping import Float
from torch import Tensor, nn

from genlab.functional import at_least_float32
from genlab.models.gan.networks import Unnormalized
from genlab.models.gan.techniques.base import LayerTechnique, Parts
from genlab.models.ranges import require_count

_EPSILON = 1e-5


class VirtualBatchNorm(nn.Module):
    """Layer that normalises each example by the statistics of a reference batch and of the example itself.

    The first R rows are the reference batch. Row i is normalised by the mean and variance of the reference batch
    joined by row i, R + 1 examples in all; a reference row by those of the reference batch. No row depends on any
    other row that is not of the reference.

    Args:
        num_features: F.
        num_reference: R.
    """

    def __init__(self, num_features: int, *, num_reference: int) -> None:
        super().__init__()
        self.num_reference = num_reference
        self.weight = nn.Parameter(torch.ones(num_features))
        self.bias = nn.Parameter(torch.zeros(num_features))

    def forward(self, x: Float[Tensor, "rows F ..."]) -> Float[Tensor, "rows F ..."]:
        spatial = tuple(range(2, x.dim()))
        # In fp32 under autocast, too: statistics of many numbers lose digits.
        wide = at_least_float32(x)
        reference = wide[: self.num_reference]
        reference_variance, reference_mean = torch.var_mean(reference, (0, *spatial), correction=0, keepdim=True)
        if spatial:
            own_variance, own_mean = torch.var_mean(wide, spatial, correction=0, keepdim=True)  # (rows, F, 1, 1)
        else:
            own_variance, own_mean = torch.zeros_like(wide), wide  # (rows, F)
        own_share = torch.full_like(own_mean, 1 / (self.num_reference + 1))
        own_share[: self.num_reference] = 0
        # Mean and variance of a mixture of two parts. A difference of squares would be simpler, and lose all digits
        # where the mean is large.
        distance = own_mean - reference_mean
        mean = reference_mean + own_share * distance
        variance = (
            reference_variance
            + own_share * (own_variance - reference_variance)
            + own_share * (1 - own_share) * distance.square()
        )
        shape = (1, -1, *[1] * len(spatial))
        scale = (variance + _EPSILON).rsqrt() * self.weight.view(shape)
        normalized = (wide - mean) * scale + self.bias.view(shape)
        return normalized.to(x.dtype)


class ReferencedGenerator(nn.Module):
    """A generator that puts the reference inputs in front of every batch.

    Args:
        network: With virtual batch normalisation inside.
        reference: Drawn once, at the start; a buffer, hence in every checkpoint.
    """

    reference: Tensor

    def __init__(self, network: nn.Module, reference: Float[Tensor, "R I"]) -> None:
        super().__init__()
        self.network = network
        self.register_buffer("reference", reference)

    def forward(self, inputs: Float[Tensor, "B I"]) -> Float[Tensor, "B C H W"]:
        images: Tensor = self.network(torch.cat((self.reference, inputs)))
        return images[len(self.reference) :]


class VirtualBatchNormalization(LayerTechnique):
    """Replacement of every normalisation of the generator, or placeholder of one, by a virtual one.

    The generator only, as in the paper, because the reference batch makes every pass larger.

    Args:
        num_reference: Size of the reference batch, at least 2.

    Raises:
        ValueError: The number is out of range.
    """

    couples_images = False
    slope = "free"
    uses_bare_weights = False

    def __init__(self, *, num_reference: int) -> None:
        super().__init__()
        require_count("model.techniques.virtual_batch_norm.num_reference", num_reference, 2)
        self.num_reference = num_reference

    def rebuild(self, parts: Parts) -> None:
        replaced = {
            name: module
            for name, module in parts.generator.named_modules()
            if isinstance(module, nn.BatchNorm1d | nn.BatchNorm2d | Unnormalized)
        }
        if not replaced:
            raise ValueError(
                f"model.techniques.virtual_batch_norm finds no normalisation in {type(parts.generator).__name__} to "
                "replace: set it to null, or choose another model/generator"
            )
        for name, module in replaced.items():
            virtual = VirtualBatchNorm(module.num_features, num_reference=self.num_reference)
            parts.generator.set_submodule(name, virtual)
        parts.generator = ReferencedGenerator(parts.generator, parts.draw_inputs(self.num_reference))
