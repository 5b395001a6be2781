"""The interface of a logger, which displays a run's scalars and pictures; the record is metrics.jsonl.

A logger of your own is a class and a YAML file, ``logger/mine.yaml``, whose keys are its arguments; the line
``genlab train logger=[tensorboard,mine]`` adds it to a run. Only rank 0 logs.
"""

import json
import re
from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from typing import Any

from torch import Tensor

from genlab.errors import ConfigurationError
from genlab.storage import read_json_if_whole, replace_atomically

HyperParameters = Mapping[str, bool | int | float | str]

_IDS_NAME = "loggers.json"
_ID = re.compile(r"[\w-]{1,64}", re.ASCII)


@dataclass(frozen=True, kw_only=True)
class LoggedRun:
    """The run that a logger shows."""

    folder: Path
    start_step: int
    """0 for a new run; the step of the checkpoint that a resumed one starts from."""
    hyperparameters: HyperParameters
    """Choices and numbers by dotted key."""

    @property
    def configuration(self) -> Path:
        """The file of the resolved configuration."""
        return self.folder / "config.yaml"

    @property
    def name(self) -> str:
        """The run's name, with its parent folder: run numbers restart for each model and data set."""
        return "/".join(self.folder.absolute().parts[-2:])

    def kept_id(self, logger: str) -> str | None:
        """Return the id under which an earlier start of the run was logged; None if absent."""
        found = self._ids().get(logger)
        return found if isinstance(found, str) and _ID.fullmatch(found) else None

    def keep_id(self, logger: str, value: str) -> None:
        """Keep the id of the run, so that a resumed run continues it."""
        replace_atomically(self.folder / _IDS_NAME, json.dumps({**self._ids(), logger: value}).encode())

    def _ids(self) -> dict[str, Any]:
        return read_json_if_whole(self.folder, _IDS_NAME)


class Logger(ABC):
    """Base class of loggers. After an exception of any method but the first two, it is switched off with a warning."""

    def require(self) -> None:  # noqa: B027 - most have nothing to check
        """Check, before a run folder is made, that the logger can be used.

        Raises:
            ConfigurationError: Its library is missing, or needs a login.
        """

    @abstractmethod
    def open(self, run: LoggedRun) -> None:
        """Begin to show a run, or continue with one that was resumed."""

    @abstractmethod
    def scalars(self, values: Mapping[str, float], *, step: int) -> None:
        """Show scalars by tag, each once at a step."""

    @abstractmethod
    def picture(self, tag: str, image: Tensor, *, step: int) -> None:
        """Show one picture of shape (C, H, W) in [0, 1]."""

    def conclude(self, measures: Mapping[str, float]) -> None:  # noqa: B027 - scalars may show them already
        """Show the measures of a finished run: of its test, and of its best checkpoint."""

    def flush(self) -> None:  # noqa: B027 - most write at once
        """Write all buffered data."""

    @abstractmethod
    def close(self, *, succeeded: bool) -> None:
        """End the session."""


def library(name: str, *, logger: str) -> Any:
    """Return the module of a logger's library.

    Raises:
        ConfigurationError: It cannot be imported.
    """
    try:
        return import_module(name)
    except ImportError as error:
        raise ConfigurationError(
            f"logger=[{logger}] needs a library that is not installed ({error}); pip install 'genlab[{logger}]'"
        ) from error
