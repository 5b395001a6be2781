"""Pictures that set generated images beside real ones.

Dimensions: N and M images, C channels, H height, W width, k neighbours, h and w of the whole picture.
"""

from collections.abc import Sequence

import torch
from jaxtyping import Float
from torch import Tensor

from genlab.sampling.pictures import grid

_COLUMNS_A_SIDE = 8


def beside(left: Float[Tensor, "N C H W"], right: Float[Tensor, "M C H W"]) -> Float[Tensor, "C h w"]:
    """Return two grids of eight columns with a gap between them.

    Args:
        left: Images in [0, 1]; what does not fill a row of eight on both sides is left out.
        right: The same.
    """
    num_rows = min(len(left), len(right)) // _COLUMNS_A_SIDE
    num_images = num_rows * _COLUMNS_A_SIDE
    return _in_groups([images[:num_images].view(num_rows, -1, *images.shape[1:]) for images in (left, right)])


def with_neighbours(
    images: Float[Tensor, "N C H W"], neighbours: Sequence[Float[Tensor, "N _ C H W"]]
) -> Float[Tensor, "C h w"]:
    """Return one row per image: the image, a gap, its neighbours, nearest first; a gap before each further kind.

    Args:
        images: In [0, 1].
        neighbours: Of one kind after another (nearest by pixels, nearest by features).
    """
    return _in_groups([images.unsqueeze(1), *neighbours])


def _in_groups(groups: Sequence[Float[Tensor, "N _ C H W"]]) -> Float[Tensor, "C h w"]:
    """Return rows of images whose groups are separated by the width of an image, in the grey of the padding."""
    gap = torch.full_like(groups[0][:, :1], 0.5)
    columns = [part for group in groups for part in (gap, group)][1:]
    rows = torch.cat(columns, 1)
    return grid(rows.flatten(0, 1), num_columns=rows.shape[1])
