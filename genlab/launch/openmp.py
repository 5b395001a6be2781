"""Spin time of OpenMP's threads between parallel regions, set in the environment before torch loads the runtime.

By default a thread that waits at a barrier spins for milliseconds. Beside any other busy process it then spins on the
core that the thread it waits for needs, and a training step of many small operations becomes up to twenty times
slower. A thread that sleeps soon gives the core up, at the cost of a few percent on a quiet machine.
"""

import os
import sys

SPIN_SETTINGS = {
    "GOMP_SPINCOUNT": "300",  # GNU, of torch's wheels for Linux: iterations, some ten microseconds
    "KMP_BLOCKTIME": "1",  # LLVM and Intel, of macOS and conda: milliseconds, 200 by default
}
"""Variable to value, one for each runtime; each ignores those of the others."""
WAIT_POLICY = "OMP_WAIT_POLICY"
"""The standard's variable, which a user may have set instead."""


def shorten_spin() -> None:
    """Set the variables that the user has not set, for this process and its children.

    Nothing changes where torch is loaded already: the runtime has read its environment by then.
    """
    if "torch" in sys.modules or WAIT_POLICY in os.environ:
        return
    for name, value in SPIN_SETTINGS.items():
        os.environ.setdefault(name, value)
