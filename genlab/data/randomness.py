"""Randomness without state: every number is a function of a seed and a name, never of earlier draws.

The noise of binarisation and of changed images is a hash of (seed, image, sub-pixel) rather than the output of a
generator, so that it is the same on every device, for every batch size and in whatever order the images are asked for.
"""

import math
from functools import lru_cache
from typing import Any

import numpy as np
import torch
from jaxtyping import Float, Int, Int32, UInt8
from torch import Tensor

from genlab.data.store import to_device
from genlab.randomness import derive_seed

_MASK = 0xFFFFFFFF
# Multipliers and shifts of a two-round integer hash with nearly ideal avalanche (TheIronBorn, by C. Wellons's program
# hash-prospector).
_SHIFTS = (16, 15, 15)
_MULTIPLIERS = (0x21F0AAAD, 0x735A2D97)
# Odd multipliers of 64 bits, as the signed numbers that they are in int64: the golden ratio's, and one of SplitMix64.
_STEP, _MIX = 0x9E3779B97F4A7C15 - 2**64, 0xBF58476D1CE4E5B9 - 2**64


def permutation(num_items: int, *, seed: int) -> Int[Tensor, " N"]:
    """Return a random permutation of 0 .. num_items - 1, made on the CPU to be independent of the run's device."""
    return torch.randperm(num_items, generator=torch.Generator().manual_seed(seed))


class Epochs:
    """The concatenation of one random permutation of 0 .. num_items - 1 per epoch."""

    def __init__(self, num_items: int, *, seed: int, purpose: str, device: torch.device) -> None:
        self._num_items = num_items
        self._seed = seed
        self._purpose = purpose
        self._device = device
        self._epoch = -1  # of the memoised permutation; none yet
        self._order = torch.empty(0, dtype=torch.int64)

    def take(self, position: int, count: int) -> Int[Tensor, " K"]:
        """Return positions position up to position + count."""
        stop = position + count
        pieces = []
        while position < stop:
            epoch, offset = divmod(position, self._num_items)
            length = min(self._num_items - offset, stop - position)
            pieces.append(self._permutation(epoch)[offset : offset + length])
            position += length
        return pieces[0] if len(pieces) == 1 else torch.cat(pieces)

    def _permutation(self, epoch: int) -> Int[Tensor, " N"]:
        """Return the order of an epoch; the last one is kept, as consecutive batches share it."""
        if epoch != self._epoch:
            order = permutation(self._num_items, seed=derive_seed(self._seed, self._purpose, epoch))
            self._order = to_device(order, self._device)
            self._epoch = epoch
        return self._order


def _hashed(words: Int[Tensor, "..."]) -> Int32[Tensor, "..."]:
    """Return the hash of the low 32 bits of each word."""
    hashed = words.to(torch.int32, copy=True)  # the low 32 bits: the words are a bit pattern, not a number
    _hash_words_in_place(hashed)
    return hashed


def _hash_words_in_place(words: Any) -> None:
    """Hash wrapping 32-bit words, int32 of PyTorch or uint32 of NumPy."""
    words ^= _shifted(words, _SHIFTS[0])
    words *= _MULTIPLIERS[0]
    words ^= _shifted(words, _SHIFTS[1])
    words *= _MULTIPLIERS[1]
    words ^= _shifted(words, _SHIFTS[2])


def _shifted(words: Any, places: int) -> Any:
    if isinstance(words, np.ndarray):
        return words >> places
    return (words >> places) & (_MASK >> places)  # a right shift of int32 drags the sign along


