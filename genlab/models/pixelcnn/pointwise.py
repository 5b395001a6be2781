"""1x1 convolutions at a single pixel, for the decoders of masked networks.

Dimensions: n images, K values of a symbol.
"""

from collections.abc import Callable, Sequence
from itertools import pairwise

import torch
from jaxtyping import Float
from torch import Tensor, nn

from genlab.functional import at_least_float32
from genlab.nn.masked import BatchNorm, MaskedConv2d, PixelNorm, group_bounds

PixelMap = Callable[[Tensor, int], Tensor]
"""A function of one colour group of one pixel."""


def prefixes(buffer: Tensor, bounds: Sequence[int]) -> list[Tensor]:
    """Return for each group the channels up to and including it, as views of a buffer (n, channels) or (channels,)."""
    return [buffer[..., :high] for high in bounds[1:]]


def parts(buffer: Tensor, bounds: Sequence[int]) -> list[Tensor]:
    """Return for each group its channels, as views."""
    return [buffer[..., low:high] for low, high in pairwise(bounds)]


def fold(
    convolution: MaskedConv2d, norm: nn.Module
) -> tuple[Float[Tensor, "C_out C_in rows K_w"], Float[Tensor, " C_out"], PixelMap | None]:
    """Return weight and bias of a convolution with the normalisation after it, and the part that cannot be folded in.

    Raises:
        ValueError: The normalisation is of an unknown kind.
    """
    weight, bias = convolution.effective_weight(), convolution.bias
    match norm:
        case nn.Identity():
            return weight, bias, None
        case PixelNorm():
            return weight, bias, lambda x, group: norm.normalize_group(at_least_float32(x), group).to(x.dtype)
        case BatchNorm(running_mean=mean, running_var=variance) if mean is not None and variance is not None:
            scale = norm.weight * (variance + norm.eps).rsqrt()
            return weight * scale[:, None, None, None], (bias - mean) * scale + norm.bias, None
        case _:
            raise ValueError(f"cannot draw pixel by pixel through {type(norm).__name__}: use BatchNorm or PixelNorm")


class PixelLinear:
    """A masked 1x1 convolution, one colour group of one pixel at a time.

    Args:
        weight: (C_out, C_in, 1, 1), masked.
        bias: (C_out,).
        offset: Vector to add to the input, (C_in,); folded into the bias.
        convolution: The convolution whose groups are used.
        dtype: Of the products.
    """

    def __init__(self, weight: Tensor, bias: Tensor, offset: Tensor, convolution: MaskedConv2d, dtype: torch.dtype):
        matrix = weight[:, :, 0, 0].t()  # (C_in, C_out)
        biases = parts(bias + offset @ matrix, convolution.bounds_out)
        self.biases = [b.to(dtype) for b in biases]
        columns = parts(matrix, convolution.bounds_out)
        visible = zip(columns, convolution.bounds_in[1:], strict=True)
        self.weights = [column[:high].to(dtype).contiguous() for column, high in visible]


class PointwiseHead:
    """The 1x1 convolutions from a network's last features to the logits, with a ReLU before each but the first.

    Args:
        convolutions: All masked, the last one giving the logits.
        offset: Vector to add to the features, (C,).
        num_samples: Images drawn together.
        dtype: Of weights and activations; logits are fp32.
    """

    def __init__(self, convolutions: nn.ModuleList, offset: Tensor, num_samples: int, dtype: torch.dtype) -> None:
        self._layers: list[tuple[PixelLinear, list[Tensor], list[Tensor]]] = []
        for convolution in convolutions:
            assert isinstance(convolution, MaskedConv2d)
            linear = PixelLinear(convolution.effective_weight(), convolution.bias, offset, convolution, dtype)
            bounds = convolution.bounds_in
            features = offset.new_empty((num_samples, bounds[-1]), dtype=dtype)
            self._layers.append((linear, parts(features, bounds), prefixes(features, bounds)))
            offset = torch.zeros_like(convolution.bias)
        self.inputs = self._layers[0][1]
        """Group -> where the rectified features of a pixel are to be written, (n, C_g)."""
        self.bounds = group_bounds(len(offset), len(self.inputs))
        """Borders of the groups of the logits."""

    def logits(self, group: int) -> Float[Tensor, "n K"]:
        """Return the logits of the group whose features were written last."""
        for (linear, _, seen), (_, following, _) in zip(self._layers, self._layers[1:], strict=False):
            torch.addmm(linear.biases[group], seen[group], linear.weights[group], out=following[group])
            following[group].relu_()
        linear, _, seen = self._layers[-1]
        return at_least_float32(torch.addmm(linear.biases[group], seen[group], linear.weights[group]))
