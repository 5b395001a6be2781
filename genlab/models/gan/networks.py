"""Base classes, normalisations and initialisations that generators and discriminators share.

Networks see images in the range of the generator's output; the GAN converts at its door. Nothing here knows the batch
size: the last, smaller batch of an epoch is a batch like any other.

Dimensions: B batch, C channels, H height, W width, I inputs of the generator, F features, M maps, K conditions or
classes.
"""

from abc import ABC, abstractmethod
from collections.abc import Callable

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import init

from genlab.parallel.collectives import draw_rows
from genlab.types import ImageSpec

Normalization = Callable[[int], nn.Module]
"""Called with the number of features."""


class GeneratorNetwork(nn.Module, ABC):
    """Base class of generators: noise and conditions to images before the output function (``model/output``)."""

    @abstractmethod
    def forward(self, inputs: Float[Tensor, "B I"]) -> Float[Tensor, "B C H W"]:
        """Return one unbounded image for each input."""


class DiscriminatorNetwork(nn.Module, ABC):
    """Base class of discriminators: images and conditions to features; the score is a linear function of these.

    Attributes:
        num_features: F.
        output_noise: Standard deviation of the noise between the features and the outputs, in training.
        has_zero_weights: True if all weights of a layer start at zero, which leaves nothing to divide by their norm.
    """

    num_features: int
    output_noise: float = 0.0
    has_zero_weights: bool = False

    @abstractmethod
    def forward(self, images: Float[Tensor, "B C H W"], conditions: Float[Tensor, "B K"]) -> Float[Tensor, "B F"]:
        """Return the features of images; K is 0 without conditioning."""


class Unnormalized(nn.Identity):
    """Placeholder of a normalisation, which a technique may replace.

    Args:
        num_features: Features, or channels, that pass.
    """

    def __init__(self, num_features: int) -> None:
        super().__init__()
        self.num_features = num_features


class BatchNorm1d(nn.BatchNorm1d):
    """Batch normalisation per feature, to be named in configurations."""

    def __init__(self, num_features: int) -> None:
        super().__init__(num_features)


class BatchNorm1dWithoutGain(BatchNorm1d):
    """Batch normalisation per feature with a shift and no gain, as in the MNIST experiment of arXiv:1606.03498.

    Of maps it is per channel, so that the networks of the experiment can be replaced by convolutional ones.
    """

    def __init__(self, num_features: int) -> None:
        super().__init__(num_features)
        del self.weight
        self.register_buffer("weight", torch.ones(num_features))

    def _check_input_dim(self, input: Tensor) -> None:
        del input


class BatchNorm2d(nn.BatchNorm2d):
    """Batch normalisation per channel, to be named in configurations."""

    def __init__(self, num_features: int) -> None:
        super().__init__(num_features)


class ConditionalBatchNorm2d(nn.Module):
    """Batch normalisation with a gain and a shift for each class (de Vries et al. 2017, arXiv:1707.00683).

    An image without a class has a gain of 1 and a shift of 0, where those of every class begin.

    Args:
        num_features: Channels.
        num_classes: K.
    """

    def __init__(self, num_features: int, *, num_classes: int) -> None:
        super().__init__()
        self.norm = nn.BatchNorm2d(num_features, affine=False)
        self.excess_gain = nn.Parameter(torch.zeros(num_classes, num_features))
        self.shift = nn.Parameter(torch.zeros(num_classes, num_features))

    def forward(self, x: Float[Tensor, "B C H W"], classes: Float[Tensor, "B K"]) -> Float[Tensor, "B C H W"]:
        gain, shift = 1 + classes @ self.excess_gain, classes @ self.shift  # (B, C) each
        y: Tensor = self.norm(x) * gain[:, :, None, None] + shift[:, :, None, None]
        return y


def noise_like(x: Float[Tensor, "B ..."]) -> Float[Tensor, "B ..."]:
    """Return standard normal noise for each element of a batch, which several processes draw as one."""
    return draw_rows(lambda rows: torch.randn(rows, *x.shape[1:], dtype=x.dtype, device=x.device), len(x))


