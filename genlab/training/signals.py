"""Stopping on request: a signal sets a flag, and the loop saves at the next step's end."""

import os
import signal
import time
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

from genlab.collectives import num_processes
from genlab.signals import Handler, handling

_PASSED_ON_SECONDS = 2.0


class StopRequest:
    """What the signals have asked for so far."""

    def __init__(self) -> None:
        self.signal_number: int | None = None
        self.save_requested = False
        self._asked = 0.0

    def _on_stop(self, number: int, _frame: FrameType | None) -> None:
        if self.signal_number is not None:
            if num_processes() > 1 and time.monotonic() - self._asked < _PASSED_ON_SECONDS:
                return  # the same request: a scheduler signals every process, and the launcher passes it on as well
            # The second request means now. Checkpoints are replaced atomically, so leaving at once loses nothing saved.
            os._exit(128 + number)
        self.signal_number = number
        self._asked = time.monotonic()

    def _on_hangup(self, number: int, frame: FrameType | None) -> None:
        # A terminal that vanishes tells it twice, through its shell and by itself: never a demand to leave at once.
        if self.signal_number is None:
            self._on_stop(number, frame)

    def _on_save(self, _number: int, _frame: FrameType | None) -> None:
        self.save_requested = True

    def take_save_request(self) -> bool:
        """True once for each SIGUSR1."""
        requested, self.save_requested = self.save_requested, False
        return requested


@contextmanager
def listen_for_signals() -> Iterator[StopRequest]:
    """Let SIGINT, SIGTERM and SIGHUP ask to save and stop, and SIGUSR1 to save and go on, while the block runs."""
    request = StopRequest()
    handlers: dict[signal.Signals, Handler] = {signal.SIGINT: request._on_stop, signal.SIGTERM: request._on_stop}
    handlers |= {signal.SIGHUP: request._on_hangup, signal.SIGUSR1: request._on_save}
    with handling(handlers):
        yield request
