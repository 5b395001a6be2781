"""`genlab board` before it becomes TensorBoard: its command line, and a port that is in use."""

import json
import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path

import pytest

from genlab.commands import board
from genlab.commands.board import BoardSettings, tensorboard_command
from tests.conftest import Outcome


def test_board_listens_on_this_machine_only() -> None:
    command = tensorboard_command(BoardSettings(folder="outputs", port=6006))
    assert command[command.index("--host") + 1] == "localhost"
    assert "--bind_all" not in command
    assert command[command.index("--samples_per_plugin") + 1] == "images=10000,scalars=5000"
    assert Path(command[command.index("--logdir") + 1]) == Path.cwd() / "outputs"


@contextmanager
def server(answer: bytes) -> Iterator[int]:
    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(200 if self.path == "/data/environment" else 404)
            self.end_headers()
            self.wfile.write(answer)

        def log_message(self, format: str, *arguments: object) -> None:
            pass

    with HTTPServer(("localhost", 0), Handler) as opened:
        thread = threading.Thread(target=opened.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        try:
            yield opened.server_address[1]
        finally:
            opened.shutdown()
            thread.join()


ANSWERS: list[tuple[Callable[[Path], bytes], str]] = [
    (
        lambda place: json.dumps({"data_location": str(place)}).encode(),
        "a TensorBoard shows this folder at http://localhost:",
    ),
    (
        lambda place: json.dumps({"data_location": "/x/\x1b[2J"}).encode(),
        r"another TensorBoard uses it, for /x/\x1b[2J;",
    ),
    (lambda place: b"<html>", "another program uses it;"),
    (lambda place: b"[1]", "another program uses it;"),
    (lambda place: b"", "another program uses it;"),
]


@pytest.fixture
def became(monkeypatch: pytest.MonkeyPatch) -> list[list[str]]:
    """Record the command line that the process would have become."""
    lines: list[list[str]] = []
    monkeypatch.setattr(board.os, "execv", lambda program, line: lines.append(line))
    monkeypatch.setattr(board, "_ANSWER_SECONDS", 0.3)
    monkeypatch.setenv("http_proxy", "http://localhost:1")  # it has no part in this
    return lines


@pytest.mark.parametrize(("answer", "message"), ANSWERS)
def test_a_port_that_is_taken_is_said_with_its_owner_and_a_free_one(
    genlab: Callable[..., Outcome],
    tmp_path: Path,
    became: list[list[str]],
    answer: Callable[[Path], bytes],
    message: str,
) -> None:
    with server(answer(tmp_path)) as port:
        outcome = genlab("board", ".", f"port={port}")
    assert (outcome.code, outcome.errors.count("\n")) == (2, 1)
    assert f"port must be free, got {port}: {message}" in outcome.errors
    free = int(outcome.errors.partition("port=")[2].partition(" is free")[0])
    assert port < free <= port + 20
    assert became == []


def test_a_program_that_does_not_answer_is_not_waited_for(
    genlab: Callable[..., Outcome], tmp_path: Path, became: list[list[str]]
) -> None:
    with socket.create_server(("localhost", 0)) as deaf:
        outcome = genlab("board", ".", f"port={deaf.getsockname()[1]}")
    assert outcome.code == 2
    assert "another program uses it" in outcome.errors


def test_a_port_that_is_free_again_is_taken(
    genlab: Callable[..., Outcome], tmp_path: Path, became: list[list[str]]
) -> None:
    """A connection that was just closed does not keep the port in use."""
    with socket.create_server(("localhost", 0)) as server:
        port = server.getsockname()[1]
        with socket.create_connection(("localhost", port)):
            server.accept()[0].close()
    outcome = genlab("board", ".", f"port={port}")
    assert outcome.code == 0, outcome.errors
    assert became == [tensorboard_command(BoardSettings(folder=".", port=port))]


def test_a_port_of_the_administrators_is_said(
    genlab: Callable[..., Outcome], tmp_path: Path, became: list[list[str]], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(
        board, "_refusal_of_port", lambda port: PermissionError(13, "Permission denied") if port < 1024 else None
    )
    outcome = genlab("board", ".", "port=80")
    assert outcome.code == 2
    assert "port must be free, got 80: Permission denied\n" in outcome.errors
