"""A run is asked to stop by a signal, at its next step; a terminal that vanishes is no demand to leave at once."""

import os
import signal
from pathlib import Path

import pytest

from genlab.errors import StoppedBySignal
from genlab.training.signals import listen_for_signals
from tests.training.conftest import make_trainer

pytestmark = pytest.mark.usefixtures("hangups_count")


def last_line() -> str:
    return "to resume: this way"


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_a_signal_is_a_request(number: signal.Signals) -> None:
    before = signal.getsignal(number)
    with listen_for_signals(last_line) as request:
        os.kill(os.getpid(), number)
        assert request.signal_number == number
    assert signal.getsignal(number) == before


def test_the_last_line_of_a_run_names_the_way_on_before_and_after_the_first_checkpoint(tmp_path: Path) -> None:
    trainer = make_trainer(tmp_path)
    assert trainer._last_line() == f"nothing was saved; to begin anew: {trainer.resume_command}"
    trainer.fit(resume=False)
    assert trainer._last_line() == f"to resume from the last checkpoint: {trainer.resume_command}"


@pytest.mark.parametrize("first", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_a_terminal_that_vanishes_tells_it_twice(first: signal.Signals) -> None:
    """Its shell passes SIGHUP on and then ends, upon which the kernel sends it again."""
    with listen_for_signals(last_line) as request:
        for number in (first, signal.SIGHUP, signal.SIGHUP):
            os.kill(os.getpid(), number)
        assert request.signal_number == first


def test_nohup_counts() -> None:
    signal.signal(signal.SIGHUP, signal.SIG_IGN)
    with listen_for_signals(last_line) as request:
        os.kill(os.getpid(), signal.SIGHUP)
        assert request.signal_number is None


@pytest.mark.parametrize("first", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
@pytest.mark.parametrize("second", [signal.SIGINT, signal.SIGTERM])
def test_a_second_signal_leaves_at_once(
    monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str], first: signal.Signals, second: signal.Signals
) -> None:
    codes: list[int] = []
    monkeypatch.setattr(os, "_exit", codes.append)
    with listen_for_signals(last_line):
        os.kill(os.getpid(), first)
        os.kill(os.getpid(), second)
    assert codes == [128 + second]
    assert capfd.readouterr().err == "genlab: to resume: this way\n"


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_where_nothing_is_left_to_save_a_signal_ends_it_at_once(number: signal.Signals) -> None:
    raises = pytest.raises(StoppedBySignal, match="stopped by")
    with listen_for_signals(last_line) as request, raises as stopped, request.waiting_for_nothing():
        os.kill(os.getpid(), number)
    assert stopped.value.exit_code == 128 + number
    with listen_for_signals(last_line) as request:
        os.kill(os.getpid(), number)  # just before
        with pytest.raises(StoppedBySignal), request.waiting_for_nothing():
            pytest.fail("it goes on")
