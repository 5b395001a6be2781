"""`genlab board`: TensorBoard on a folder of runs, accessible from this machine only."""

import os
import sys
from dataclasses import dataclass
from pathlib import Path

from genlab.config.fields import reader_of
from genlab.config.suggestions import nearest
from genlab.launch.contract import JobContext

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
        folder = Path(self.folder)
        if not folder.is_dir():
            siblings = [str(path) for path in folder.parent.glob("*") if path.is_dir()]
            guess = nearest(self.folder, siblings)
            tail = f"did you mean '{guess}'?" if guess else "train first, or name another: genlab board some/folder"
            raise ValueError(f"folder must be an existing folder of runs, got {self.folder}; {tail}")


read = reader_of(BoardSettings)


def run(settings: BoardSettings, context: JobContext) -> None:
    """Replace this process by TensorBoard, which says itself if the port is taken."""
    del context
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
        str(Path(settings.folder).absolute()),
        "--host",
        "localhost",
        "--samples_per_plugin",
        SAMPLES,
        *(() if settings.port is None else ("--port", str(settings.port))),
    ]
