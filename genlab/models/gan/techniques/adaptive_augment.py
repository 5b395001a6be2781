"""Adaptive discriminator augmentation (Karras et al. 2020, arXiv:2006.06676).

Differs from the paper: of its transformations, those that map pixels to pixels (mirror image, quarter turns, whole
translations) and those of colour (brightness, contrast, saturation); none that interpolates between pixels, no
rotation of hues. Images that are not square get half turns. The probability has an upper limit: near 1, mirror images
and turns could no longer be distinguished from the data's own (appendix C of the paper, which has no limit).
"""

from collections.abc import Mapping

import torch
from jaxtyping import Float
from torch import Tensor

from genlab.functional import at_least_float32
from genlab.models.gan.techniques.augmentation import (
    per_pixel,
    rounded_shifts,
    scaled_about,
    translated,
    turned,
    whole_number,
)
from genlab.models.gan.techniques.base import ImageTechnique
from genlab.models.ranges import require_between, require_count
from genlab.parallel.collectives import draw_rows, is_one_batch, mean_over_processes, num_processes

# As in the paper: standard deviations of brightness, of log2 contrast and of log2 saturation; share of the sides.
_COLOR_STD = (0.2, 0.5, 1.0)
_TRANSLATION = 0.125
_NUM_TRANSFORMATIONS = 6
_NUM_UNIFORM = _NUM_TRANSFORMATIONS + 4
# Batches between two changes of the probability, as in the paper.
_BATCHES = 4


class AdaptiveAugment(ImageTechnique):
    """Augmentation with a probability that grows while the discriminator overfits its real images.

    r = E[sign D(x)] over the last four batches of real images. Above the target, the probability rises by
    the share of `images_to_one` that has been seen since; below it, it falls by as much. The probability and what it is
    made of are buffers: they are in every checkpoint, and a resumed run continues from them.

    Args:
        target: Of r; 0.6 in the paper.
        images_to_one: Real images, or packs of them, in which the probability could go from 0 to 1; 500,000 in the
            paper.
        max_probability: Upper limit of the probability; the paper has none, and finds leaks unlikely below 0.8.

    Raises:
        ValueError: A number is out of range.
    """

    needs_grey_levels = True
    needs_margins = True
    needs_whole_batch = True
    probability: Tensor
    seen: Tensor

    def __init__(self, *, target: float, images_to_one: int, max_probability: float) -> None:
        super().__init__()
        require_between("model.techniques.adaptive_augment.target", target, 0.0, 1.0)
        require_count("model.techniques.adaptive_augment.images_to_one", images_to_one)
        require_between("model.techniques.adaptive_augment.max_probability", max_probability, 0.0, 1.0)
        self.target = target
        self.images_to_one = images_to_one
        self.max_probability = max_probability
        self.register_buffer("probability", torch.zeros(()))
        self.register_buffer("seen", torch.zeros(3))  # sum of signs, images, batches since the last change

    def transform(self, images: Float[Tensor, "B C H W"]) -> Float[Tensor, "B C H W"]:
        x = at_least_float32(images)
        uniform = draw_rows(lambda rows: torch.rand(rows, _NUM_UNIFORM, device=x.device), len(x)).to(x.dtype)
        normal = draw_rows(lambda rows: torch.randn(rows, len(_COLOR_STD), device=x.device), len(x)).to(x.dtype)
        happens = (uniform[:, :_NUM_TRANSFORMATIONS] < self.probability).unbind(1)
        mirror, turn, *moves = uniform[:, _NUM_TRANSFORMATIONS:].unbind(1)
        x = torch.where(per_pixel(happens[0] & (mirror < 0.5)), x.flip(3), x)
        num_turns = 4 if x.shape[2] == x.shape[3] else 2
        x = turned(x, whole_number(turn, num_turns) * (4 // num_turns) * happens[1])
        down, right = (shift * happens[2] for shift in rounded_shifts(moves, x, _TRANSLATION))
        x = translated(x, down, right, reflects=True)
        brightness, contrast, saturation = (
            std * draw * is_on for std, draw, is_on in zip(_COLOR_STD, normal.unbind(1), happens[3:], strict=True)
        )
        x = scaled_about(x + per_pixel(brightness), 0.0, contrast.exp2())
        return scaled_about(x, x.mean(1, keepdim=True), saturation.exp2()).to(images.dtype)

    @torch.no_grad()
    def observe(self, margins: Float[Tensor, " R"] | None) -> Mapping[str, Float[Tensor, ""]]:
        assert margins is not None, "the compatibility table refuses it"
        num_images = len(margins) * (num_processes() if is_one_batch() else 1)
        mean_sign = mean_over_processes(margins.sign().mean())
        # On the device from here on, where no host waits for the answer.
        one = torch.ones_like(mean_sign)
        self.seen += torch.stack((mean_sign * num_images, one * num_images, one))
        signs, images, batches = self.seen.unbind()
        change = torch.where(
            batches >= _BATCHES, (signs / images - self.target).sign() * images / self.images_to_one, 0
        )
        self.probability.add_(change).clamp_(0, self.max_probability)
        self.seen.mul_(batches < _BATCHES)
        return {"augment_probability": self.probability.clone(), "mean_sign_real": mean_sign}
