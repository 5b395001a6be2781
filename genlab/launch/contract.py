"""What a command offers to Hydra's application, and what it may know of how it was started."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol, runtime_checkable

from genlab.config.compose import Composed
from genlab.launch.processes import Processes


@dataclass(frozen=True, kw_only=True)
class JobContext:
    """The circumstances of a command's start."""

    command: str
    """The line that repeats it."""
    overrides: tuple[str, ...]
    choices: Mapping[str, str]
    """Options of the config groups that were chosen."""
    run_folder: Path
    """Of the first process where there are several."""
    is_restarted: bool
    """Whether processes before these died in the same run folder."""
    config_folders: tuple[Path, ...]
    """The configuration tree: ours, then the user's."""


@runtime_checkable
class CommandModule(Protocol):
    """A command's module; ``read`` checks and touches nothing, ``run`` acts."""

    def read(self, values: Mapping[str, Any], overrides: Sequence[str]) -> Any:
        """Settings from the composed configuration; raises ConfigurationError."""

    def run(self, settings: Any, context: JobContext) -> None:
        """Do it."""


@runtime_checkable
class SpreadModule(CommandModule, Protocol):
    """Of a command that several processes can carry out together."""

    def processes(self, settings: Any) -> Processes:
        """What it asks of the machine; raises ConfigurationError."""


@runtime_checkable
class PickledJob(Protocol):
    """The callable that Hydra is given."""

    def __call__(self, configuration: Composed) -> None:
        """Run one job."""

    def module(self) -> CommandModule:
        """The command's module."""
