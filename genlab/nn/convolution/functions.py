"""The gradients of step_by_step.py as autograd functions of every order, in matrix products instead of loops.

A convolution is the trilinear form

    T(x, w, z) = sum_{b,o,p} z[b,o,p] sum_{c,k} w[o,c,k] x[b,c,k at p]

seen from one of its three sides: dT/dz is the convolution of x with w, dT/dx is what the backward pass hands to the
image (the transposed convolution of z with w), dT/dw what it hands to the filter (the correlation of x with z). The
gradients of any of the three are the other two, so backward passes can be differentiated again, as a gradient penalty
does. The poolings are linear maps, the maximum one once it is known where the maxima lie; their gradients are the
transposed maps, whose gradients are the maps themselves.

Dimensions: B batch, C channels, H height, W width, K pixels of a window, L = P Q windows of an image in P rows and Q
columns, O output channels.
"""

from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from torch import Tensor

Pair = tuple[int, int]


class WindowGrid(NamedTuple):
    """The positions of windows on an image; every member is (vertical, horizontal), in pixels."""

    kernel_size: Pair
    stride: Pair
    padding: Pair

    @property
    def num_pixels(self) -> int:
        """The number K of pixels of a window."""
        return self.kernel_size[0] * self.kernel_size[1]

    def shape(self, height: int, width: int) -> Pair:
        """Return rows and columns of windows on an image.

        Raises:
            ValueError: No window fits.
        """
        padded = (height + 2 * self.padding[0], width + 2 * self.padding[1])
        if self.kernel_size[0] > padded[0] or self.kernel_size[1] > padded[1]:
            raise ValueError(f"kernel_size must be at most {padded} (the padded image), got {self.kernel_size}")
        rows, columns = (
            (side - kernel) // stride + 1
            for side, kernel, stride in zip(padded, self.kernel_size, self.stride, strict=True)
        )
        return rows, columns

    def cut(self, images: Float[Tensor, "B C H W"]) -> Float[Tensor, "B C K L"]:
        """Return every window of every channel, with zeros outside of the image (im2col)."""
        columns = F.unfold(images, self.kernel_size, padding=self.padding, stride=self.stride)  # (B, C K, L)
        return columns.view(*images.shape[:2], self.num_pixels, columns.shape[2])

    def paste(self, windows: Float[Tensor, "B C K L"], size: Pair) -> Float[Tensor, "B C H W"]:
        """Add windows into images of the given size (col2im); the transpose of :meth:`cut`."""
        return F.fold(windows.flatten(1, 2), size, self.kernel_size, padding=self.padding, stride=self.stride)


class Convolution(torch.autograd.Function):
    """dT/dz: x (B, C, H, W) and w (O, C, K_h, K_w) to z (B, O, P, Q)."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, w: Tensor, grid: WindowGrid) -> Tensor:
        ctx.save_for_backward(x, w)
        ctx.grid = grid
        shape = grid.shape(*x.shape[2:])
        windows = grid.cut(x).flatten(1, 2)  # (B, C K, L)
        z = w.flatten(1) @ windows  # (B, O, L)
        return z.view(*z.shape[:2], *shape)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, Tensor | None, None]:
        (dz,) = gradients
        x, w = ctx.saved_tensors
        dx = InputGradient.apply(dz, w, ctx.grid, x.shape[2:]) if ctx.needs_input_grad[0] else None
        dw = WeightGradient.apply(x, dz, ctx.grid) if ctx.needs_input_grad[1] else None
        return dx, dw, None


class InputGradient(torch.autograd.Function):
    """dT/dx: z (B, O, P, Q) and w (O, C, K_h, K_w) to x (B, C, H, W).

    The size of x is an argument, because several sizes give the same P and Q.
    """

    @staticmethod
    def forward(ctx: Any, z: Tensor, w: Tensor, grid: WindowGrid, size: Pair) -> Tensor:
        ctx.save_for_backward(z, w)
        ctx.grid = grid
        windows = w.flatten(1).t() @ z.flatten(2)  # (B, C K, L)
        return grid.paste(windows.view(len(z), w.shape[1], grid.num_pixels, windows.shape[2]), size)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, Tensor | None, None, None]:
        (dx,) = gradients
        z, w = ctx.saved_tensors
        dz = Convolution.apply(dx, w, ctx.grid) if ctx.needs_input_grad[0] else None
        dw = WeightGradient.apply(dx, z, ctx.grid) if ctx.needs_input_grad[1] else None
        return dz, dw, None, None


class WeightGradient(torch.autograd.Function):
    """dT/dw: x (B, C, H, W) and z (B, O, P, Q) to w (O, C, K_h, K_w)."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, z: Tensor, grid: WindowGrid) -> Tensor:
        ctx.save_for_backward(x, z)
        ctx.grid = grid
        windows = grid.cut(x).flatten(1, 2)  # (B, C K, L)
        w = torch.einsum("bol,bkl->ok", z.flatten(2), windows)  # (O, C K)
        return w.view(z.shape[1], x.shape[1], *grid.kernel_size)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, Tensor | None, None]:
        (dw,) = gradients
        x, z = ctx.saved_tensors
        dx = InputGradient.apply(z, dw, ctx.grid, x.shape[2:]) if ctx.needs_input_grad[0] else None
        dz = Convolution.apply(x, dw, ctx.grid) if ctx.needs_input_grad[1] else None
        return dx, dz, None


