"""Settings of OpenMP and of the C library for this process, made before torch loads them; a user's own stay."""

import os
import sys

SPIN_SETTINGS = {
    "GOMP_SPINCOUNT": "300",  # GNU, of torch's wheels for Linux: iterations, some ten microseconds
    "KMP_BLOCKTIME": "1",  # LLVM and Intel, of macOS and conda: milliseconds, 200 by default
}
"""Variable to value, one for each runtime; each ignores those of the others."""
WAIT_POLICY = "OMP_WAIT_POLICY"
"""The standard's variable, which a user may have set instead."""
USER_VARIABLES = ("MALLOC_TRIM_THRESHOLD_", "MALLOC_MMAP_THRESHOLD_", "MALLOC_TOP_PAD_", "GLIBC_TUNABLES")
"""Variables by which a user sets what freed memory is kept."""
_M_TRIM_THRESHOLD, _M_MMAP_THRESHOLD = -1, -3  # of malloc.h
_LARGE = 2**28  # bytes; a tensor above is given back
_LARGE_IN_OLD_VERSIONS = 2**25  # the most that they take


def shorten_spin() -> None:
    """Shorten the spin of OpenMP's threads between parallel regions, in this process and its children.

    By default a thread that waits at a barrier spins for milliseconds. Beside any other busy process it then spins on
    the core that the thread it waits for needs, and a training step of many small operations becomes up to twenty times
    slower. A thread that sleeps soon gives the core up, at the cost of a few percent on a quiet machine.

    Nothing changes where torch is loaded already: the runtime has read its environment by then.
    """
    if "torch" in sys.modules or WAIT_POLICY in os.environ:
        return
    for name, value in SPIN_SETTINGS.items():
        os.environ.setdefault(name, value)


def keep_freed_memory() -> None:
    """Have glibc keep freed memory in this process for the next step; do nothing elsewhere.

    By default glibc gives large freed blocks back to the system, and the next step fetches them again page by page,
    each one filled with zeros. Of a training step of PixelCNN on the CPU that is a sixth to a third of the time. The
    price is memory: a process keeps its peak, which rose by 6 % for PixelCNN and not for the other models.
    """
    if sys.platform != "linux" or any(name in os.environ for name in USER_VARIABLES):
        return
    import ctypes

    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)  # absent from other C libraries
    # Setting either ends the adaptation of both, so that the second alone would make things worse.
    if mallopt is not None and (
        mallopt(_M_MMAP_THRESHOLD, _LARGE) or mallopt(_M_MMAP_THRESHOLD, _LARGE_IN_OLD_VERSIONS)
    ):
        mallopt(_M_TRIM_THRESHOLD, 2**31 - 1)
