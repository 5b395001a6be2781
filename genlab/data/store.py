"""The store of images as bytes, in memory or memory-mapped from a file.

Dimensions: M images in the file, N images in view, B batch, C channels, H height, W width.
"""

import torch
from jaxtyping import Int, UInt8
from torch import Tensor

from genlab.errors import DataError

DEVICE_MEMORY_SHARE = 0.25
"""Largest share of an accelerator's free memory that a store may fill to be moved there."""


class Store:
    """Images as integer levels in uint8, in memory or memory-mapped, and their labels.

    Attributes:
        images: Level of each sub-pixel, 0 .. num_levels - 1; a memory-mapped tensor reads from disk what is gathered.
        labels: Class index or UNLABELLED, aligned with the view.
        rows: The view: which rows of `images` are in it, in which order; None for all of them.
    """

    def __init__(
        self,
        images: UInt8[Tensor, "M C H W"],
        labels: Int[Tensor, " N"],
        *,
        rows: Int[Tensor, " N"] | None = None,
    ) -> None:
        if images.dtype != torch.uint8:
            raise DataError(f"a store needs images of torch.uint8, the levels 0 .. num_levels - 1, got {images.dtype}")
        if len(labels) != (len(images) if rows is None else len(rows)):
            raise ValueError(f"a store needs one label per image, got {len(labels)} labels")
        self.images = images
        self.labels = labels
        self.rows = rows

    def __len__(self) -> int:
        return len(self.labels)

    @property
    def num_bytes(self) -> int:
        """The size of the images in view, in bytes."""
        return len(self) * self.images.shape[1:].numel()

    def select(self, rows: Int[Tensor, " K"]) -> "Store":
        """Return a view of some of the images; no image is copied."""
        return Store(self.images, self.labels[rows], rows=rows if self.rows is None else self.rows[rows])

    def with_labels(self, labels: Int[Tensor, " N"]) -> "Store":
        """Return the same images under other labels."""
        return Store(self.images, labels, rows=self.rows)

    def original_rows(self, indices: Int[Tensor, " B"]) -> Int[Tensor, " B"]:
        """Return the indices of some images of the view in the source."""
        return indices if self.rows is None else self.rows.index_select(0, indices)

    def gather(self, indices: Int[Tensor, " B"]) -> tuple[UInt8[Tensor, "B C H W"], Int[Tensor, " B"]]:
        """Return the levels and labels of some images of the view, on the device of the store."""
        indices = to_device(indices, self.images.device)
        return self.images.index_select(0, self.original_rows(indices)), self.labels.index_select(0, indices)

    def placed(self, device: torch.device) -> "Store":
        """Return this store on the device if it fits there (DEVICE_MEMORY_SHARE), else unchanged on the CPU."""
        if device.type == "cpu" or self.num_bytes > DEVICE_MEMORY_SHARE * _free_bytes(device):
            return self
        images = self.images if self.rows is None else self.images.index_select(0, self.rows)
        return Store(images.to(device), self.labels.to(device))


def to_device(values: Tensor, device: torch.device) -> Tensor:
    """Copy a tensor to a device; to CUDA through page-locked memory, without waiting for the copy.

    The next batch is gathered while the device still works.
    """
    if device.type == "cuda" and values.device.type == "cpu":
        values = values.pin_memory()
    return values.to(device, non_blocking=True)


def _free_bytes(device: torch.device) -> float:
    """Return the free memory of an accelerator in bytes; infinite if it is unknown."""
    if device.type == "cuda":
        return float(torch.cuda.mem_get_info(device)[0])
    if device.type == "mps":
        return float(torch.mps.recommended_max_memory() - torch.mps.driver_allocated_memory())
    return float("inf")
