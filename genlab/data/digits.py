"""scikit-learn's handwritten digits: real, embedded, no download.

The test set of the UCI Optical Recognition of Handwritten Digits (Alpaydin and Kaynak, 1998): 1,797 images of 8x8
pixels, each the number of inked pixels in a 4x4 block of a scan, hence 17 levels.
"""

import gzip
import importlib.util
from pathlib import Path
from typing import Literal

import numpy as np
import torch
import torch.nn.functional as F
from jaxtyping import Int64, UInt8
from torch import Tensor

from genlab.data.preparation import RawDataset, prepared, split_by_index
from genlab.data.randomness import permutation
from genlab.data.store import Store
from genlab.errors import ConfigurationError
from genlab.randomness import derive_seed

NATIVE_SIZE = 8
NATIVE_MAX_LEVEL = 16


@prepared
def digits(
    *,
    size: Literal[8, 16, 28],
    num_validation: int,
    num_test: int,
    split_seed: int,
) -> RawDataset:
    """Return the embedded digits, split by a seeded permutation.

    Args:
        size: Height and width in pixels. 8 is native, with 17 levels; 16 and 28 are enlarged by bicubic interpolation
            and rounded to 256 levels (grey 0.5 stays grey 0.5, so that thresholding cuts the smooth surface).
        num_validation: Images to validate on.
        num_test: Images to test on.
        split_seed: Seed of the permutation.

    Raises:
        ConfigurationError: The splits are larger than the data.
    """
    native, labels = _embedded()
    num_train = len(labels) - num_validation - num_test
    if num_validation < 0 or num_test < 0 or num_train < 1:
        raise ConfigurationError(
            f"dataset.num_validation and dataset.num_test must be at least 0 and sum to less than {len(labels)} (all "
            f"digits), got {num_validation} and {num_test}"
        )
    order = permutation(len(labels), seed=derive_seed(split_seed, "digits"))
    images, labels = _enlarge(native, size)[order], labels[order]
    boundary = num_train + num_validation
    file, test = Store(images[:boundary], labels[:boundary]), Store(images[boundary:], labels[boundary:])
    return RawDataset(
        name="digits",
        stores=split_by_index(file, test, num_validation=num_validation),
        num_levels=NATIVE_MAX_LEVEL + 1 if size == NATIVE_SIZE else 256,
        class_names=[str(digit) for digit in range(10)],
        source=f"scikit-learn digits {size}x{size}",
    )


def _embedded() -> tuple[UInt8[Tensor, "N 1 8 8"], Int64[Tensor, " N"]]:
    """Return the images and labels of scikit-learn's file, without the import of scikit-learn, which takes a second."""
    package = importlib.util.find_spec("sklearn")
    assert package is not None
    assert package.origin is not None
    with gzip.open(Path(package.origin).parent / "datasets" / "data" / "digits.csv.gz") as file:
        rows = torch.from_numpy(np.loadtxt(file, delimiter=",", dtype=np.uint8))
    return rows[:, :-1].reshape(-1, 1, NATIVE_SIZE, NATIVE_SIZE), rows[:, -1].long()


def _enlarge(native: UInt8[Tensor, "N 1 8 8"], size: int) -> UInt8[Tensor, "N 1 S S"]:
    """Return levels 0 .. 16 unchanged at native size; else enlarged (bicubic, a = -1/2), as levels 0 .. 255."""
    if size == NATIVE_SIZE:
        return native
    grey = native.to(torch.float64) / NATIVE_MAX_LEVEL
    # antialias chooses a = -1/2, as Pillow does; without it torch uses -3/4, whose overshoot shows as ringing.
    enlarged = F.interpolate(grey, size=(size, size), mode="bicubic", align_corners=False, antialias=True)
    return (enlarged.clamp(0, 1) * 255).round().to(torch.uint8)
