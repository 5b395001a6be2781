"""How a job of a sweep learns that it shall stop: its standard input, a pipe from its guardian, closes.

A pipe closes on purpose, when the guardian dies of whatever cause, and on every system; a signal to a group reaches
too many, and none is sent by a guardian that was killed.
"""

import os
import signal
import sys
import threading

VARIABLE = "GENLAB_JOB_OF_SWEEP"


def hold_lifeline() -> None:
    """In a job of a sweep, stop as on SIGTERM once the guardian lets go; anywhere else do nothing."""
    if os.environ.pop(VARIABLE, None) is None:
        return
    if hasattr(signal, "SIGUSR2"):
        # SLURM announces the end of a job's time with it; the guardian's launcher answers, and lets go.
        signal.signal(signal.SIGUSR2, signal.SIG_IGN)
    threading.Thread(target=_stop_at_end_of_input, name="lifeline", daemon=True).start()


def _stop_at_end_of_input() -> None:
    while os.read(sys.stdin.fileno(), 1024):
        pass
    os.kill(os.getpid(), signal.SIGTERM)
