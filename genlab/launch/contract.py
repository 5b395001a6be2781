"""The interface between a command and Hydra's application, and the context of its start."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol, runtime_checkable

from genlab.config.compose import Composed
from genlab.launch.processes import Processes


@dataclass(frozen=True, kw_only=True)
class JobContext:
    """The context in which a command was started."""

    command: str
    """The command line that repeats it."""
    overrides: tuple[str, ...]
    choices: Mapping[str, str]
    """Options of the config groups that were chosen."""
    run_folder: Path
    """The run folder, that of rank 0 in a distributed run."""
    is_restarted: bool
    """True if earlier processes died in the same run folder."""
    config_folders: tuple[Path, ...]
    """The configuration tree: ours, then the user's."""


@runtime_checkable
class CommandModule(Protocol):
    """A command's module; ``read`` checks and touches nothing, ``run`` acts."""

    def read(self, values: Mapping[str, Any], overrides: Sequence[str]) -> Any:
        """Return the settings of the composed configuration; raises ConfigurationError."""

    def run(self, settings: Any, context: JobContext) -> None:
        """Run the command."""


@runtime_checkable
class SpreadModule(CommandModule, Protocol):
    """The module of a command that several processes can run together."""

    def processes(self, settings: Any) -> Processes:
        """Return the processes that it needs; raises ConfigurationError."""


@runtime_checkable
class ReplacingModule(CommandModule, Protocol):
    """The module of a command that writes its results into one file or folder, in place of the previous ones."""

    def destination(self, settings: Any) -> Path:
        """Return the file or the folder."""


@runtime_checkable
class PickledJob(Protocol):
    """The callable that Hydra is given."""

    def __call__(self, configuration: Composed) -> None:
        """Run one job."""

    def module(self) -> CommandModule:
        """Return the command's module."""
