"""Differentiable attention: a grid of Gaussian filters laid over an image (DRAW, arXiv:1502.04623, section 3.2).

Dimensions: B batch, N grid points along one side, A width, H height, C channels, U units of the emitting layer.
Images have the layout (B, H, C, A): an image line holds its channels one below the other. Both filterings are then
batched matrix products of one filter bank with all channels, without a copy of the bank for each.
"""

import math
from typing import NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor, nn

# A parameter outside +-20 describes no window of any image (e^-20 to e^20 pixels), but the square of what it describes
# can overflow, and the gradient through an overflow is NaN.
_PARAMETER_LIMIT = 20.0


class AttentionBias(NamedTuple):
    """Initial values of the window parameters: the bias of the layer that emits them."""

    log_variance: float
    """log sigma^2, in pixels squared."""
    log_stride: float
    """log delta~, the stride relative to a grid that spans the image."""
    log_gamma: float
    """Log of the intensity: a read multiplies by gamma, a write divides by it."""


class Window(NamedTuple):
    """The window of each example in pixels; centres of pixels are at 1, 2, ..., so (1, 1) is the top left one."""

    center_x: Float[Tensor, " B"]
    center_y: Float[Tensor, " B"]
    stride: Float[Tensor, " B"]
    """Distance of neighbouring grid points; the window measures (N - 1) strides."""
    variance: Float[Tensor, " B"]
    gamma: Float[Tensor, " B"]


class FilterGrid(nn.Module):
    """N by N Gaussian filters for images of one size; it has no parameters of its own.

    Args:
        num_filters: N, the number of filters along each axis.
        height: Height of the image, in pixels.
        width: Width of the image, in pixels.
    """

    half_sides: Tensor
    log_units: Tensor
    offsets: Tensor
    rows: Tensor
    columns: Tensor

    def __init__(self, *, num_filters: int, height: int, width: int) -> None:
        super().__init__()
        self.num_filters = num_filters
        self.is_square = height == width
        # The stride of a grid that spans the longer side. A single filter (N = 1) has no stride to divide by, and its
        # offset is 0, so that any stride serves.
        span = (max(height, width) - 1) / (num_filters - 1) if num_filters > 1 else 1.0
        constants = {
            "half_sides": torch.tensor([(width + 1) / 2, (height + 1) / 2]),
            # Factors of variance, stride (eq. 24) and intensity, as logs.
            "log_units": torch.tensor([0.0, math.log(span) if span > 0 else 0.0, 0.0]),
            "offsets": torch.arange(1, num_filters + 1) - num_filters / 2 - 0.5,  # i - N/2 - 0.5, i = 1..N
            "rows": torch.arange(1.0, height + 1),
            "columns": torch.arange(1.0, width + 1),
        }
        for name, value in constants.items():
            self.register_buffer(name, value, persistent=False)

    def _decode(self, parameters: Float[Tensor, "B 5"]) -> tuple[Float[Tensor, "B 2"], tuple[Tensor, Tensor, Tensor]]:
        raw_centers, log_scales = parameters.clamp(-_PARAMETER_LIMIT, _PARAMETER_LIMIT).split_with_sizes([2, 3], 1)
        centers = torch.addcmul(self.half_sides, raw_centers, self.half_sides)  # eqs. 22, 23: (A+1)/2 (g~ + 1)
        variance, stride, gamma = torch.exp(log_scales + self.log_units).chunk(3, 1)  # eqs. 21, 24
        return centers, (variance, stride, gamma)

    def window(self, parameters: Float[Tensor, "B 5"]) -> Window:
        """Return the window that (gx~, gy~, log sigma^2, log delta~, log gamma) describe, in pixels (eqs. 21 to 24)."""
        centers, (variance, stride, gamma) = self._decode(parameters)
        return Window(centers[:, 0], centers[:, 1], stride[:, 0], variance[:, 0], gamma[:, 0])

    def filter_banks(self, parameters: Float[Tensor, "B 5"]) -> tuple[Float[Tensor, "B N H"], Float[Tensor, "B N A"]]:
        """Return the filter banks F_y and F_x (eqs. 19 to 26)."""
        filters_y, filters_x, _ = self(parameters)
        return filters_y, filters_x

    def forward(
        self, parameters: Float[Tensor, "B 5"]
    ) -> tuple[Float[Tensor, "B N H"], Float[Tensor, "B N A"], Float[Tensor, "B 1"]]:
        """Return the filter banks F_y and F_x and the intensity gamma (eqs. 19 to 26).

        A row is a softmax, which is the paper's exp(-(a - mu)^2 / (2 sigma^2)) over its sum, exactly, wherever the
        filter lies: the row of a filter far outside the image still sums to 1 (on the nearest pixels) where a sum
        that underflows would divide by zero.
        """
        centers, (variance, stride, gamma) = self._decode(parameters)
        means = torch.addcmul(centers.t().unsqueeze(2), self.offsets, stride)  # eqs. 19, 20   (2, B, N)
        precision = (-0.5 / variance).unsqueeze(2)  # (B, 1, 1)
        if self.is_square:  # both axes in one tensor: half the kernels
            distances = self.columns - means.unsqueeze(3)  # (2, B, N, A)
            filters_x, filters_y = torch.softmax(distances.square() * precision, -1).unbind(0)  # eqs. 25, 26
        else:
            means_x, means_y = means.unsqueeze(3).unbind(0)
            filters_x = torch.softmax((self.columns - means_x).square() * precision, -1)
            filters_y = torch.softmax((self.rows - means_y).square() * precision, -1)
        return filters_y, filters_x, gamma


