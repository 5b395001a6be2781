"""Environment variables that a process reads before it joins others."""

import signal
import socket

import pytest
import torch

from genlab.errors import ConfigurationError, ProcessLostError
from genlab.parallel import processes
from genlab.parallel.collectives import num_processes
from genlab.parallel.place import stray_place_warning
from genlab.parallel.processes import joined, own_device

CPU = torch.device("cpu")
PLACE = {"WORLD_SIZE": "2", "RANK": "0", "LOCAL_RANK": "0", "MASTER_ADDR": "localhost", "MASTER_PORT": "1"}


@pytest.mark.parametrize(
    "variables",
    [
        {"WORLD_SIZE": "2"},
        {"WORLD_SIZE": "abc", "RANK": "0", "LOCAL_RANK": "0"},
        {"WORLD_SIZE": "2", "RANK": "0"},
        {name: value for name, value in PLACE.items() if name != "LOCAL_RANK"},  # as some container platforms set them
        {name: value for name, value in PLACE.items() if name != "MASTER_PORT"},
        PLACE | {"MASTER_ADDR": ""},
        PLACE | {"RANK": "2"},
        PLACE | {"RANK": "-1"},
        PLACE | {"WORLD_SIZE": "²"},
        PLACE | {"WORLD_SIZE": "1"},
        {"WORLD_SIZE": "1", "RANK": "0", "LOCAL_RANK": "0"},
    ],
)
def test_a_process_is_alone_without_a_whole_place(monkeypatch: pytest.MonkeyPatch, variables: dict[str, str]) -> None:
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    with joined(CPU):
        assert num_processes() == 1
    assert own_device(torch.device("cuda")) == torch.device("cuda")


@pytest.mark.parametrize("text", ["abc", "0", "-3", "nan", "inf", "1e300", ""])
def test_a_time_that_is_none_is_refused(monkeypatch: pytest.MonkeyPatch, text: str) -> None:
    for name, value in {**PLACE, "GENLAB_TIMEOUT_SECONDS": text}.items():
        monkeypatch.setenv(name, value)
    message = f"^GENLAB_TIMEOUT_SECONDS must be a positive number of seconds, at most a week, got {text}$"
    with pytest.raises(ConfigurationError, match=message), joined(CPU):
        pass


@pytest.fixture
def port_without_others(monkeypatch: pytest.MonkeyPatch) -> int:
    with socket.socket() as probe:
        probe.bind(("localhost", 0))
        port: int = probe.getsockname()[1]
    for name, value in {**PLACE, "MASTER_PORT": str(port), "GENLAB_TIMEOUT_SECONDS": "1"}.items():
        monkeypatch.setenv(name, value)
    monkeypatch.delenv("TORCHELASTIC_RUN_ID", raising=False)
    return port


def test_who_waits_in_vain_says_for_whom_and_what_to_do(
    monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str], port_without_others: int
) -> None:
    monkeypatch.setattr(processes, "_SECONDS_BEFORE_TELLING", 0.0)
    account = f"RANK=0 and WORLD_SIZE=2 announce other processes at localhost:{port_without_others}"
    with pytest.raises(ConfigurationError, match=f"^{account}, which did not connect; to run alone"), joined(CPU):
        pass
    assert f"genlab: {account}: waiting for them; to run alone" in capfd.readouterr().err


@pytest.mark.slow
def test_under_a_launcher_those_who_do_not_come_are_lost(
    monkeypatch: pytest.MonkeyPatch, port_without_others: int
) -> None:
    """The launcher may restart all of them."""
    monkeypatch.setenv("TORCHELASTIC_RUN_ID", "7")
    with pytest.raises(ProcessLostError), joined(CPU):
        pass


def test_signals_end_who_waits_for_the_others(monkeypatch: pytest.MonkeyPatch, port_without_others: int) -> None:
    """torch waits in a call that ignores signals."""
    met: list[object] = []

    def wait(*_: object, **__: object) -> None:
        met.extend((signal.getsignal(signal.SIGINT), signal.getsignal(signal.SIGTERM)))
        raise ValueError("nobody comes")

    monkeypatch.setattr(torch.distributed, "init_process_group", wait)
    before = signal.signal(signal.SIGTERM, signal.SIG_IGN)
    try:
        with pytest.raises(ConfigurationError), joined(CPU):
            pass
        assert signal.getsignal(signal.SIGINT) is signal.default_int_handler
    finally:
        signal.signal(signal.SIGTERM, before)
    assert met == [signal.SIG_DFL, signal.SIG_IGN]


STRAY = [
    ({}, None),
    ({"WORLD_SIZE": "4"}, None),
    ({"RANK": "1"}, None),
    ({"RANK": "0", "WORLD_SIZE": "1"}, None),
    (PLACE, None),
    ({"RANK": "0", "WORLD_SIZE": "4"}, "without LOCAL_RANK, MASTER_ADDR, MASTER_PORT they"),
    (PLACE | {"RANK": "7"}, "RANK=7 and WORLD_SIZE=2 are ignored, because they"),
    (PLACE | {"RANK": "x"}, "RANK=x and WORLD_SIZE=2 are ignored, because they"),
]


@pytest.mark.parametrize(("variables", "message"), STRAY)
def test_a_promise_that_nobody_can_have_made_is_ignored_and_said(
    monkeypatch: pytest.MonkeyPatch, variables: dict[str, str], message: str | None
) -> None:
    for name in PLACE:
        monkeypatch.delenv(name, raising=False)
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    told = stray_place_warning()
    assert (told is None) == (message is None)
    assert (message or "") in (told or "")
