"""Arithmetic of CUDA devices: full float32, and the same bits in every run, unless the user allows less.

PyTorch's own defaults differ between products (float32) and convolutions (TF32, with 10 bits of mantissa).
"""

from collections.abc import Iterator
from contextlib import contextmanager

import torch


def make_explicit(device: torch.device) -> None:
    """Set the arithmetic of this process: no TF32, and convolutions that sum in the same order each time.

    A device with a number becomes the current one, whose generator and streams are used from then on.
    """
    if device.type != "cuda":
        return
    if device.index is not None:
        torch.cuda.set_device(device)
    _set_tf32(False)
    torch.backends.cudnn.deterministic = True
    torch.backends.cudnn.benchmark = False


@contextmanager
def float32_products(*, tf32: bool = False) -> Iterator[None]:
    """Compute products of float32 with or without TF32 within the context; it has no effect on the CPU.

    Args:
        tf32: True to round operands to 3 digits, for about eight times the speed on tensor cores.
    """
    products, convolutions = torch.get_float32_matmul_precision(), torch.backends.cudnn.allow_tf32
    _set_tf32(tf32)
    try:
        yield
    finally:
        torch.set_float32_matmul_precision(products)
        torch.backends.cudnn.allow_tf32 = convolutions


def _set_tf32(is_allowed: bool) -> None:
    torch.set_float32_matmul_precision("high" if is_allowed else "highest")
    torch.backends.cudnn.allow_tf32 = is_allowed
