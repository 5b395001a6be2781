"""Arithmetic of devices.

On CUDA: full float32, and the same bits in every run, unless the user allows less. PyTorch's own defaults differ
between products (float32) and convolutions (TF32, with 10 bits of mantissa).

On the CPU: subnormal numbers, those below 1.2e-38, count as zero. The filters of DRAW's narrow windows are full of
them, and arithmetic with them takes several times as long on some processors.
"""

from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np
import torch


def make_explicit(device: torch.device) -> None:
    """Set the arithmetic of this process: no subnormal numbers, no TF32, and convolutions with one order of sums.

    A device with a number becomes the current one, whose generator and streams are used from then on.
    """
    for kind in (np.float32, np.float64):
        np.finfo(kind)  # NumPy before 2.4 warns where it first looks for subnormal numbers and there are none
    torch.set_flush_denormal(True)
    if device.type != "cuda":
        return
    if device.index is not None:
        torch.cuda.set_device(device)
    _set_tf32(False)
    torch.backends.cudnn.deterministic = True
    torch.backends.cudnn.benchmark = False


@contextmanager
def own_arithmetic() -> Iterator[None]:
    """Compute with gradients and in float32 within the context, and restore what :func:`make_explicit` sets for CUDA.

    For the functions of ``import genlab``: a notebook may have set another type of numbers, or call them in no_grad.
    """
    kind, products, flags = torch.get_default_dtype(), torch.get_float32_matmul_precision(), torch.backends.cudnn
    kept = {name: getattr(flags, name) for name in ("allow_tf32", "benchmark", "deterministic")}
    device = torch.cuda.current_device() if torch.cuda.is_initialized() else None  # type: ignore[no-untyped-call]
    torch.set_default_dtype(torch.float32)
    try:
        with torch.inference_mode(False), torch.enable_grad():
            yield
    finally:
        torch.set_default_dtype(kind)
        torch.set_float32_matmul_precision(products)
        for name, value in kept.items():
            setattr(flags, name, value)
        if device is not None:
            torch.cuda.set_device(device)


def has_subnormals() -> bool:
    """Return True if this process computes with subnormal numbers, as PyTorch does unless told otherwise."""
    smallest = torch.finfo(torch.float32).tiny
    return bool(torch.tensor(smallest).div(2).mul(2).item() == smallest)


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
