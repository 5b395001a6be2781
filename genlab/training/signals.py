"""Stopping on request: a signal sets a flag, and the loop saves at the next step's end."""

import os
import signal
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType

from genlab.collectives import num_processes

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

    def _on_save(self, _number: int, _frame: FrameType | None) -> None:
        self.save_requested = True

    def take_save_request(self) -> bool:
        """True once for each SIGUSR1."""
        requested, self.save_requested = self.save_requested, False
        return requested


@contextmanager
def listen_for_signals() -> Iterator[StopRequest]:
    """SIGINT and SIGTERM ask to save and stop, SIGUSR1 to save and go on; former handlers come back at the end."""
    request = StopRequest()
    if threading.current_thread() is not threading.main_thread():
        yield request  # Python delivers signals to the main thread only
        return
    handlers: dict[signal.Signals, Callable[[int, FrameType | None], None]]
    handlers = {signal.SIGINT: request._on_stop, signal.SIGTERM: request._on_stop}
    if hasattr(signal, "SIGUSR1"):
        handlers[signal.SIGUSR1] = request._on_save
    former = {number: signal.signal(number, handler) for number, handler in handlers.items()}
    try:
        yield request
    finally:
        for number, handler in former.items():
            signal.signal(number, handler)