class AddBias(torch.autograd.Function):
    """The bias (C,), added to every pixel once; its gradient is the sum over all pixels it was added to."""

    @staticmethod
    def forward(ctx: Any, z: Tensor, bias: Tensor) -> Tensor:
        del ctx
        return z + bias[:, None, None]

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, Tensor | None]:
        (dz,) = gradients
        return dz, dz.sum((0, 2, 3)) if ctx.needs_input_grad[1] else None


class WindowMean(torch.autograd.Function):
    """The mean of every window, padding counted: (B, C, H, W) to (B, C, P, Q)."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, grid: WindowGrid) -> Tensor:
        ctx.grid, ctx.size = grid, x.shape[2:]
        shape = grid.shape(*x.shape[2:])
        return grid.cut(x).mean(2).view(*x.shape[:2], *shape)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, None]:
        return WindowShare.apply(gradients[0], ctx.grid, ctx.size), None


class WindowShare(torch.autograd.Function):
    """The transpose of :class:`WindowMean`: equal shares to all pixels of a window, (B, C, P, Q) to (B, C, H, W)."""

    @staticmethod
    def forward(ctx: Any, z: Tensor, grid: WindowGrid, size: Pair) -> Tensor:
        ctx.grid = grid
        shares = (z.flatten(2) / grid.num_pixels)[:, :, None].expand(-1, -1, grid.num_pixels, -1)  # (B, C, K, L)
        return grid.paste(shares, size)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, None, None]:
        return WindowMean.apply(gradients[0], ctx.grid), None, None


class Pick(torch.autograd.Function):
    """Selection of the pixels of x (B, C, H, W) at positions in the flattened image, both (B, C, P, Q)."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, positions: Tensor) -> Tensor:
        ctx.save_for_backward(positions)
        ctx.size = x.shape[2:]
        return x.flatten(2).gather(2, positions.flatten(2)).view(positions.shape)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, None]:
        (positions,) = ctx.saved_tensors
        return Place.apply(gradients[0], positions, ctx.size), None


class Place(torch.autograd.Function):
    """The transpose of :class:`Pick`: values (B, C, P, Q) added at their positions of an empty image (B, C, H, W)."""

    @staticmethod
    def forward(ctx: Any, z: Tensor, positions: Tensor, size: Pair) -> Tensor:
        ctx.save_for_backward(positions)
        image = z.new_zeros(*z.shape[:2], size[0] * size[1])
        return image.scatter_add_(2, positions.flatten(2), z.flatten(2)).view(*z.shape[:2], *size)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, None, None]:
        (positions,) = ctx.saved_tensors
        return Pick.apply(gradients[0], positions), None, None


