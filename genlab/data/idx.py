"""IDX, the file format of the MNIST family: a header with type and shape, then the bytes.

Two zero bytes, the type (8 is unsigned byte), the number of dimensions, each dimension as a big-endian 32-bit integer,
then the values, the last dimension fastest (Y. LeCun, the MNIST page).
"""

import math
from pathlib import Path

import numpy as np
import torch
from jaxtyping import UInt8
from torch import Tensor

_UNSIGNED_BYTE = 8


def read_idx(path: Path, *, num_dimensions: int) -> UInt8[Tensor, "..."]:
    """Read a file of unsigned bytes.

    Args:
        path: An uncompressed file.
        num_dimensions: 3 for images, 1 for labels.

    Raises:
        ValueError: The header or the length is not that of such a file; the message is the reason alone.
    """
    content = np.fromfile(path, dtype=np.uint8)
    header_size = 4 + 4 * num_dimensions
    if len(content) < header_size:
        raise ValueError(f"{len(content)} bytes are less than a header")
    if tuple(content[:4]) != (0, 0, _UNSIGNED_BYTE, num_dimensions):
        raise ValueError(f"it starts with {content[:4].tobytes().hex()} instead of 000008{num_dimensions:02x}")
    shape = [int(size) for size in content[4:header_size].view(">u4")]
    expected = header_size + math.prod(shape)
    if len(content) != expected:
        raise ValueError(f"it has {len(content)} bytes where its header announces {expected}")
    return torch.from_numpy(content[header_size:]).view(shape)
