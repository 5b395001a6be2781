"""Differentiable augmentation (Zhao et al. 2020, arXiv:2006.10738).

Saturation does nothing to images of one channel.
"""

import torch
from jaxtyping import Float
from torch import Tensor

from genlab.functional import at_least_float32
from genlab.models.gan.techniques.augmentation import (
    cut_out,
    per_pixel,
    scaled_about,
    translated,
    whole_number,
    whole_shifts,
)
from genlab.models.gan.techniques.base import ImageTechnique
from genlab.models.ranges import require_between
from genlab.parallel.collectives import draw_rows

_NUM_DRAWS = 7


class DiffAugment(ImageTechnique):
    """Random changes of colour and place of each image of the discriminator, and a random square cut out.

    A value of zero leaves a transformation out.

    Args:
        brightness: At most so much is added to all pixels of an image, or subtracted, in units of [-1, 1].
        saturation: Distances to the grey of a pixel are multiplied by a factor in [1 - saturation, 1 + saturation].
        contrast: Distances to the mean of an image are multiplied by a factor in [1 - contrast, 1 + contrast].
        translation: An image moves by at most this share of its sides, rounded to whole pixels; zeros come in.
        cutout: A rectangle of this share of the sides becomes zero.

    Raises:
        ValueError: A number is out of range.
    """

    needs_grey_levels = True

    def __init__(
        self, *, brightness: float, saturation: float, contrast: float, translation: float, cutout: float
    ) -> None:
        super().__init__()
        for name, value, most in (
            ("brightness", brightness, 2.0),
            ("saturation", saturation, 1.0),
            ("contrast", contrast, 1.0),
            ("translation", translation, 0.5),
            ("cutout", cutout, 0.9),
        ):
            require_between(f"model.techniques.diff_augment.{name}", value, 0.0, most)
        self.brightness = brightness
        self.saturation = saturation
        self.contrast = contrast
        self.translation = translation
        self.cutout = cutout

    def transform(self, images: Float[Tensor, "B C H W"]) -> Float[Tensor, "B C H W"]:
        x = at_least_float32(images)
        draws = draw_rows(lambda rows: torch.rand(rows, _NUM_DRAWS, device=x.device), len(x)).to(x.dtype).unbind(1)
        brightness, saturation, contrast = (2 * uniform - 1 for uniform in draws[:3])
        x = x + per_pixel(self.brightness * brightness)
        x = scaled_about(x, x.mean(1, keepdim=True), 1 + self.saturation * saturation)
        x = scaled_about(x, x.mean((1, 2, 3), keepdim=True), 1 + self.contrast * contrast)
        x = translated(x, *whole_shifts(draws[3:5], x, self.translation), reflects=False)
        sides = images.shape[2:]
        height, width = (int(side * self.cutout + 0.5) for side in sides)
        # An even length has one more place, half of it outside at either end (the authors' program).
        rows, columns = (
            whole_number(u, side + 1 - length % 2)
            for u, side, length in zip(draws[5:], sides, (height, width), strict=True)
        )
        return cut_out(x, rows, columns, height=height, width=width).to(images.dtype)
