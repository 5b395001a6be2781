"""Colour on a terminal, and the lines that ``-q`` leaves there."""

import logging
import os
import sys
from typing import Literal

RESULTS = "genlab.results"
"""Logger of a run's last lines, which ``-q`` shows too (configs/hydra/job_logging/quiet.yaml)."""
_PROGRESS = "genlab.progress"  # nothing is written to it: its level says if progress is shown
_CODES = {"bold": 1, "red": 31, "yellow": 33}


def shows_progress() -> bool:
    """Return False under ``-q``, for displays that redraw a line and are no part of the log."""
    return logging.getLogger(_PROGRESS).level < logging.WARNING


def hides_bar() -> bool | None:
    """Return the ``disable`` of a tqdm bar: True under ``-q``, else None, which shows it on a terminal only."""
    return None if shows_progress() else True


def hide_progress(hidden: bool) -> None:
    """Set the value of :func:`shows_progress`, in a process that does not configure a job's log."""
    logging.getLogger(_PROGRESS).setLevel(logging.WARNING if hidden else logging.NOTSET)


def painted(text: str, color: Literal["bold", "red", "yellow"], *, is_terminal: bool) -> str:
    """Return text in a colour for a terminal, and as it is for a pipe or a file, a dumb terminal, or with NO_COLOR."""
    if os.environ.get("NO_COLOR") or os.environ.get("TERM") == "dumb" or not is_terminal:
        return text
    return f"\x1b[{_CODES[color]}m{text}\x1b[0m"


class ConsoleFormatter(logging.Formatter):
    """A formatter of lines on the standard output: warnings and errors in colour, a run's last lines in bold."""

    def format(self, record: logging.LogRecord) -> str:
        """Return the line of a record."""
        text, is_terminal = super().format(record), sys.stdout.isatty()
        if record.levelno >= logging.WARNING:
            return painted(text, "red" if record.levelno >= logging.ERROR else "yellow", is_terminal=is_terminal)
        return painted(text, "bold", is_terminal=is_terminal) if record.name == RESULTS else text
