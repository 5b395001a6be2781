"""Watchdog of a job of a sweep: the job stops when its standard input, a pipe from its parent process, closes.

The pipe closes on request and whenever the parent process dies, on every system. A signal to a process group would
reach too many processes, and a parent process that was killed sends no signal.
"""

import os
import signal
import sys
import threading

VARIABLE = "GENLAB_JOB_OF_SWEEP"


def start_watchdog() -> None:
    """Stop a job of a sweep as on SIGTERM once its parent process closes the pipe; do nothing elsewhere."""
    if os.environ.pop(VARIABLE, None) is None:
        return
    # SLURM announces the end of a job's time with it; the parent process's launcher handles it and closes the pipe.
    signal.signal(signal.SIGUSR2, signal.SIG_IGN)
    threading.Thread(target=_stop_at_end_of_input, name="watchdog", daemon=True).start()


def _stop_at_end_of_input() -> None:
    while os.read(sys.stdin.fileno(), 1024):
        pass
    os.kill(os.getpid(), signal.SIGTERM)
