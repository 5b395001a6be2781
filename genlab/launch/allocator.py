"""Memory of the C library: what a step frees is kept for the next one.

By default glibc gives large freed blocks back to the system, and the next step fetches them again page by page, each
one filled with zeros. Of a training step of PixelCNN on the CPU that is a sixth to a third of the time. The price is
memory: a process keeps its peak, which rose by 6 % for PixelCNN and not for the other models.
"""

import os
import sys

USER_VARIABLES = ("MALLOC_TRIM_THRESHOLD_", "MALLOC_MMAP_THRESHOLD_", "MALLOC_TOP_PAD_", "GLIBC_TUNABLES")
"""Variables by which a user sets the same."""
_M_TRIM_THRESHOLD, _M_MMAP_THRESHOLD = -1, -3  # of malloc.h
_LARGE = 2**28  # bytes; a tensor above is given back
_LARGE_IN_OLD_VERSIONS = 2**25  # the most that they take


def keep_freed_memory() -> None:
    """Have glibc keep freed memory in this process, unless the user has set otherwise; do nothing elsewhere."""
    if sys.platform != "linux" or any(name in os.environ for name in USER_VARIABLES):
        return
    import ctypes

    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)  # absent from other C libraries
    # Setting either ends the adaptation of both, so that the second alone would make things worse.
    if mallopt is not None and (
        mallopt(_M_MMAP_THRESHOLD, _LARGE) or mallopt(_M_MMAP_THRESHOLD, _LARGE_IN_OLD_VERSIONS)
    ):
        mallopt(_M_TRIM_THRESHOLD, 2**31 - 1)
