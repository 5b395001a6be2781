"""Stopping by signals: a signal sets a flag; ``Trainer.fit`` ends the step, saves, and raises ``StoppedBySignal``."""

import os
import signal
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from types import FrameType

from genlab.errors import StoppedBySignal
from genlab.parallel.collectives import num_processes
from genlab.signals import Handler, handling, signal_text

_PASSED_ON_SECONDS = 2.0


class StopRequest:
    """The requests that signals have made so far.

    Args:
        last_line: Returns the last line on the terminal when a second signal ends the process at once.
    """

    def __init__(self, last_line: Callable[[], str]) -> None:
        self.signal_number: int | None = None
        self.save_requested = False
        self._last_line = last_line
        self._asked = 0.0
        self._waits_for_nothing = False

    def _on_stop(self, number: int, _frame: FrameType | None) -> None:
        if self.signal_number is not None:
            if num_processes() > 1 and time.monotonic() - self._asked < _PASSED_ON_SECONDS:
                return  # the same request: a scheduler signals every process, and the launcher passes it on as well
            if hasattr(sys, "ps1"):  # an interactive session, as in a notebook, which outlives its runs
                raise KeyboardInterrupt
            # The second request means now. Checkpoints are replaced atomically, so leaving at once loses nothing saved.
            _write(f"genlab: {self._last_line()}\n")
            os._exit(128 + number)
        self.signal_number = number
        self._asked = time.monotonic()
        if self._waits_for_nothing:
            raise StoppedBySignal(f"stopped by {signal_text(number)}", number)
        if number == signal.SIGINT and sys.stderr.isatty():
            _write("\nstopping after this step, which is saved; a second Ctrl-C exits at once\n")

    def _on_hangup(self, number: int, frame: FrameType | None) -> None:
        # A terminal that vanishes tells it twice, through its shell and by itself: never a demand to leave at once.
        if self.signal_number is None:
            self._on_stop(number, frame)

    def _on_save(self, _number: int, _frame: FrameType | None) -> None:
        self.save_requested = True

    @contextmanager
    def waiting_for_nothing(self) -> Iterator[None]:
        """Let a signal end the block at once, because nothing is left to save; several processes end it together.

        Raises:
            StoppedBySignal: There was one.
        """
        self._waits_for_nothing = num_processes() == 1
        try:
            if self._waits_for_nothing and self.signal_number is not None:
                raise StoppedBySignal(f"stopped by {signal_text(self.signal_number)}", self.signal_number)
            yield
        finally:
            self._waits_for_nothing = False

    def take_save_request(self) -> bool:
        """Return True once for each SIGUSR1."""
        requested, self.save_requested = self.save_requested, False
        return requested


@contextmanager
def listen_for_signals(last_line: Callable[[], str]) -> Iterator[StopRequest]:
    """Let SIGINT, SIGTERM and SIGHUP ask to save and stop, and SIGUSR1 to save and go on, while the block runs.

    Args:
        last_line: See :class:`StopRequest`.
    """
    request = StopRequest(last_line)
    handlers: dict[signal.Signals, Handler] = {signal.SIGINT: request._on_stop, signal.SIGTERM: request._on_stop}
    handlers |= {signal.SIGHUP: request._on_hangup, signal.SIGUSR1: request._on_save}
    with handling(handlers):
        yield request


def _write(text: str) -> None:
    """Write to the standard error, past Python's files, which a handler may have interrupted."""
    with suppress(OSError):
        os.write(2, text.encode())
