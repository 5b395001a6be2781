"""Layers of PyTorch that compute with functions.py, and families of layers from which networks are built.

The layers inherit from PyTorch's: the same shapes, the same initial weights from the same seed, the same state_dict.
A layer refuses, at construction, every argument that the derivation does not cover.

Dimensions: B batch, C channels, H height, W width.
"""

from abc import ABC, abstractmethod
from typing import Any, NamedTuple, NoReturn

from jaxtyping import Float
from torch import Tensor, nn

from genlab.nn.convolution.functions import Pair, WindowGrid, avg_pool2d, conv2d, conv_transpose2d, max_pool2d
from genlab.nn.transposed import ImageConvTranspose2d


class _Checked(nn.Module, ABC):
    """Base of a layer that is checked when it is constructed, and by :meth:`ConvolutionLayers.exchange_in`."""

    def __init__(self, *arguments: Any, **options: Any) -> None:
        super().__init__(*arguments, **options)
        self.check()

    @abstractmethod
    def check(self) -> None:
        """Refuse arguments that the derivation does not cover."""


class ReferenceConv2d(_Checked, nn.Conv2d):
    """:class:`torch.nn.Conv2d` on batches, without dilation and groups and with zeros around the image.

    Raises:
        ValueError: Something else is asked for.
    """

    def check(self) -> None:
        _require(self, dilation=(1, 1), groups=1, padding_mode="zeros")
        if isinstance(self.padding, str):
            _refuse(self, "padding", "a number of pixels", self.padding)

    def forward(self, input: Float[Tensor, "B C_in H_in W_in"]) -> Float[Tensor, "B C_out H_out W_out"]:
        return conv2d(input, self.weight, self.bias, stride=_pair(self.stride), padding=_pair(self.padding))


class ReferenceConvTranspose2d(_Checked, nn.ConvTranspose2d):
    """:class:`torch.nn.ConvTranspose2d` on batches, without dilation, groups and `output_size`.

    Raises:
        ValueError: Something else is asked for.
    """

    def check(self) -> None:
        _require(self, dilation=(1, 1), groups=1, padding_mode="zeros")

    def forward(
        self, input: Float[Tensor, "B C_in H_in W_in"], output_size: list[int] | None = None
    ) -> Float[Tensor, "B C_out H_out W_out"]:
        if output_size is not None:
            _refuse(self, "output_size", "None (use output_padding)", output_size)
        return conv_transpose2d(
            input,
            self.weight,
            self.bias,
            stride=_pair(self.stride),
            padding=_pair(self.padding),
            output_padding=_pair(self.output_padding),
        )


class ReferenceMaxPool2d(_Checked, nn.MaxPool2d):
    """:class:`torch.nn.MaxPool2d` on batches, without dilation, indices and half-filled windows.

    Raises:
        ValueError: Something else is asked for.
    """

    def check(self) -> None:
        _require(self, dilation=1, return_indices=False, ceil_mode=False)
        self.grid = _pooling_grid(self)

    def forward(self, input: Float[Tensor, "B C H_in W_in"]) -> Float[Tensor, "B C H_out W_out"]:
        return max_pool2d(input, self.grid)


class ReferenceAvgPool2d(_Checked, nn.AvgPool2d):
    """:class:`torch.nn.AvgPool2d` on batches; every mean is over the whole window, padding included.

    Raises:
        ValueError: Something else is asked for.
    """

    def check(self) -> None:
        _require(self, ceil_mode=False, count_include_pad=True, divisor_override=None)
        self.grid = _pooling_grid(self)

    def forward(self, input: Float[Tensor, "B C H_in W_in"]) -> Float[Tensor, "B C H_out W_out"]:
        return avg_pool2d(input, self.grid)


class ConvolutionLayers(NamedTuple):
    """A family of convolutions and poolings; called like those of torch.nn."""

    conv2d: type[nn.Conv2d]
    conv_transpose2d: type[nn.ConvTranspose2d]
    max_pool2d: type[nn.MaxPool2d]
    avg_pool2d: type[nn.AvgPool2d]

    def exchange_in(self, network: nn.Module) -> None:
        """Replace PyTorch's layers in a network by this family, with the same parameters and state_dict keys.

        Raises:
            ValueError: The family does not cover what a layer does, or there is no layer to exchange.
        """
        if self == builtin_layers():
            return
        families = dict(zip(builtin_layers(), self, strict=True)) | {ImageConvTranspose2d: self.conv_transpose2d}
        found = [
            (parent, name, families[type(layer)], layer)
            for parent in network.modules()
            for name, layer in parent.named_children()
            if type(layer) in families
        ]
        if not found:
            raise ValueError(
                f"model/layers has no effect on {type(network).__name__}, which has no convolution: leave it at "
                "builtin, or choose a convolutional network (dcgan)"
            )
        exchanged: list[Any] = []
        for _, _, kind, layer in found:
            exchanged.append(kind.__new__(kind))
            exchanged[-1].__dict__.update(layer.__dict__)
            exchanged[-1].check()
        for (parent, name, _, _), layer in zip(found, exchanged, strict=True):
            setattr(parent, name, layer)


def builtin_layers() -> ConvolutionLayers:
    """Return PyTorch's own layers."""
    return ConvolutionLayers(nn.Conv2d, nn.ConvTranspose2d, nn.MaxPool2d, nn.AvgPool2d)


def reference_layers() -> ConvolutionLayers:
    """Return the layers of this file: the same numbers up to rounding, at several times the cost."""
    return ConvolutionLayers(ReferenceConv2d, ReferenceConvTranspose2d, ReferenceMaxPool2d, ReferenceAvgPool2d)


def _require(layer: nn.Module, **expected: object) -> None:
    for name, value in expected.items():
        if getattr(layer, name) != value:
            _refuse(layer, name, repr(value), getattr(layer, name))


def _refuse(layer: nn.Module, name: str, rule: str, value: object) -> NoReturn:
    builtin = type(layer).__name__.removeprefix("Reference")
    raise ValueError(f"{name} of a reference layer must be {rule}, got {value!r}; torch.nn.{builtin} supports more")


def _pooling_grid(layer: nn.MaxPool2d | nn.AvgPool2d) -> WindowGrid:
    grid = WindowGrid(_pair(layer.kernel_size), _pair(layer.stride), _pair(layer.padding))
    if any(2 * pad > kernel for pad, kernel in zip(grid.padding, grid.kernel_size, strict=True)):
        # A window could lie in the padding alone and would have no maximum.
        _refuse(layer, "padding", f"at most half of kernel_size {grid.kernel_size}", grid.padding)
    return grid


def _pair(value: Any) -> Pair:
    """Return a size along both axes, from the sizes of torch.nn: one number or two."""
    vertical, horizontal = (value, value) if isinstance(value, int) else value
    return vertical, horizontal
