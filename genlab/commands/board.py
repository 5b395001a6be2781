"""`genlab board`: TensorBoard on a folder of runs, accessible from this machine only."""

import os
import socket
import sys
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

from genlab.config.fields import reader_of
from genlab.config.suggestions import nearest
from genlab.errors import ConfigurationError
from genlab.launch.contract import JobContext
from genlab.run.names import named_place

_HOST = "localhost"
# By default TensorBoard keeps 10 pictures of a tag, a sample of a film of training; with 0 it shows none.
SAMPLES = "images=10000,scalars=5000"


@dataclass(frozen=True, kw_only=True)
class BoardSettings:
    """The keys of configs/board.yaml.

    Raises:
        ValueError: The folder does not exist, or the port is out of range.
    """

    folder: str
    port: int | None
    """None takes TensorBoard's usual port, or the next one that is free."""

    def __post_init__(self) -> None:
        if self.port is not None and not 1 <= self.port <= 65535:
            raise ValueError(f"port must be null or between 1 and 65535, got {self.port}")
        folder = self.place
        if not folder.is_dir():
            siblings = [str(path) for path in folder.parent.glob("*") if path.is_dir()]
            guess = nearest(self.folder, siblings)
            tail = f"did you mean '{guess}'?" if guess else "train first, or name another: genlab board some/folder"
            raise ValueError(f"folder must be an existing folder of runs, got {self.folder}; {tail}")

    @cached_property
    def place(self) -> Path:
        """The folder, or that of the run which has this name."""
        return named_place(self.folder)


read = reader_of(BoardSettings)


def run(settings: BoardSettings, context: JobContext) -> None:
    """Replace this process by TensorBoard.

    Raises:
        ConfigurationError: The port is in use, or not this user's to take.
    """
    del context
    if settings.port is not None:
        try:
            socket.create_server((_HOST, settings.port)).close()
        except OSError as error:
            raise ConfigurationError(
                f"port {settings.port} cannot be used ({os.strerror(error.errno or 0)}); without a port the next free "
                "one is taken"
            ) from error
    sys.stdout.flush()
    os.execv(sys.executable, tensorboard_command(settings))


def tensorboard_command(settings: BoardSettings) -> list[str]:
    """Return the command line of TensorBoard, which listens on this machine only."""
    return [
        sys.executable,
        "-P",  # with -m alone Python would import from the working directory
        "-m",
        "tensorboard.main",
        "--logdir",
        str(settings.place.absolute()),
        "--host",
        _HOST,
        "--samples_per_plugin",
        SAMPLES,
        *(() if settings.port is None else ("--port", str(settings.port))),
    ]
