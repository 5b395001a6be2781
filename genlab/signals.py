"""Temporary signal handlers."""

import signal
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from types import FrameType

Handler = Callable[[int, FrameType | None], object] | signal.Handlers


@contextmanager
def handling(handlers: Mapping[signal.Signals, Handler]) -> Iterator[None]:
    """Handle signals while the block runs; the previous handlers are restored at its end.

    A SIGHUP that is ignored, as under nohup, stays ignored. Outside of the main thread, which alone gets signals from
    Python, nothing changes.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    previous = {
        number: signal.signal(number, handler)
        for number, handler in handlers.items()
        if number != signal.SIGHUP or signal.getsignal(number) is not signal.SIG_IGN
    }
    try:
        yield
    finally:
        for number, before in previous.items():
            signal.signal(number, before)


def signal_text(number: int) -> str:
    """Return the name of a signal for the user."""
    return "Ctrl-C" if number == signal.SIGINT else signal.Signals(number).name
