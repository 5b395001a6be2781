"""Two MNIST digits on one larger canvas, as DRAW generates them (Gregor et al. 2015, 1502.04623, section 4.3)."""

from functools import partial
from itertools import combinations_with_replacement

import torch
from jaxtyping import Int, UInt8
from torch import Tensor

from genlab.data.composition import Draw, compose_splits, paste_at_random, read_digits, require_room
from genlab.data.preparation import RawDataset, prepared
from genlab.data.store import Store

PAIRS = tuple(combinations_with_replacement(range(10), 2))
"""The classes: unordered pairs of digits."""


@prepared
def two_digit_mnist(
    *,
    size: int,
    root: str | None,
    download: bool,
    num_validation_digits: int,
    num_train: int,
    num_validation: int,
    num_test: int,
    seed: int,
) -> RawDataset:
    """Return two independent digits at independent valid positions; intensities add up, clipped at 1.

    Args:
        size: Side of the canvas in pixels; 60 in the paper.
        root: Folder that holds ``MNIST/raw``; see `existing_root`.
        download: Fetch MNIST if it is missing or damaged.
        num_validation_digits: The last so many MNIST training digits make the validation pictures.
        num_train: Pictures to train on.
        num_validation: Pictures to validate on.
        num_test: Pictures to test on.
        seed: Seed of the composition.

    Raises:
        ConfigurationError: A number is out of range.
        DataError: MNIST is missing or damaged and could not be fetched.
    """
    require_room(size)
    stores = compose_splits(
        partial(place_two_digits, size=size),
        read_digits(root=root, download=download, num_validation_digits=num_validation_digits),
        num_images={"train": num_train, "validation": num_validation, "test": num_test},
        seed=seed,
    )
    return RawDataset(
        name="two_digit_mnist",
        stores=stores,
        num_levels=256,
        class_names=[f"{low} {high}" for low, high in PAIRS],
        source=f"two-digit MNIST {size}x{size}, seed {seed}",
    )


def place_two_digits(
    digits: Store, rows: Int[Tensor, " B"], draw: Draw, *, size: int
) -> tuple[UInt8[Tensor, "B 1 S S"], Int[Tensor, " B"]]:
    """Return as many random pairs of digits, each on a canvas, as there are rows, and the index of each in PAIRS."""
    canvas = torch.zeros(len(rows), size, size, dtype=torch.uint8)
    labels = []
    for _ in range(2):
        images, digit = digits.gather(draw(len(digits), len(rows)))
        paste_at_random(canvas, images[:, 0], draw)
        labels.append(digit)
    classes = torch.empty(10, 10, dtype=torch.int64)
    for index, (low, high) in enumerate(PAIRS):
        classes[low, high] = classes[high, low] = index
    return canvas[:, None], classes[labels[0], labels[1]]
