"""Small files in the formats of the real sources, for tests that need no download."""

import struct
import zlib
from pathlib import Path
from typing import Any

import numpy as np
import torch
import yaml

from genlab.data.dataset import Binarization, Dataset
from genlab.data.store import Store

CPU = torch.device("cpu")
SMALL_DIGITS: dict[str, Any] = {
    "size": 8,
    "num_validation": 200,
    "num_test": 300,
    "split_seed": 0,
    "binarization": "threshold",
    "threshold": 0.5,
    "classes": None,
    "num_labels_per_class": None,
    "label_seed": 0,
}
"""Arguments of the embedded digits at their own size, thresholded."""


def dataset_node(path: Path) -> dict[str, Any]:
    """Return a shipped data set's node with the preparation that its defaults name."""
    node = yaml.safe_load(path.read_text(encoding="utf-8"))
    if node.pop("defaults", None) is None:
        return node
    shared = (path.parent / "preparation/default.yaml").read_text(encoding="utf-8")
    return yaml.safe_load(shared) | node


def write_idx(path: Path, values: np.ndarray) -> None:
    header = bytes([0, 0, 8, values.ndim]) + b"".join(size.to_bytes(4, "big") for size in values.shape)
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(header + values.astype(np.uint8).tobytes())


def png_chunk(kind: bytes, content: bytes) -> bytes:
    return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))


def png(width: int, height: int, *, bits: int, colour: int, rows: bytes, extra: bytes = b"") -> bytes:
    """A PNG of a kind that Pillow does not write."""
    header = png_chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, bits, colour, 0, 0, 0))
    return b"\x89PNG\r\n\x1a\n" + header + extra + png_chunk(b"IDAT", zlib.compress(rows, 9)) + png_chunk(b"IEND", b"")


def write_mnist(root: Path, *, num_train: int = 60, num_test: int = 20, folder: str = "MNIST") -> None:
    """Random images that carry their label in the first pixel."""
    random = np.random.default_rng(0)
    for prefix, count in (("train", num_train), ("t10k", num_test)):
        labels = np.arange(count) % 10
        images = random.integers(0, 256, (count, 28, 28))
        images[:, 0, 0] = labels
        write_idx(root / folder / "raw" / f"{prefix}-images-idx3-ubyte", images)
        write_idx(root / folder / "raw" / f"{prefix}-labels-idx1-ubyte", labels)


def ramp_dataset(num_train: int = 7, *, binarization: Binarization = "none", num_levels: int = 256) -> Dataset:
    """Images whose every pixel is the image's number, so that a batch tells which images it holds."""

    def store(count: int) -> Store:
        images = torch.arange(count, dtype=torch.uint8)[:, None, None, None].expand(count, 1, 2, 3).contiguous()
        return Store(images, torch.arange(count))

    return Dataset(
        name="ramp",
        stores={"train": store(num_train), "validation": store(5), "test": store(11)},
        num_levels=num_levels,
        class_names=tuple(str(index) for index in range(num_train)),
        binarization=binarization,
        threshold=0.5,
        source="ramp",
    )