class ReadAttention(nn.Module):
    """Layer that reads an N by N patch of an image through a window, which a recurrent state chooses (eq. 27).

    Args:
        num_units: U, size of that state.
        num_filters: N.
        height: Height of the image, in pixels.
        width: Width of the image, in pixels.
        initial_bias: Initial values of the window's parameters.
    """

    def __init__(
        self, *, num_units: int, num_filters: int, height: int, width: int, initial_bias: AttentionBias
    ) -> None:
        super().__init__()
        self.grid = FilterGrid(num_filters=num_filters, height=height, width=width)
        self.parameters_of = nn.Linear(num_units, 5)
        start_window(self.parameters_of, initial_bias)

    def window(self, hidden: Float[Tensor, "B U"]) -> Window:
        """Return the read window that this state chooses."""
        return self.grid.window(self.parameters_of(hidden))

    def forward(
        self, images: tuple[Float[Tensor, "B H C A"], ...], hidden: Float[Tensor, "B U"]
    ) -> tuple[Float[Tensor, "B P"], ...]:
        """Return gamma F_y x F_x^T of every channel of every image, flattened as (N, C, N) to P = N C N values."""
        # Positions in bfloat16 would be off by up to a tenth of a pixel: no autocast here.
        with torch.autocast(hidden.device.type, enabled=False):
            filters_y, filters_x, gamma = self.grid(self.parameters_of(hidden))
            batch_size, width = len(hidden), filters_x.shape[2]
            lines = [torch.bmm(filters_y, image.flatten(2)) for image in images]  # (B, N, C A) each
            stacked = torch.cat(lines, 1).view(batch_size, -1, width)  # (B, K N C, A) of K images
            patches: Tensor = gamma * torch.bmm(stacked, filters_x.transpose(1, 2)).view(batch_size, -1)
            return patches.chunk(len(images), 1)


class WriteAttention(nn.Module):
    """Layer that writes an N by N patch into an image through a window, both chosen by a state (eqs. 28, 29).

    Args:
        num_units: U, size of that state.
        num_filters: N.
        channels: C, channels of the image.
        height: Height of the image, in pixels.
        width: Width of the image, in pixels.
        initial_bias: Initial values of the window's parameters.
    """

    def __init__(
        self, *, num_units: int, num_filters: int, channels: int, height: int, width: int, initial_bias: AttentionBias
    ) -> None:
        super().__init__()
        self.grid = FilterGrid(num_filters=num_filters, height=height, width=width)
        self.num_patch_values = num_filters * channels * num_filters
        self.image_shape = (height, channels, width)
        # The patch and the window's parameters leave the same state: one layer and one product for both.
        self.patch_and_parameters = nn.Linear(num_units, self.num_patch_values + 5)
        start_window(self.patch_and_parameters, initial_bias)

    def window(self, hidden: Float[Tensor, "B U"]) -> Window:
        """Return the write window that this state chooses."""
        return self.grid.window(self.patch_and_parameters(hidden)[:, self.num_patch_values :])

    def forward(self, hidden: Float[Tensor, "B U"]) -> Float[Tensor, "B H C A"]:
        """Return 1/gamma F_y^T w F_x, with the same filters for every channel."""
        with torch.autocast(hidden.device.type, enabled=False):
            patch, parameters = self.patch_and_parameters(hidden).split_with_sizes([self.num_patch_values, 5], 1)
            filters_y, filters_x, gamma = self.grid(parameters)
            num_filters = self.grid.num_filters
            lines = torch.bmm((patch / gamma).view(len(patch), -1, num_filters), filters_x)  # (B, N C, A)
            lines = lines.view(len(patch), num_filters, -1)  # (B, N, C A)
            return torch.bmm(filters_y.transpose(1, 2), lines).view(-1, *self.image_shape)


@torch.no_grad()
def start_window(layer: nn.Linear, bias: AttentionBias) -> None:
    """Initialise the window of a layer's last five outputs: centred, with this variance, stride and intensity."""
    layer.bias[-5:] = layer.bias.new_tensor((0.0, 0.0, *bias))
