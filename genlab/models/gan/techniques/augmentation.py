"""Transformations of images by separate numbers for each image, for techniques that augment images.

Every function is differentiable by the images. Images are in [-1, 1], so that zero is grey.

Dimensions: B batch, C channels, H height, W width.
"""

from collections.abc import Sequence

import torch
from jaxtyping import Float, Int, Shaped
from torch import Tensor

Images = Float[Tensor, "B C H W"]
PerImage = Float[Tensor, " B"]
Pixels = Int[Tensor, " B"]


def per_pixel(values: Shaped[Tensor, " B"]) -> Shaped[Tensor, "B 1 1 1"]:
    """Return one number per image in a shape that broadcasts over its pixels."""
    return values[:, None, None, None]


def scaled_about(images: Images, center: Tensor | float, factor: PerImage) -> Images:
    """Move each pixel away from a center by a factor: contrast about a mean, saturation about the grey of the pixel."""
    return center + (images - center) * per_pixel(factor)


def whole_number(uniform: PerImage, num_values: int) -> Pixels:
    """Return uniform draws of [0, 1) as equally likely whole numbers from 0 to num_values - 1."""
    return (uniform * num_values).long()


def whole_shifts(uniform: Sequence[PerImage], images: Images, share: float) -> list[Pixels]:
    """Return uniform draws of [0, 1), one for each side, as equally likely moves of at most a share of that side.

    The share is rounded to whole pixels before the draw.
    """
    reach = [int(side * share + 0.5) for side in images.shape[2:]]
    return [whole_number(draw, 2 * most + 1) - most for draw, most in zip(uniform, reach, strict=True)]


def rounded_shifts(uniform: Sequence[PerImage], images: Images, share: float) -> list[Pixels]:
    """Return uniform draws of [0, 1), one for each side, as moves of at most a share of that side.

    The move is rounded to whole pixels, so that its largest values are less likely than the others.
    """
    return [
        ((2 * draw - 1) * share * side).round().long() for draw, side in zip(uniform, images.shape[2:], strict=True)
    ]


def translated(images: Images, rows: Pixels, columns: Pixels, *, reflects: bool) -> Images:
    """Move each image down and to the right by whole pixels, fewer than it has.

    Args:
        images: To move.
        rows: Pixels down.
        columns: Pixels to the right.
        reflects: True to fill the uncovered pixels with the image's own reflection; False for zeros.
    """
    for dim, shift in ((2, rows), (3, columns)):
        last = images.shape[dim] - 1
        source = torch.arange(last + 1, device=images.device) - shift[:, None]  # (B, side)
        shape = [len(images), 1, 1, 1]
        shape[dim] = last + 1
        inside = (last - (last - source.abs()).abs()) if reflects else source.clamp(0, last)
        images = images.gather(dim, inside.view(shape).expand_as(images))
        if not reflects:
            images = images * (source == inside).view(shape)
    return images


def cut_out(images: Images, rows: Pixels, columns: Pixels, *, height: int, width: int) -> Images:
    """Set a rectangle of each image to zero.

    Args:
        images: To cut.
        rows: Row of the middle of the rectangle; parts outside of the image are ignored.
        columns: Column of the middle, from the left.
        height: Of the rectangle.
        width: Of the rectangle.
    """
    down, across = (
        _between(side, middle - length // 2, length)
        for side, middle, length in ((images.shape[2], rows, height), (images.shape[3], columns, width))
    )
    return images * ~(down[:, None, :, None] & across[:, None, None, :])  # (B, 1, H, W)


def turned(images: Images, quarters: Pixels) -> Images:
    """Rotate each image by 0 to 3 quarter turns; an image that is not square is turned by two or not at all."""
    is_square = images.shape[2] == images.shape[3]
    for number in (1, 2, 3) if is_square else (2,):
        images = torch.where(per_pixel(quarters == number), torch.rot90(images, number, (2, 3)), images)
        quarters = torch.where(quarters == number, 0, quarters)  # turned once
    return images


def _between(side: int, first: Pixels, length: int) -> Tensor:
    places = torch.arange(side, device=first.device)
    return (places >= first[:, None]) & (places < first[:, None] + length)
