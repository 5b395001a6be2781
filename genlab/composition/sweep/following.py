"""Reading a run's metrics.jsonl while the run writes it."""

import json
from pathlib import Path
from typing import Any


class MetricsFollower:
    """Yields each line once, also when a resumed run has cut the file back to its checkpoint."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._offset = 0
        self._last_step = -1
        self._is_catching_up = False

    def new_records(self) -> list[dict[str, Any]]:
        """The whole lines since the last call; steps seen before the file was cut are left out."""
        try:
            size = self._path.stat().st_size
            if size < self._offset:
                self._offset, self._is_catching_up = 0, True
            with self._path.open("rb") as file:
                file.seek(self._offset)
                content = file.read()
        except OSError:
            return []
        whole = content[: content.rfind(b"\n") + 1]
        self._offset += len(whole)
        records = []
        for line in whole.splitlines():
            try:
                record = json.loads(line)
                step = int(record["step"])
            except (ValueError, KeyError, TypeError):
                continue
            if self._is_catching_up and step <= self._last_step:
                continue
            self._is_catching_up = False
            self._last_step = max(self._last_step, step)
            records.append(record)
        return records
