"""The pixels that a completion keeps, as a number of sites at the beginning of a model's order.

A completion is exact only if every hidden site comes after all given ones. Dimensions: H height, W width of an image.
"""

import torch
from jaxtyping import Bool
from torch import Tensor

from genlab.types import ImageSpec


def given_mask(given: Bool[Tensor, "H W"] | int, spec: ImageSpec) -> Bool[Tensor, "H W"]:
    """Return given pixels as a mask.

    Args:
        given: A mask, or a number of rows from the top.
        spec: The images.

    Raises:
        ValueError: There are not so many rows.
    """
    if isinstance(given, Tensor):
        return given
    if not 0 <= given <= spec.height:
        raise ValueError(f"given_rows must be between 0 and {spec.height} rows (the image height), got {given}")
    return (torch.arange(spec.height)[:, None] < given).expand(-1, spec.width)


def num_given_sites(given: Bool[Tensor, "H W"], grid: tuple[int, int]) -> int:
    """Return the number of sites, in raster order, that are given.

    Args:
        given: The mask of given pixels.
        grid: Rows and columns of sites.

    Raises:
        ValueError: A site is partly given, or behind a hidden one.
    """
    height, width = grid
    tall, wide = given.shape[0] // height, given.shape[1] // width
    sites = given.reshape(height, tall, width, wide).transpose(1, 2).reshape(height * width, tall * wide)
    num_sites = int(sites.all(1).long().cumprod(0).sum())
    if bool(sites[num_sites:].any()):
        late = num_sites + int(sites[num_sites:].any(1).nonzero()[0])
        at, at_late = (f"row {site // width * tall}, column {site % width * wide}" for site in (num_sites, late))
        if late == num_sites:
            raise ValueError(
                f"given pixels must be whole {tall}x{wide} blocks, the symbols of this model: the block at {at} is "
                "partly given"
            )
        raise ValueError(
            "given pixels must come before all hidden ones in the model's order, which is raster order: the hidden "
            f"pixel at {at} cannot depend on the given one behind it, at {at_late}; "
            f"given_rows={num_sites // width * tall} hides all rows from there on"
        )
    return num_sites
