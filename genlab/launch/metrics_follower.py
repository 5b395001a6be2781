"""Reading a run's metrics.jsonl while the run writes it."""

import json
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from genlab.storage import opened_within

_NAME = "metrics.jsonl"
_MAX_BYTES = 4_000_000
"""Maximum number of bytes per read; a longer line is skipped, and everything after it."""


class MetricsFollower:
    """Reader that returns each line once, also after a resumed run has cut the file back to its checkpoint.

    Args:
        folder: Of the run.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._offset = 0
        self._last_step = -1
        self._is_catching_up = False

    def new_records(self) -> list[dict[str, Any]]:
        """Return the complete lines written since the last call, without steps that were read before."""
        records = []
        for line in self._new_lines():
            try:
                record = json.loads(line)
                step = int(record["step"])
            except (ValueError, KeyError, TypeError, OverflowError, RecursionError):
                continue
            if self._is_catching_up and step <= self._last_step:
                continue
            self._is_catching_up = False
            self._last_step = max(self._last_step, step)
            records.append(record)
        return records

    def _new_lines(self) -> Iterator[bytes]:
        try:
            with opened_within(self._folder, _NAME) as file:
                if os.fstat(file.fileno()).st_size < self._offset:
                    self._offset, self._is_catching_up = 0, True
                file.seek(self._offset)
                while whole := _whole_lines(file.read(_MAX_BYTES)):
                    self._offset += len(whole)
                    file.seek(self._offset)
                    yield from whole.splitlines()
        except (OSError, ValueError):  # it does not exist yet, or cannot be read
            return


def _whole_lines(content: bytes) -> bytes:
    return content[: content.rfind(b"\n") + 1]
