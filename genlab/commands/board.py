"""`genlab board`: TensorBoard on a folder of runs, seen from this machine only."""

import os
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from genlab.composition.application import JobContext
from genlab.composition.fields import check_fields
from genlab.composition.suggestions import nearest
from genlab.errors import ConfigurationError

# By default TensorBoard keeps 10 pictures of a tag, a sample of a film of training.
SAMPLES = "images=200,scalars=5000"


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
    """The checked settings.

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
    """Become TensorBoard."""
    del context
    sys.stdout.flush()
    os.execv(sys.executable, tensorboard_command(settings))


def tensorboard_command(settings: BoardSettings) -> list[str]:
    """The command line; the host is this machine's own, so that nothing is shown to the network."""
    return [
        sys.executable,
        "-P",  # with -m alone Python would import from the working directory
        "-m",
        "tensorboard.main",
        "--logdir",
        settings.folder,
        "--host",
        "localhost",
        "--port",
        str(settings.port),
        "--samples_per_plugin",
        SAMPLES,
    ]
