"""The errors a user can meet, each with the exit code that the command line returns for it."""

import errno
from typing import ClassVar


class GenlabError(Exception):
    """An expected failure: printed as one line, without a traceback."""

    exit_code: ClassVar[int]


class ConfigurationError(GenlabError, ValueError):
    """The configuration or the command line is invalid."""

    exit_code = 2


class DataError(GenlabError, ValueError):
    """A data set is missing, damaged or of the wrong shape."""

    exit_code = 3


class CheckpointError(GenlabError, RuntimeError):
    """A checkpoint is missing, damaged, refused, or belongs to another model."""

    exit_code = 4


class NonFiniteError(GenlabError, RuntimeError):
    """A loss or a gradient stopped being finite; no weight was updated with it."""

    exit_code = 5


class MemoryExhaustedError(GenlabError, RuntimeError):
    """The device or the host ran out of memory."""

    exit_code = 6


class StorageError(GenlabError, OSError):
    """The disk is full or a folder cannot be written."""

    exit_code = 7


class FolderInUseError(GenlabError, RuntimeError):
    """Another process has locked the run folder."""

    exit_code = 8


class ProcessLostError(GenlabError, RuntimeError):
    """A process of a distributed run died."""

    exit_code = 1


class ProcessHungError(ProcessLostError):
    """A process of a distributed run did not answer in time."""


class SweepError(GenlabError, RuntimeError):
    """At least one job of a sweep failed."""

    exit_code = 9


_OUT_OF_MEMORY = ("can't allocate memory", "not enough memory", "out of memory")
_OUT_OF_MEMORY_FOR_CODE = "could not create a primitive"  # of oneDNN; "... a primitive descriptor" is another fault


def is_out_of_memory(error: BaseException) -> bool:
    """Return True if Python, the OS, torch on the CPU (a plain RuntimeError) or torch on a device is out of memory."""
    if isinstance(error, MemoryError) or (isinstance(error, OSError) and error.errno == errno.ENOMEM):
        return True
    if not isinstance(error, RuntimeError):
        return False
    return str(error) == _OUT_OF_MEMORY_FOR_CODE or any(sign in str(error).lower() for sign in _OUT_OF_MEMORY)


class StoppedBySignal(GenlabError):  # noqa: N818 - stopping on request is not an error
    """A signal asked the run to stop; its state was saved and it can be resumed."""

    def __init__(self, message: str, signal_number: int) -> None:
        super().__init__(message)
        self.exit_code = 128 + signal_number  # type: ignore[misc]
