"""The log of a run's scalars and pictures: metrics.jsonl (the reference), TensorBoard (a view of it), the terminal."""

import json
import logging
import math
import threading
import time
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager, nullcontext, suppress
from pathlib import Path
from types import TracebackType
from typing import Any

from tensorboard.compat.proto.summary_pb2 import Summary as SummaryProto
from tensorboard.compat.proto.summary_pb2 import SummaryMetadata
from tensorboard.plugins.hparams import metadata as hparams_metadata
from tensorboard.plugins.hparams import summary_v2 as hparams_summary
from tensorboard.plugins.hparams.api_pb2 import Status
from tensorboard.plugins.hparams.plugin_data_pb2 import HParamsPluginData, SessionEndInfo
from torch import Tensor
from torch.utils.tensorboard import SummaryWriter

from genlab.errors import StorageError
from genlab.storage import opened_within, replace_atomically

_log = logging.getLogger(__name__)

_EVENTS = "events.out.tfevents."

HyperParameters = Mapping[str, bool | int | float | str]


class RunLog:
    """Writes one run's scalars and pictures; on resume it cuts what the lost steps had written."""

    def __init__(self, folder: Path, *, start_step: int, hyperparameters: HyperParameters) -> None:
        self._path = folder / "metrics.jsonl"
        self._start_step = start_step
        # The test of a finished run, which a resumed run repeats.
        self._tags_at_start = _cut_after(self._path, start_step)
        # Line by line, for a sweep reads along: the search for settings stops a run whose curve is behind the others'.
        self._file = self._path.open("a", encoding="utf-8", buffering=1)
        self._has_layout = False
        self._writer: SummaryWriter | None = None
        self._previous_hook = threading.excepthook
        threading.excepthook = self._leave_to_next_call
        with self._board_may_fail():
            _let_sort_before_now(folder)
            # Every start purges, a fresh one from 0: TensorBoard honours a purge only where the first file passed one.
            self._writer = SummaryWriter(log_dir=str(folder), purge_step=start_step + 1 if start_step else 0)
            # No Experiment record: TensorBoard then shows all runs' columns and every scalar as a live metric.
            self._writer._get_file_writer().add_summary(
                hparams_summary.hparams_pb(dict(hyperparameters), trial_id=_trial(folder))
            )

    def scalars(self, values: Mapping[str, float], *, step: int, images_seen: int, seconds: float) -> None:
        """Write scalars by tag, each once at a step; a value that is not finite is null in metrics.jsonl."""
        if step == self._start_step:
            values = {tag: value for tag, value in values.items() if tag not in self._tags_at_start}
            if not values:
                return
        finite = {tag: value if math.isfinite(value) else None for tag, value in values.items()}
        record = {"step": step, "images_seen": images_seen, "seconds": round(seconds, 3), **finite}
        self._file.write(json.dumps(record) + "\n")
        for tag, value in values.items():
            self._board("add_scalar", tag, value, step)
        if not self._has_layout and (charts := charts_across_phases(values)):
            self._board("add_custom_scalars", {"phases": charts})
            self._has_layout = True

    def picture(self, tag: str, image: Tensor, *, step: int) -> None:
        """Write one picture of shape (C, H, W) in [0, 1]."""
        self._board("add_image", tag, image, step)

    def flush(self) -> None:
        """Hand everything to the operating system; before each checkpoint, so that no saved step lacks its numbers."""
        self._file.flush()
        self._board("flush")

    def close(self, *, succeeded: bool) -> None:
        """End the session as TensorBoard's HPARAMS shows it."""
        status = Status.STATUS_SUCCESS if succeeded else Status.STATUS_FAILURE
        with self._board_may_fail():
            if self._writer is not None:
                self._writer._get_file_writer().add_summary(_session_end(status))
                self._writer.close()
        threading.excepthook = self._previous_hook
        with nullcontext() if succeeded else suppress(OSError):  # the reason of the failure counts
            self._file.close()

    def __enter__(self) -> "RunLog":
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: BaseException | TracebackType | None) -> None:
        self.close(succeeded=kind is None)

    def _board(self, method: str, *arguments: Any) -> None:
        with self._board_may_fail():
            if self._writer is not None:
                getattr(self._writer, method)(*arguments)

    @contextmanager
    def _board_may_fail(self) -> Iterator[None]:
        """TensorBoard is a view, and no reason to stop: the first failure is logged, and the rest is left out."""
        try:
            yield
        except OSError as error:
            self._writer = None
            _log.warning("TensorBoard's event file cannot be written (%s); metrics.jsonl goes on", error)

    def _leave_to_next_call(self, arguments: threading.ExceptHookArgs) -> None:
        """TensorBoard writes in a thread, whose failure it raises again at the next call: no traceback meanwhile."""
        if not isinstance(arguments.exc_value, OSError):
            self._previous_hook(arguments)


def _trial(folder: Path) -> str:
    """Return a run's name in HPARAMS, with its parent folder: run numbers restart for each model and data set."""
    return "/".join(folder.absolute().parts[-2:])


def charts_across_phases(tags: Iterable[str]) -> dict[str, list[str | list[str]]]:
    """Return a chart (CUSTOM SCALARS) for each quantity that several phases log, such as the two losses of a GAN.

    Args:
        tags: Those of one log line; ``train/<phase>/<quantity>`` count.
    """
    by_quantity: dict[str, list[str]] = {}
    for tag in tags:
        parts = tag.split("/")
        if parts[0] == "train" and len(parts) == 3:
            by_quantity.setdefault(parts[2], []).append(f"^{tag}$")  # TensorBoard takes them for regular expressions
    return {quantity: ["Multiline", lines] for quantity, lines in by_quantity.items() if len(lines) > 1}


def _session_end(status: int) -> SummaryProto:
    content = HParamsPluginData(version=hparams_metadata.PLUGIN_DATA_VERSION)
    content.session_end_info.CopyFrom(SessionEndInfo(status=status))
    plugin = SummaryMetadata.PluginData(plugin_name=hparams_metadata.PLUGIN_NAME, content=content.SerializeToString())
    value = SummaryProto.Value(
        tag=hparams_metadata.SESSION_END_INFO_TAG,
        tensor=hparams_metadata.NULL_TENSOR,
        metadata=SummaryMetadata(plugin_data=plugin),
    )
    return SummaryProto(value=[value])


def _cut_after(path: Path, step: int) -> set[str]:
    """Drop the lines of steps that the checkpoint does not know, and a last line that a kill left half written.

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


def _let_sort_before_now(folder: Path) -> None:
    """Rename event files whose names would not sort before that of a file made now.

    TensorBoard reads them in the order of the seconds in their names. After a clock that went back, or a second start
    within a second, the file that purges the lost steps would come before the one that holds them.
    """
    now = int(time.time())
    dated = []
    for path in folder.glob(f"{_EVENTS}*"):
        date, _, rest = path.name.removeprefix(_EVENTS).partition(".")
        if date.isdecimal():
            dated.append((int(date), rest, path))
    latest = now - 1
    moves = []
    for seconds, rest, path in sorted(dated, reverse=True):
        if seconds > latest:
            moves.append((path, path.with_name(f"{_EVENTS}{latest:010d}.{rest}")))
        latest = min(seconds, latest) - 1
    for path, target in reversed(moves):  # from the oldest, so that no file is overwritten
        path.rename(target)
    if dated and max(dated)[0] > now:
        _log.warning("the clock went back by %d s since the run's last start", max(dated)[0] - now)
