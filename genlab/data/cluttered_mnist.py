"""Cluttered translated MNIST: find the digit among fragments of others.

Mnih et al. (2014, 1406.6247, section 4.1) made it, and DRAW classifies its 100x100 version with eight fragments (Gregor
et al. 2015, 1502.04623, section 4.1).
"""

from functools import partial

import torch
from jaxtyping import Int, UInt8
from torch import Tensor

from genlab.data.composition import (
    Draw,
    compose_splits,
    crop,
    drawn_at,
    paste_at_random,
    read_digits,
    require_room,
)
from genlab.data.mnist import DIGIT_NAMES, SIDE
from genlab.data.preparation import RawDataset, prepared
from genlab.data.store import Store
from genlab.errors import ConfigurationError


@prepared
def cluttered_mnist(
    *,
    size: int,
    num_distractors: int,
    distractor_size: int,
    root: str | None,
    download: bool,
    num_validation_digits: int,
    num_train: int,
    num_validation: int,
    num_test: int,
    seed: int,
    fresh_clutter: bool = False,  # a default, because the configurations of older runs lack the key
) -> RawDataset:
    """Return images of a digit and some fragments, at independent valid positions; sums are clipped at 1.

    Args:
        size: Side of the canvas in pixels.
        num_distractors: Fragments on each canvas.
        distractor_size: Side of a fragment in pixels: a square cut at random out of a random digit of the same split.
        root: Folder that holds ``MNIST/raw``; see `existing_root`.
        download: Fetch MNIST if it is missing or damaged.
        num_validation_digits: The last so many MNIST training digits make the validation pictures.
        num_train: Pictures to train on.
        num_validation: Pictures to validate on.
        num_test: Pictures to test on.
        seed: Seed of the composition.
        fresh_clutter: True if each image of a training batch is composed anew, at another place and with other
            fragments each time it is seen, by draws from the run's seed and the step. Evaluated pictures never are.

    Raises:
        ConfigurationError: A number is out of range.
        DataError: MNIST is missing or damaged and could not be fetched.
    """
    require_room(size)
    if num_distractors < 0:
        raise ConfigurationError(f"dataset.num_distractors must be at least 0, got {num_distractors}")
    if not 1 <= distractor_size <= SIDE:
        raise ConfigurationError(
            f"dataset.distractor_size must be between 1 and {SIDE} (the side of a digit, in pixels), got "
            f"{distractor_size}"
        )
    place = partial(clutter, size=size, num_distractors=num_distractors, distractor_size=distractor_size)
    digits = read_digits(root=root, download=download, num_validation_digits=num_validation_digits)

    def recompose(rows: Int[Tensor, " B"], positions: Int[Tensor, " B"], seed: int) -> UInt8[Tensor, "B 1 S S"]:
        return place(digits["train"], rows, drawn_at(positions, 2 + 5 * num_distractors, seed=seed))[0]

    stores = compose_splits(
        place,
        digits,
        num_images={"train": num_train, "validation": num_validation, "test": num_test},
        seed=seed,
    )
    return RawDataset(
        name="cluttered_mnist",
        stores=stores,
        num_levels=256,
        class_names=DIGIT_NAMES,
        source=f"cluttered MNIST {size}x{size}, {num_distractors} fragments of {distractor_size} pixels, seed {seed}",
        recompose=recompose if fresh_clutter else None,
    )


def clutter(
    digits: Store,
    rows: Int[Tensor, " B"],
    draw: Draw,
    *,
    size: int,
    num_distractors: int,
    distractor_size: int,
) -> tuple[UInt8[Tensor, "B 1 S S"], Int[Tensor, " B"]]:
    """Return translated digits with fragments, and the class of the whole digit.

    Picture i shows digit i of the split (from the start again when there are more pictures than digits), so that a test
    on as many pictures as digits sees each digit once.
    """
    num_images = len(rows)
    canvas = torch.zeros(num_images, size, size, dtype=torch.uint8)
    images, labels = digits.gather(rows % len(digits))
    paste_at_random(canvas, images[:, 0], draw)
    for _ in range(num_distractors):
        others, _ = digits.gather(draw(len(digits), num_images))
        room = SIDE - distractor_size + 1
        top, left = draw(room, num_images), draw(room, num_images)
        paste_at_random(canvas, crop(others[:, 0], distractor_size, top, left), draw)
    return canvas[:, None], labels