@torch.no_grad()
def locate_maxima(x: Float[Tensor, "B C H W"], grid: WindowGrid) -> Int[Tensor, "B C P Q"]:
    """Return the index of every window's maximum in the flattened image: the first in reading order, as in PyTorch."""
    num_rows, num_columns = grid.shape(*x.shape[2:])
    top, left = grid.padding
    padded = F.pad(x, (left, left, top, top), value=-torch.inf)
    # Both max and argmax return the first of several maxima; max does it seven times as fast on a CPU.
    _, first = grid._replace(padding=(0, 0)).cut(padded).max(2)
    within = first.view(*x.shape[:2], num_rows, num_columns)
    window_row = torch.arange(num_rows, device=x.device)[:, None] * grid.stride[0] - top
    window_column = torch.arange(num_columns, device=x.device) * grid.stride[1] - left
    # In a window of nothing but -inf the first maximum would lie in the padding; its first pixel is taken instead.
    row = (window_row + within // grid.kernel_size[1]).clamp(min=0)
    column = (window_column + within % grid.kernel_size[1]).clamp(min=0)
    return row * x.shape[3] + column


def conv2d(
    x: Float[Tensor, "B C H W"],
    w: Float[Tensor, "O C K_h K_w"],
    bias: Float[Tensor, " O"] | None = None,
    *,
    stride: Pair = (1, 1),
    padding: Pair = (0, 0),
) -> Float[Tensor, "B O P Q"]:
    """Return the convolution (a cross-correlation, as everywhere in this field) plus bias.

    Raises:
        ValueError: The kernel is larger than the padded image.
    """
    x, w = autocast(x), autocast(w)
    z: Tensor = Convolution.apply(x, w, WindowGrid((w.shape[2], w.shape[3]), stride, padding))
    return z if bias is None else add_bias(z, bias)


def conv_transpose2d(
    z: Float[Tensor, "B O P Q"],
    w: Float[Tensor, "O C K_h K_w"],
    bias: Float[Tensor, " C"] | None = None,
    *,
    stride: Pair = (1, 1),
    padding: Pair = (0, 0),
    output_padding: Pair = (0, 0),
) -> Float[Tensor, "B C H W"]:
    """Return the gradient of :func:`conv2d` with respect to its image, as a forward pass, plus bias.

    As many consecutive sizes of the image as the stride give one size of z; `output_padding` counts from the least.

    Raises:
        ValueError: `output_padding` is as large as the stride, or the image would be empty.
    """
    kernel_size = (w.shape[2], w.shape[3])
    if output_padding[0] >= stride[0] or output_padding[1] >= stride[1]:
        raise ValueError(f"output_padding must be smaller than stride {stride}, got {output_padding}")
    height, width = (
        (z.shape[2 + i] - 1) * stride[i] - 2 * padding[i] + kernel_size[i] + output_padding[i] for i in (0, 1)
    )
    if height < 1 or width < 1:
        raise ValueError(f"padding must leave at least one pixel of the output, got {padding}")
    z, w = autocast(z), autocast(w)
    x: Tensor = InputGradient.apply(z, w, WindowGrid(kernel_size, stride, padding), (height, width))
    return x if bias is None else add_bias(x, bias)


def add_bias(z: Float[Tensor, "B C H W"], bias: Float[Tensor, " C"]) -> Float[Tensor, "B C H W"]:
    """Return z plus the bias of each channel, added once to every pixel."""
    shifted: Tensor = AddBias.apply(z, autocast(bias))
    return shifted


def max_pool2d(x: Float[Tensor, "B C H W"], grid: WindowGrid) -> Float[Tensor, "B C P Q"]:
    """Return the maximum of every window; the first of equal maxima gets the gradient, as in PyTorch."""
    picked: Tensor = Pick.apply(x, locate_maxima(x, grid))
    return picked


def avg_pool2d(x: Float[Tensor, "B C H W"], grid: WindowGrid) -> Float[Tensor, "B C P Q"]:
    """Return the mean of every window, zeros of the padding included."""
    mean: Tensor = WindowMean.apply(x, grid)
    return mean


def autocast(x: Tensor) -> Tensor:
    """Convert as autocast converts the inputs of PyTorch's own convolutions; without autocast return the input."""
    device = x.device.type
    if torch.is_autocast_enabled(device) and x.dtype != torch.float64:
        return x.to(torch.get_autocast_dtype(device))
    return x
