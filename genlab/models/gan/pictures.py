"""Inputs of the generator for pictures: paths between draws, a class in each row, traversals of codes.

Each function returns the noise with the extra inputs of the conditioning behind it, one row for an image of the
picture, from the first row of images to the last.

Dimensions: N images, I inputs.
"""

import math

import torch
from jaxtyping import Float
from torch import Generator, Tensor

from genlab.models.base import table_side
from genlab.models.gan.conditioning import Conditioning
from genlab.models.gan.infogan import HiddenCodes
from genlab.models.gan.latent import Latent


def interpolation(
    latent: Latent,
    conditioning: Conditioning,
    num_samples: int,
    *,
    label: int | None,
    generator: Generator | None,
    device: torch.device,
) -> Float[Tensor, "N I"]:
    """Return paths from one draw of the noise to another, one in a row of images; constant extra inputs on each."""
    length = num_paths = math.isqrt(num_samples)
    start, end = (latent.draw(num_paths, generator=generator, device=device) for _ in range(2))
    labels = None if label is None else torch.full((num_paths,), label, device=device)
    extra = conditioning.draw(num_paths, labels=labels, generator=generator, device=device)
    fractions = torch.linspace(0, 1, length).tolist() if length > 1 else [0.0]
    points = [latent.between(a, b, fraction) for a, b in zip(start, end, strict=True) for fraction in fractions]
    return torch.cat((torch.stack(points), extra.repeat_interleave(length, 0)), 1)


def class_grid(
    latent: Latent, conditioning: Conditioning, num_samples: int, *, generator: Generator | None, device: torch.device
) -> Float[Tensor, "N I"]:
    """Return one class in each row of images, with the same noise in each column."""
    side = table_side(conditioning.num_classes, num_samples)
    noise = latent.draw(side, generator=generator, device=device).repeat(side, 1)
    labels = torch.arange(side, device=device).repeat_interleave(side)
    classes = conditioning.draw(len(labels), labels=labels, generator=generator, device=device)
    return torch.cat((noise, classes), 1)


def traversals(
    latent: Latent, codes: HiddenCodes, num_samples: int, *, generator: Generator | None, device: torch.device
) -> dict[str, Float[Tensor, "N I"]]:
    """Return for each continuous code one category in each row of images, along which the code grows from -2 to 2.

    The noise is one draw for all of them, so that only the codes differ.
    """
    side = table_side(codes.num_categories, num_samples)
    noise = latent.draw(1, generator=generator, device=device).expand(side**2, -1)
    categories = torch.arange(side, device=device).repeat_interleave(side)
    values = torch.linspace(-2, 2, side, device=device).repeat(side)
    pictures = {}
    for index in range(codes.num_continuous):
        continuous = torch.zeros(side**2, codes.num_continuous, device=device)
        continuous[:, index] = values
        pictures[f"traversal_{index + 1}"] = torch.cat((noise, codes.inputs(categories, continuous)), 1)
    return pictures
