"""Pictures of attention: images enlarged pixel by pixel, with windows drawn over them. Tensors in [0, 1] throughout.

Dimensions: N images, C channels, H height, W width, f enlargement factor, FH = f H, FW = f W.
"""

from typing import Final

import torch
from jaxtyping import Float
from torch import Tensor

from genlab.models.draw.attention import Window

Color = tuple[float, float, float]

# The colours of the paper's figures (arXiv:1502.04623, figs. 1 and 5): what is read is green, what is written is red.
GREEN: Final[Color] = (0.1, 0.8, 0.2)
RED: Final[Color] = (0.95, 0.15, 0.1)

_LEAST_SIDE = 112
_WIDEST_LINE = 0.04
"""Maximum width of the line, as a share of the picture's side, so that it does not hide the pixels of a window."""


def enlargement(height: int, width: int) -> int:
    """Return the factor f that makes the longer side of an image at least 112 pixels."""
    return -(-_LEAST_SIDE // max(height, width))


def enlarge(images: Float[Tensor, "N C H W"]) -> Float[Tensor, "N 3 FH FW"]:
    """Repeat every pixel f times along both axes, and grey over three channels; no interpolation blurs a pixel.

    Images of two or more than three channels show their mean.
    """
    factor = enlargement(*images.shape[-2:])
    shown = images if images.shape[1] in (1, 3) else images.mean(1, keepdim=True)
    large = shown.repeat_interleave(factor, 2).repeat_interleave(factor, 3)
    return large.expand(-1, 3, -1, -1).contiguous()


def outline_window(
    pictures: Float[Tensor, "N 3 FH FW"],
    window: Window,
    *,
    num_filters: int,
    factor: int,
    color: Color,
) -> Float[Tensor, "N 3 FH FW"]:
    """Draw the window of each image as an anti-aliased square; parts outside of a picture are cut off.

    The square runs through the outermost filters: its side is (num_filters - 1) strides. The line is sigma wide, but
    at least one pixel of the picture and at most a twenty-fifth of its longer side.

    Args:
        pictures: Images enlarged by :func:`enlarge`.
        window: The windows, in pixels of the images before they were enlarged.
        num_filters: N of the window, along one side.
        factor: By how much the images were enlarged.
        color: Red, green and blue in [0, 1].
    """
    height, width = pictures.shape[-2:]
    # Pixel a of the image covers [(a - 1) f, a f) of the picture, so its centre lies at (a - 0.5) f.
    center_x = (window.center_x - 0.5) * factor
    center_y = (window.center_y - 0.5) * factor
    columns = torch.arange(width, device=pictures.device) + 0.5
    rows = torch.arange(height, device=pictures.device) + 0.5
    from_x = (columns - center_x[:, None]).abs()[:, None, :]  # (N, 1, FW)
    from_y = (rows - center_y[:, None]).abs()[:, :, None]  # (N, FH, 1)
    half_side = (0.5 * factor * (num_filters - 1) * window.stride)[:, None, None]
    from_outline = (torch.maximum(from_x, from_y) - half_side).abs()  # (N, FH, FW)
    widest = max(1.0, _WIDEST_LINE * max(height, width))
    line_width = (factor * window.variance.sqrt()).clamp(1.0, widest)[:, None, None]
    opacity = (0.5 * line_width + 0.5 - from_outline).clamp(0, 1).unsqueeze(1)  # (N, 1, FH, FW)
    return torch.lerp(pictures, pictures.new_tensor(color)[:, None, None], opacity.to(pictures.dtype))
