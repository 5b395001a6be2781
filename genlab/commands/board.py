"""`genlab board`: TensorBoard on a folder of runs, accessible from this machine only."""

import errno
import json
import os
import socket
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from http.client import HTTPException
from pathlib import Path
from typing import Any
from urllib.request import ProxyHandler, build_opener

from genlab.config.fields import check_fields
from genlab.config.suggestions import nearest
from genlab.errors import ConfigurationError
from genlab.launch.contract import JobContext
from genlab.printing import printable

# By default TensorBoard keeps 10 pictures of a tag, a sample of a film of training; with 0 it shows none.
SAMPLES = "images=10000,scalars=5000"
_HOST = "localhost"
_PORTS_TRIED = 20
_ANSWER_SECONDS = 2.0
_MAX_ANSWER_BYTES = 100_000


@dataclass(frozen=True, kw_only=True)
class BoardSettings:
    """The keys of configs/board.yaml.

    Raises:
        ValueError: The port is out of range.
    """

    folder: str
    port: int

    def __post_init__(self) -> None:
        if not 1 <= self.port <= 65535:
            raise ValueError(f"port must be between 1 and 65535, got {self.port}")


def read(values: Mapping[str, Any], overrides: Sequence[str]) -> BoardSettings:
    """Return the checked settings.

    Raises:
        ConfigurationError: The folder does not exist.
    """
    del overrides
    settings = check_fields(BoardSettings, values, "")
    folder = Path(settings.folder)
    if not folder.is_dir():
        siblings = [str(path) for path in folder.parent.glob("*") if path.is_dir()]
        guess = nearest(settings.folder, siblings)
        tail = f"did you mean '{guess}'?" if guess else "train first, or name another: genlab board some/folder"
        raise ConfigurationError(f"folder must be an existing folder of runs, got {settings.folder}; {tail}")
    return settings


def run(settings: BoardSettings, context: JobContext) -> None:
    """Replace this process by TensorBoard.

    Raises:
        ConfigurationError: The port is taken, or only the administrator may take it.
    """
    del context
    require_free_port(settings)
    sys.stdout.flush()
    os.execv(sys.executable, tensorboard_command(settings))


def require_free_port(settings: BoardSettings) -> None:
    """Refuse a port that is in use, and name the program that uses it and a free port.

    Raises:
        ConfigurationError: As said.
    """
    refused = _refusal_of_port(settings.port)
    if refused is None:
        return
    others = range(settings.port + 1, min(settings.port + 1 + _PORTS_TRIED, 65536))
    free = next((port for port in others if _refusal_of_port(port) is None), None)
    hint = "" if free is None else f"; port={free} is free"
    raise ConfigurationError(f"port must be free, got {settings.port}: {_owner_of(settings, refused)}{hint}")


def _refusal_of_port(port: int) -> OSError | None:
    """Return the error that a server at this port of this machine meets, if any."""
    for family, kind, _, _, address in socket.getaddrinfo(_HOST, port, type=socket.SOCK_STREAM):
        with socket.socket(family, kind) as server:
            server.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)  # as TensorBoard does
            try:
                server.bind(address)
                server.listen()
            except OSError as error:
                if error.errno != errno.EADDRNOTAVAIL:  # a machine may lack one of the two versions of IP
                    return error
    return None


def _owner_of(settings: BoardSettings, refused: OSError) -> str:
    if refused.errno != errno.EADDRINUSE:
        return str(refused.strerror)
    address = f"http://{_HOST}:{settings.port}"
    try:
        with build_opener(ProxyHandler({})).open(f"{address}/data/environment", timeout=_ANSWER_SECONDS) as answer:
            shown = str(json.loads(answer.read(_MAX_ANSWER_BYTES))["data_location"])
    except (OSError, ValueError, LookupError, TypeError, HTTPException):
        return "another program uses it"
    if Path(shown).resolve() == Path(settings.folder).resolve():
        return f"a TensorBoard shows this folder at {address} already"
    return f"another TensorBoard uses it, for {printable(shown)}"


def tensorboard_command(settings: BoardSettings) -> list[str]:
    """Return the command line of TensorBoard, which listens on this machine only."""
    return [
        sys.executable,
        "-P",  # with -m alone Python would import from the working directory
        "-m",
        "tensorboard.main",
        "--logdir",
        str(Path(settings.folder).absolute()),
        "--host",
        _HOST,
        "--port",
        str(settings.port),
        "--samples_per_plugin",
        SAMPLES,
    ]
