"""Larger pictures composed of MNIST digits, by arithmetic on whole batches of them.

Every picture is a function of the digits and a seed. A split is composed of the digits of that split alone, so that no
digit of a test picture was ever trained on.
"""

from collections.abc import Callable, Mapping
from functools import partial

import torch
from jaxtyping import Int, UInt8
from torch import Generator, Tensor

from genlab.data.dataset import SPLITS, Split
from genlab.data.mnist import MNIST, SIDE, read_source
from genlab.data.preparation import split_by_index
from genlab.data.randomness import uniform_noise
from genlab.data.store import Store
from genlab.errors import ConfigurationError
from genlab.randomness import derive_seed

_CHUNK = 2048  # pictures composed at a time: bounds the memory of the index arithmetic

Draw = Callable[[int, int], Int[Tensor, " B"]]
"""Function of a number of choices and of draws to independent uniform integers 0 .. choices - 1."""

Compose = Callable[[Store, Int[Tensor, " B"], Draw], tuple[UInt8[Tensor, "B C H W"], Int[Tensor, " B"]]]
"""Function of a split's digits, the pictures' indices in the split and random draws to pictures and labels."""


def read_digits(*, root: str | None, download: bool, num_validation_digits: int) -> dict[Split, Store]:
    """Read the digits of MNIST that the pictures of each split are made of.

    Args:
        root: Folder that holds ``MNIST/raw``.
        download: Fetch MNIST if it is missing or damaged.
        num_validation_digits: The last so many training digits make the validation pictures.

    Raises:
        ConfigurationError: Validation would leave no training digit.
        DataError: MNIST is missing.
    """
    train, test = read_source(MNIST, root=root, download=download)
    return split_by_index(train, test, num_validation=num_validation_digits, key="dataset.num_validation_digits")


def compose_splits(
    compose: Compose, digits: Mapping[Split, Store], *, num_images: Mapping[Split, int], seed: int
) -> dict[Split, Store]:
    """Compose the pictures of each split.

    Args:
        compose: Makes some pictures of a split.
        digits: Of each split.
        num_images: Pictures of each split.
        seed: Seed of all choices.

    Raises:
        ConfigurationError: A number of pictures is negative, or asks for pictures of no digits.
    """
    stores = {}
    for split in SPLITS:
        count = num_images[split]
        if count < 0 or (count > 0 and len(digits[split]) == 0):
            raise ConfigurationError(
                f"dataset.num_{split} must be at least 0, and 0 where there are no digits to compose (there are "
                f"{len(digits[split])}), got {count}"
            )
        source = digits[split] if count else digits["train"]  # of no pictures, still the size is measured
        stores[split] = _compose_split(compose, source, count, seed=derive_seed(seed, "composition", split))
    return stores


def draw(generator: Generator, num_choices: int, *shape: int) -> Int[Tensor, "..."]:
    """Return independent uniform integers 0 .. num_choices - 1."""
    return torch.randint(num_choices, shape, generator=generator)


def drawn_at(positions: Int[Tensor, " B"], num_draws: int, *, seed: int) -> Draw:
    """Return draws for a batch that depend on the seed and each picture's position alone.

    Args:
        positions: Of the pictures in the stream of training images.
        num_draws: At most so many draws, of one integer a picture each.
        seed: Seed of all of them.
    """
    columns = iter(uniform_noise(positions, num_draws, seed=seed).double().unbind(1))  # a float32 product rounds up
    return lambda num_choices, _: (next(columns) * num_choices).long()


def paste(
    canvas: UInt8[Tensor, "B H W"], patches: UInt8[Tensor, "B h w"], top: Int[Tensor, " B"], left: Int[Tensor, " B"]
) -> None:
    """Add one patch to each canvas, in place, clipping at 255.

    Args:
        canvas: Levels 0 .. 255.
        patches: Levels 0 .. 255.
        top: Row of each patch's first pixel; the patch lies inside the canvas.
        left: Column of it.
    """
    flat = canvas.view(len(canvas), -1)  # (B, H W)
    where = window(canvas.shape[2], patches.shape[1:], top, left)  # (B, h w)
    # int16: the sum of two bytes overflows a byte.
    total = flat.gather(1, where).to(torch.int16).add_(patches.flatten(1)).clamp_(max=255)
    flat.scatter_(1, where, total.to(torch.uint8))


def crop(
    images: UInt8[Tensor, "B H W"], size: int, top: Int[Tensor, " B"], left: Int[Tensor, " B"]
) -> UInt8[Tensor, "B S S"]:
    """Return a square cut out of each image, its first pixel at (top, left)."""
    where = window(images.shape[2], (size, size), top, left)  # (B, S S)
    return images.flatten(1).gather(1, where).view(-1, size, size)


def window(width: int, shape: tuple[int, ...], top: Int[Tensor, " B"], left: Int[Tensor, " B"]) -> Int[Tensor, "B P"]:
    """Return the flat indices, into images of that width, of the pixels of one rectangle per image."""
    rows, columns = torch.arange(shape[0]), torch.arange(shape[1])
    offsets = (rows[:, None] * width + columns).flatten()  # (P,)
    return (top * width + left)[:, None] + offsets


def paste_at_random(canvas: UInt8[Tensor, "B H W"], patches: UInt8[Tensor, "B h w"], draw: Draw) -> None:
    """Add one patch to each canvas at a uniformly random valid position."""
    top = draw(canvas.shape[1] - patches.shape[1] + 1, len(canvas))
    left = draw(canvas.shape[2] - patches.shape[2] + 1, len(canvas))
    paste(canvas, patches, top, left)


def require_room(size: int) -> None:
    """Refuse a canvas on which a digit does not fit.

    Raises:
        ConfigurationError: The size is below a digit's.
    """
    if size < SIDE:
        raise ConfigurationError(f"dataset.size must be at least {SIDE} (the side of a digit, in pixels), got {size}")


def _compose_split(compose: Compose, digits: Store, num_images: int, *, seed: int) -> Store:
    images, labels = [], []
    for start in range(0, max(num_images, 1), _CHUNK):
        # A whole chunk, seeded by its place and then cut: the first pictures are the same however many are made.
        generator = Generator().manual_seed(derive_seed(seed, start))
        chunk, chunk_labels = compose(digits, torch.arange(start, start + _CHUNK), partial(draw, generator))
        images.append(chunk[: num_images - start])
        labels.append(chunk_labels[: num_images - start])
    return Store(torch.cat(images), torch.cat(labels))
