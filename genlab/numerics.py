"""Which arithmetic a CUDA device uses: float32 is float32 and every run gives the same bits, unless the user says less.

PyTorch's own defaults differ between products (float32) and convolutions (TF32, with 10 bits of mantissa).
"""

from collections.abc import Iterator
from contextlib import contextmanager

import torch


def make_explicit(device: torch.device) -> None:
    """Set the arithmetic of this process: no TF32, and convolutions that sum in the same order each time.

    A device with a number becomes the current one, whose generator and streams are meant from then on.
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
    """Compute products of float32 exactly within, or with operands rounded to TF32; the CPU knows no difference.

    Args:
        tf32: Whether to round: about eight times the speed on tensor cores, for 3 digits of each operand.
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
