"""Weight normalisation (Salimans & Kingma 2016, arXiv:1602.07868): a weight as a length times a direction."""

from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn.init import normal_
from torch.nn.utils.parametrize import register_parametrization

SMALLEST_STD = 1e-6


class WeightLength(nn.Module):
    """The parametrisation w = g v / |v| with one length g per output, which starts at 1.

    Args:
        num_outputs: Rows of a matrix, or filters of a convolution.
        is_learned: True if g is trained; a fixed one is a buffer.
    """

    scale: Tensor

    def __init__(self, num_outputs: int, *, is_learned: bool) -> None:
        super().__init__()
        if is_learned:
            self.scale = nn.Parameter(torch.ones(num_outputs))
        else:
            self.register_buffer("scale", torch.ones(num_outputs))

    def forward(self, direction: Float[Tensor, "num_outputs ..."]) -> Float[Tensor, "num_outputs ..."]:
        """Return the normalised weight (eq. 2)."""
        # Written out it costs four times as much, which is a third of a step of fully connected networks.
        return torch._weight_norm(direction, self.scale.view(-1, *[1] * (direction.dim() - 1)), 0)


def normalize_weight(layer: nn.Linear | nn.Conv2d, *, learns_scale: bool, direction_std: float | None = None) -> None:
    """Parametrise the weight of a layer by a length and a direction.

    Args:
        layer: Gets ``parametrizations.weight``.
        learns_scale: True if the lengths are trained.
        direction_std: Standard deviation of new initial directions; None keeps those of the layer.
    """
    if direction_std is not None:
        normal_(layer.weight, 0.0, direction_std)
    register_parametrization(layer, "weight", WeightLength(len(layer.weight), is_learned=learns_scale))


def scale_of(layer: nn.Module) -> Tensor:
    """Return the lengths of a layer that :func:`normalize_weight` has changed."""
    length = layer.get_submodule("parametrizations.weight.0")
    assert isinstance(length, WeightLength)
    return length.scale


@contextmanager
def data_dependent_initialization(layers: Sequence[tuple[nn.Module, Tensor, float]]) -> Iterator[None]:
    """Let a forward pass in the context set lengths and biases so that the output of each layer is normalised.

    Each output channel gets mean 0 and a given standard deviation on that batch, from the first layer to the last in
    the order in which they run (section 3, equations 5 and 6). A layer without a bias keeps its means.

    Args:
        layers: Each with its lengths and the standard deviation.
    """

    def normalize(layer: nn.Module, scale: Tensor, target: float, output: Tensor) -> Tensor:
        dims = [dim for dim in range(output.dim()) if dim != 1]
        mean = output.mean(dims)
        std = output.std(dims) if output.numel() > len(mean) else torch.zeros_like(mean)
        # A channel that is the same everywhere has no scale to set: on a grid of one row, what looks above is blind.
        factor = torch.where(std > SMALLEST_STD, target / std, 1.0)
        scale.mul_(factor)
        if isinstance(layer.bias, Tensor):
            layer.bias.sub_(mean).mul_(factor)
        else:
            mean = torch.zeros_like(mean)
        shape = (1, -1, *[1] * (output.dim() - 2))
        return (output - mean.view(shape)) * factor.view(shape)

    with ExitStack() as hooks, torch.no_grad():
        for layer, scale, target in layers:
            hook = layer.register_forward_hook(
                lambda module, _, output, scale=scale, target=target: normalize(module, scale, target, output)
            )
            hooks.callback(hook.remove)
        yield
