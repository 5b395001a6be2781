"""Packs: images that the discriminator scores together, joined along the channels (PacGAN, arXiv:1712.04086).

Dimensions: B batch, C channels, O outputs.
"""

import torch
from jaxtyping import Float, Int
from torch import Tensor


def packed(values: Float[Tensor, "B C ..."], size: int) -> Float[Tensor, "packs joint ..."]:
    """Join the rows i, i + P, i + 2 P, ... of P packs along the second dimension.

    Rows far apart are joined so that several processes, which hold every W-th row, make the packs of one.

    Raises:
        ValueError: The rows make no whole packs.
    """
    if size == 1:
        return values
    if len(values) % size:
        raise ValueError(f"model.pack must divide the {len(values)} images of a batch, got {size}")
    return torch.cat(values.chunk(size), 1)


def rows_of_whole_packs(num: int, size: int, *, device: torch.device) -> Int[Tensor, " rows"] | slice:
    """Return an index of `num` images that fills the last pack with the first images."""
    if size == 1:
        return slice(None)
    return torch.arange(-(-num // size) * size, device=device) % num


def of_single_images(outputs: Float[Tensor, "packs O"], size: int, num: int) -> Float[Tensor, "B O"]:
    """Return the outputs of each pack as those of each of its images, for the first `num` of them."""
    return outputs.repeat(size, 1)[:num]
