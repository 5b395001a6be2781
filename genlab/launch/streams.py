"""Guards for the standard streams of a process, which may be closed, broken, or a terminal that is gone.

Commands that print end when nobody reads, as other programs do. Those that write files continue without output.
"""

import errno
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from io import TextIOWrapper
from typing import Any, TextIO, cast

from genlab.errors import StorageError

_NAMES = ("stdin", "stdout", "stderr")
_EXIT_CODES = {errno.EPIPE: 141, errno.EIO: 129}  # 128 + SIGPIPE and SIGHUP, which Windows does not have


class _Guarded:
    """An output stream that goes to the null device from its first failure on.

    Args:
        stream: The stream itself.
        is_needed: True if its failure ends the command.
        is_missed: True if its failure is reported on the standard error.
    """

    def __init__(self, stream: Any, *, is_needed: bool, is_missed: bool = False) -> None:
        self._stream = stream
        self.is_needed = is_needed
        self._is_missed = is_missed

    def write(self, text: str) -> int:
        try:
            return int(self._stream.write(text))
        except OSError as error:
            self._give_up(error)
            return len(text)

    def flush(self) -> None:
        try:
            self._stream.flush()
        except OSError as error:
            self._give_up(error)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)

    def _give_up(self, error: OSError) -> None:
        null = os.open(os.devnull, os.O_WRONLY)
        os.dup2(null, self._stream.fileno())  # buffered output goes there too, at the latest at Python's end
        os.close(null)
        if self.is_needed:
            if error.errno in _EXIT_CODES:
                raise SystemExit(_EXIT_CODES[error.errno]) from None
            raise StorageError(f"the standard output cannot be written: {error.strerror}") from error
        if self._is_missed:
            sys.stderr.write(f"genlab: the standard output is gone ({error.strerror}); the command continues\n")


@contextmanager
def guarded_streams() -> Iterator[None]:
    """Open the streams that the caller has closed, and guard those of output while the block runs.

    Raises:
        SystemExit: Nobody reads the standard output, of a command that prints.
        StorageError: It cannot be written for another reason.
    """
    _open_missing()
    previous = sys.stdout, sys.stderr
    for stream in previous:
        if isinstance(stream, TextIOWrapper) and stream.errors == "strict":
            stream.reconfigure(errors="backslashreplace")  # a name with an accent is no error of the command
    sys.stdout = cast(TextIO, _Guarded(sys.stdout, is_needed=True, is_missed=True))
    sys.stderr = cast(TextIO, _Guarded(sys.stderr, is_needed=False))
    try:
        yield
    finally:
        sys.stdout, sys.stderr = previous


def outlive_readers() -> None:
    """Let the process continue from now on when nobody reads its output."""
    if isinstance(sys.stdout, _Guarded):
        sys.stdout.is_needed = False
    else:  # in the worker of a launcher: the process of the sweep reports it
        sys.stdout = cast(TextIO, _Guarded(sys.stdout, is_needed=False))


def _open_missing() -> None:
    """Open the null device in place of closed streams, since the first files of a run would get their numbers."""
    for number, name in enumerate(_NAMES):
        try:
            os.fstat(number)
        except OSError:
            null = os.open(os.devnull, os.O_RDWR)  # gets the lowest number that is free: this one
            os.set_inheritable(null, True)
            if getattr(sys, name) is None:
                setattr(sys, name, os.fdopen(null, "r" if number == 0 else "w"))
