"""A run is asked to stop by a signal, at its next step; a terminal that vanishes is no demand to leave at once."""

import os
import signal
from collections.abc import Iterator

import pytest

from genlab.training.signals import listen_for_signals


@pytest.fixture(autouse=True)
def as_in_a_terminal() -> Iterator[None]:
    former = signal.signal(signal.SIGHUP, signal.SIG_DFL)
    yield
    signal.signal(signal.SIGHUP, former)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_a_signal_is_a_request(number: signal.Signals) -> None:
    before = signal.getsignal(number)
    with listen_for_signals() as request:
        os.kill(os.getpid(), number)
        assert request.signal_number == number
    assert signal.getsignal(number) == before


@pytest.mark.parametrize("first", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_a_terminal_that_vanishes_tells_it_twice(first: signal.Signals) -> None:
    """Its shell passes SIGHUP on and then ends, upon which the kernel sends it again."""
    with listen_for_signals() as request:
        for number in (first, signal.SIGHUP, signal.SIGHUP):
            os.kill(os.getpid(), number)
        assert request.signal_number == first


def test_nohup_counts() -> None:
    signal.signal(signal.SIGHUP, signal.SIG_IGN)
    with listen_for_signals() as request:
        os.kill(os.getpid(), signal.SIGHUP)
        assert request.signal_number is None


def test_a_second_interruption_after_a_hangup_leaves_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    codes: list[int] = []
    monkeypatch.setattr(os, "_exit", codes.append)
    with listen_for_signals():
        os.kill(os.getpid(), signal.SIGHUP)
        os.kill(os.getpid(), signal.SIGINT)
    assert codes == [130]
