"""Logger for TensorBoard: one event file for each start of a run, in the run folder."""

import logging
import time
from collections.abc import Iterable, Mapping
from contextlib import suppress
from pathlib import Path

from tensorboard.compat.proto.summary_pb2 import Summary as SummaryProto
from tensorboard.compat.proto.summary_pb2 import SummaryMetadata
from tensorboard.plugins.hparams import metadata as hparams_metadata
from tensorboard.plugins.hparams import summary_v2 as hparams_summary
from tensorboard.plugins.hparams.api_pb2 import Status
from tensorboard.plugins.hparams.plugin_data_pb2 import HParamsPluginData, SessionEndInfo
from torch import Tensor
from torch.utils.tensorboard import SummaryWriter

from genlab.storage import read_within, replace_atomically
from genlab.training.logger import LoggedRun, Logger

_log = logging.getLogger(__name__)

_EVENTS = "events.out.tfevents."
_SESSION = b"_hparams_/session_"


class TensorBoard(Logger):
    """Logger for TensorBoard, the default of ``logger=``."""

    _writer: SummaryWriter
    _has_layout = False

    def open(self, run: LoggedRun) -> None:
        _let_sort_before_now(run.folder)
        with suppress(OSError, ValueError):  # on a full disk HPARAMS keeps the row of the first start
            _forget_sessions(run.folder)
        # Every start purges, a fresh one from 0: TensorBoard honours a purge only where the first file passed one.
        purge_step = run.start_step + 1 if run.start_step else 0
        self._writer = SummaryWriter(log_dir=str(run.folder), purge_step=purge_step)
        # No Experiment record: TensorBoard then shows all runs' columns and every scalar as a live metric.
        self._writer._get_file_writer().add_summary(
            hparams_summary.hparams_pb(dict(run.hyperparameters), trial_id=run.name)
        )

    def scalars(self, values: Mapping[str, float], *, step: int) -> None:
        for tag, value in values.items():
            self._writer.add_scalar(tag, value, step)
        if not self._has_layout and (charts := charts_across_phases(values)):
            self._writer.add_custom_scalars({"phases": charts})
            self._has_layout = True

    def picture(self, tag: str, image: Tensor, *, step: int) -> None:
        self._writer.add_image(tag, image, step)

    def flush(self) -> None:
        self._writer.flush()

    def close(self, *, succeeded: bool) -> None:
        """End the session as TensorBoard's HPARAMS shows it."""
        status = Status.STATUS_SUCCESS if succeeded else Status.STATUS_FAILURE
        self._writer._get_file_writer().add_summary(_session_end(status))
        self._writer.close()


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


def _forget_sessions(folder: Path) -> None:
    """Remove the settings and the end of earlier starts from event files, as HPARAMS shows the first that it reads."""
    for path in folder.glob(f"{_EVENTS}*"):
        content = memoryview(read_within(folder, path.name))
        kept, start = [], 0
        while start < len(content):  # a record: its length in 8 bytes, a checksum of 4, the data, a checksum of 4
            end = start + 16 + int.from_bytes(content[start : start + 8], "little")
            if _SESSION not in bytes(content[start:end]):
                kept.append(content[start:end])
            start = end
        if sum(map(len, kept)) < len(content):
            replace_atomically(path, *kept)


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