class GaussianNoiseLayer(nn.Module):
    """Layer that adds N(0, std^2) in training only (arXiv:1606.03498, the code of its MNIST experiments)."""

    def __init__(self, std: float) -> None:
        super().__init__()
        self.std = std

    def forward(self, x: Float[Tensor, "..."]) -> Float[Tensor, "..."]:
        if not self.training:
            return x
        return x + self.std * noise_like(x)

    def extra_repr(self) -> str:
        return f"std={self.std}"


def normalized(normalization: Normalization | None, num_features: int) -> nn.Module:
    """Return the normalisation of one layer, or a placeholder for it."""
    return Unnormalized(num_features) if normalization is None else normalization(num_features)


def with_planes(images: Float[Tensor, "B C H W"], conditions: Float[Tensor, "B K"]) -> Float[Tensor, "B channels H W"]:
    """Return each condition as one more channel, constant over the image, channels last."""
    if conditions.shape[1] > 0:
        planes = conditions[:, :, None, None].expand(-1, -1, *images.shape[2:])
        images = torch.cat((images, planes), 1)  # (B, C + K, H, W)
    return images.contiguous(memory_format=torch.channels_last)


def as_maps(features: Float[Tensor, "B F"], shape: tuple[int, int, int]) -> Float[Tensor, "B M H W"]:
    """Return features as maps, channels last: convolutions on the CPU and tensor cores are faster so, and keep it."""
    return torch.unflatten(features, 1, shape).contiguous(memory_format=torch.channels_last)


def require_divisible_by_four(spec: ImageSpec) -> None:
    """Refuse images whose sides are not divisible by four.

    Raises:
        ValueError: The height or the width is no multiple of 4.
    """
    if spec.height % 4 or spec.width % 4:
        raise ValueError(
            "model: a convolutional GAN needs an image height and width divisible by 4, "
            f"got {spec.height}x{spec.width}: resize or pad the data, or use model=gan"
        )


def num_halvings(spec: ImageSpec, *, smallest: int = 4) -> int:
    """Return the number of halvings: at least two, then until a side is odd or the smaller side at most `smallest`."""
    height, width, count = spec.height, spec.width, 0
    while height % 2 == 0 and width % 2 == 0 and (count < 2 or min(height, width) > smallest):
        height, width, count = height // 2, width // 2, count + 1
    return count


def initialize_normal(network: nn.Module, *, std: float) -> None:
    """Draw the weights of linear and convolutional layers from N(0, std^2), as in arXiv:1511.06434; biases zero."""
    for module in _weighted(network):
        init.normal_(module.weight, 0.0, std)
        if module.bias is not None:
            init.zeros_(module.bias)


def flattened(maps: Float[Tensor, "B ..."]) -> Float[Tensor, "B F"]:
    """Return the maps of each image as one vector; their gradient comes back channels last, as the maps are laid out.

    Otherwise an activation before them would meet its input in one order and the gradient in another, which takes a
    CPU ten times as long.
    """
    # A compiler chooses the orders itself.
    is_laid_out = maps.dim() == 4 and maps.is_contiguous(memory_format=torch.channels_last)
    if is_laid_out and maps.requires_grad and not torch.compiler.is_compiling():
        maps.register_hook(_lay_out)  # type: ignore[no-untyped-call]
    return maps.flatten(1)


def _lay_out(maps: Tensor) -> Tensor:
    return maps.contiguous(memory_format=torch.channels_last)


class Flatten(nn.Module):
    """Layer that gives each image's maps as one vector, as :func:`flattened` does."""

    def forward(self, maps: Float[Tensor, "B ..."]) -> Float[Tensor, "B F"]:
        return flattened(maps)


def lay_out_for_convolutions(network: nn.Module) -> None:
    """Keep convolution weights in the memory order of the activations: otherwise each pass reorders them."""
    network.to(memory_format=torch.channels_last)


def initialize_xavier(network: nn.Module) -> None:
    """Draw Xavier-uniform weights of linear and convolutional layers (Glorot & Bengio 2010); biases zero."""
    for module in _weighted(network):
        init.xavier_uniform_(module.weight)
        if module.bias is not None:
            init.zeros_(module.bias)


def _weighted(network: nn.Module) -> list[nn.Linear | nn.Conv2d | nn.ConvTranspose2d]:
    return [m for m in network.modules() if isinstance(m, nn.Linear | nn.Conv2d | nn.ConvTranspose2d)]
