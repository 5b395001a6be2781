"""Images without content, for benchmarks whose time does not depend on it."""

import torch
from jaxtyping import UInt8
from torch import Tensor

from genlab.data.dataset import Binarization, Dataset
from genlab.data.store import Store
from genlab.types import UNLABELLED


def random_levels(*shape: int, num_levels: int = 256) -> UInt8[Tensor, "..."]:
    """Return uniform levels of this shape, the same in each call."""
    return torch.randint(num_levels, shape, dtype=torch.uint8, generator=torch.Generator().manual_seed(3))


def noise_dataset(
    levels: UInt8[Tensor, "N C H W"],
    *,
    num_levels: int = 256,
    binarization: Binarization = "none",
    num_classes: int = 0,
) -> Dataset:
    """Return a data set whose three splits are these images, of one class after the other, or unlabelled."""
    count = len(levels)
    store = Store(levels, torch.arange(count) % num_classes if num_classes else torch.full((count,), UNLABELLED))
    return Dataset(
        name="noise",
        stores={"train": store, "validation": store, "test": store},
        num_levels=num_levels,
        class_names=tuple(str(index) for index in range(num_classes)),
        binarization=binarization,
        threshold=None,
        source="noise",
    )
