"""The log of a run: metrics.jsonl, which is the record, and the loggers that show it, such as TensorBoard."""

import json
import logging
import math
import threading
from collections.abc import Mapping
from contextlib import nullcontext, suppress
from pathlib import Path
from types import TracebackType

from torch import Tensor

from genlab.errors import ConfigurationError, StorageError
from genlab.printing import one_line
from genlab.storage import opened_within, replace_atomically
from genlab.training.logger import HyperParameters, LoggedRun, Logger

_MAX_DRAWN = 1e30

_log = logging.getLogger(__name__)


class RunLog:
    """The writer of one run's scalars and pictures; on resume it cuts the lines of the lost steps.

    Args:
        folder: Of the run.
        start_step: 0 for a new run, else that of the checkpoint.
        hyperparameters: Of the run.
        loggers: To open, by name.

    Raises:
        ConfigurationError: A logger cannot be opened.
    """

    def __init__(
        self, folder: Path, *, start_step: int, hyperparameters: HyperParameters, loggers: Mapping[str, Logger]
    ) -> None:
        self._path = folder / "metrics.jsonl"
        self._start_step = start_step
        # The test of a finished run, which a resumed run repeats.
        self._tags_at_start = _cut_after(self._path, start_step)
        # Line by line, for a sweep reads along: the search for settings stops a run whose curve is behind the others'.
        self._file = self._path.open("a", encoding="utf-8", buffering=1)
        self._loggers: dict[str, Logger] = {}
        self._previous_hook = threading.excepthook
        threading.excepthook = self._leave_to_next_call
        run = LoggedRun(folder=folder, start_step=start_step, hyperparameters=hyperparameters)
        for name, logger in loggers.items():
            try:
                logger.open(run)
            except OSError as error:
                _warn(name, error)
            except Exception as error:
                self.close(succeeded=False)
                raise ConfigurationError(f"logger.{name} cannot be opened: {one_line(str(error))}") from error
            else:
                self._loggers[name] = logger

    def scalars(self, values: Mapping[str, float], *, step: int, images_seen: int, seconds: float) -> None:
        """Write scalars by tag, each once at a step; a value that is not finite is null in metrics.jsonl."""
        if step == self._start_step:
            values = {tag: value for tag, value in values.items() if tag not in self._tags_at_start}
            if not values:
                return
        finite = {tag: value if math.isfinite(value) else None for tag, value in values.items()}
        record = {"step": step, "images_seen": images_seen, "seconds": round(seconds, 3), **finite}
        self._file.write(json.dumps(record) + "\n")
        self._show("scalars", values, step=step)

    def curve(self, tag: str | None) -> dict[int, float]:
        """Return the values of a tag by step, of every start of the run; empty for None."""
        found = {}
        with opened_within(self._path.parent, self._path.name) as file:
            for line in file:
                record = json.loads(line)  # each was parsed when the run was resumed, or is of this process
                value = record.get(tag)
                if isinstance(value, float) and abs(value) < _MAX_DRAWN:
                    found[record["step"]] = value
        return found

    def picture(self, tag: str, image: Tensor, *, step: int) -> None:
        """Show one picture of shape (C, H, W) in [0, 1]."""
        self._show("picture", tag, image, step=step)

    def conclude(self, measures: Mapping[str, float]) -> None:
        """Show the measures of a finished run by tag."""
        self._show("conclude", measures)

    def flush(self) -> None:
        """Write all buffered data, before each checkpoint, so that the numbers of saved steps are not lost."""
        self._file.flush()
        self._show("flush")

    def close(self, *, succeeded: bool) -> None:
        """End the session of each logger."""
        self._show("close", succeeded=succeeded)
        threading.excepthook = self._previous_hook
        with nullcontext() if succeeded else suppress(OSError):  # the reason of the failure counts
            self._file.close()

    def __enter__(self) -> "RunLog":
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: BaseException | TracebackType | None) -> None:
        self.close(succeeded=kind is None)

    def _show(self, method: str, *arguments: object, **named: object) -> None:
        """Call a method of each logger; a logger that fails is switched off with a warning."""
        for name, logger in list(self._loggers.items()):
            try:
                getattr(logger, method)(*arguments, **named)
            except Exception as error:
                del self._loggers[name]
                _warn(name, error)

    def _leave_to_next_call(self, arguments: threading.ExceptHookArgs) -> None:
        """Suppress the traceback of TensorBoard's writer thread, whose failure the next call raises again."""
        if not isinstance(arguments.exc_value, OSError):
            self._previous_hook(arguments)


def _warn(name: str, error: Exception) -> None:
    _log.warning("logger.%s cannot be written (%s); metrics.jsonl continues", name, one_line(str(error)))


def _cut_after(path: Path, step: int) -> set[str]:
    """Drop the lines of steps after the checkpoint, and an incomplete last line.

    Returns:
        The tags that stand at the step itself.
    """
    if not path.exists():
        return set()
    kept = bytearray()
    tags: set[str] = set()
    try:
        with opened_within(path.parent, path.name) as file:
            for line in file:
                try:
                    record = json.loads(line)
                    if record["step"] <= step:
                        kept += line.rstrip(b"\n") + b"\n"
                    if record["step"] == step:
                        tags |= record.keys()
                except (ValueError, KeyError, TypeError, RecursionError):
                    continue
    except ValueError as error:
        raise StorageError(f"{path} cannot be continued: {error}") from error
    replace_atomically(path, bytes(kept))
    return tags