def uniform_noise(positions: Int[Tensor, " B"], num_pixels: int, *, seed: int) -> Float[Tensor, "B P"]:
    """Return uniform numbers in [0, 1), multiples of 2^-24, on the device of the positions.

    Args:
        positions: Index of the draw of each row: the same position gives the same row, whatever the other rows are.
        num_pixels: P, numbers per row.
        seed: Seed of all draws, 63 bits.
    """
    low, high = seed & _MASK, (seed >> 32) & _MASK
    row = _hashed(positions ^ low)
    row = _hashed(row ^ _hashed((positions >> 32) ^ high))  # (B,)
    # The seed's hash as a Python number: a tensor made on an accelerator would be one more copy to it.
    salt = int(_hashed(torch.tensor(high)))
    column = _hashed(torch.arange(num_pixels, device=positions.device) ^ salt)  # (P,)
    words = row[:, None] ^ column  # (B, P)
    _hash_words_in_place(words)
    return (words >> 8).bitwise_and_(0xFFFFFF).to(torch.float32).mul_(2.0**-24)


def binarized(
    levels: UInt8[Tensor, "B C H W"], positions: Int[Tensor, " B"], *, max_level: int, seed: int
) -> Float[Tensor, "B C H W"]:
    """Draw 1 with probability level / max_level, exact for 0 and 1 and else to 2^-16, and 0 otherwise.

    Four sub-pixels share a hashed word of 32 bits: a sub-pixel is 1 if its byte, one of 1 .. 255 with equal
    probability, is at most 255 level / max_level. A byte of 0 takes the value of a byte that its image shares, and that
    byte decides whether an image rounds fractions up; each couples two sub-pixels by less than 2^-16.

    Args:
        levels: 0 .. max_level.
        positions: Index of the draw of each image: the same position gives the same noise, whatever the others are.
        max_level: 255 for images of 8 bits.
        seed: Seed of all draws, 63 bits.
    """
    arrays: tuple[Any, ...] = (levels, positions, torch)
    if levels.device.type == "cpu":  # operations of NumPy on arrays of this size take half of the time of PyTorch's
        arrays = (levels.numpy(), positions.numpy(), np)
    return torch.asarray(_bits(*arrays, max_level=max_level, seed=seed))


def _bits(levels: Any, positions: Any, xp: Any, *, max_level: int, seed: int) -> Any:
    """Return the draws of :func:`binarized` for arrays of PyTorch or of NumPy, the module `xp`."""
    num_images, *shape = levels.shape
    num_pixels = math.prod(shape)
    rows = _words(positions, seed, xp)  # (B,)
    words = rows[:, None] * _columns((num_pixels + 3) // 4, seed, positions.device, xp)  # (B, ceil(P/4))
    # In full: with one multiplication, two columns of a special ratio are correlated by 0.2 and more in all images.
    _hash_words_in_place(words.view(np.uint32) if xp is np else words)
    noise = words.view(xp.uint8)[:, :num_pixels]
    shared = rows.view(xp.uint8)[1::4, None].clip(min=1)  # (B, 1)
    noise += (noise == 0) * shared
    limits = levels.reshape(num_images, num_pixels)
    if max_level != 255:
        exact = xp.asarray(limits, dtype=xp.float32) * (255 / max_level)
        limits = xp.asarray(exact + (xp.asarray(shared, dtype=xp.float32) - 0.5) / 255, dtype=xp.uint8)
    return xp.asarray(noise <= limits, dtype=xp.float32).reshape(levels.shape)


@lru_cache(maxsize=8)
def _columns(num_words: int, seed: int, device: Any, xp: Any) -> Any:
    """Return the words of groups of sub-pixels, the same for each image of a stream."""
    words = _words(np.arange(num_words), seed ^ _MULTIPLIERS[1], np)
    return words if xp is np else to_device(torch.from_numpy(words), device)


def _words(positions: Any, seed: int, xp: Any) -> Any:
    """Return an odd int32 for each position: a product of odd numbers loses no bit of either."""
    mixed = positions * _STEP  # products and sums of int64 wrap
    mixed += seed
    mixed ^= (mixed >> 32) & _MASK
    mixed *= _MIX
    return xp.asarray(mixed >> 32, dtype=xp.int32) | 1
