"""A worker process of a distributed run, and the files that it exchanges with its launcher and with restarted workers.

The launcher is PyTorch's elastic agent, whether torchrun was typed or ``trainer.devices`` asked for. It gives every
process its rank in the environment, and a folder of its own for its error report::

    NOTES/attempt_0/1/error.json    the error report of process 1, for the launcher
    NOTES/attempt_0/1/pid           of process 1, so that signals can be passed on
    NOTES/run.json                  for restarted processes: the run folder, or the reason not to start
"""

import json
import os
import signal
import threading
import time
import traceback
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from types import FrameType
from typing import Any

from genlab.errors import (
    CheckpointError,
    ConfigurationError,
    DataError,
    FolderInUseError,
    GenlabError,
    NonFiniteError,
    ProcessLostError,
    StoppedBySignal,
    StorageError,
)
from genlab.parallel.place import LAUNCHER_VARIABLE, this_place
from genlab.signals import handling
from genlab.storage import replace_atomically

ERROR_FILE_VARIABLE = "TORCHELASTIC_ERROR_FILE"
PID_NAME = "pid"
_RUN_NAME = "run.json"
_WATCH_SECONDS = 1.0
_POLL_SECONDS = 0.05
_REPORTING_SECONDS = 5.0
_LEAVING_SECONDS = 60.0
CONSEQUENCE = {"ProcessHungError": 1, "ProcessLostError": 3, "StoppedBySignal": 4}
"""Score of each kind of failure for being the consequence of another's; other kinds are causes."""
UNEXPLAINED = 2
"""The same score of a process that ended without an error report."""
# Another attempt would meet them again.
_FINAL = (ConfigurationError, DataError, CheckpointError, NonFiniteError, StorageError, FolderInUseError)
# Failures that every process meets alike, so that rank 0 reports them for all.
_COMMON = (ConfigurationError, DataError, CheckpointError, NonFiniteError, StoppedBySignal, ProcessLostError)


@dataclass(frozen=True, kw_only=True)
class Worker:
    """The rank of this process in a distributed run, and the file of its error report."""

    rank: int
    num_workers: int
    error_file: Path | None
    """Of the error report of this process; None if the launcher keeps no files."""

    @property
    def is_first(self) -> bool:
        """Return True if this is rank 0, which writes the run folder and reports to the user."""
        return self.rank == 0

    def enter(self) -> None:
        """Register this process with its launcher, and let it end with the launcher.

        Raises:
            SystemExit: An earlier attempt ended with a failure that this one would meet again.
        """
        if self.error_file is not None:
            replace_atomically(self.error_file.with_name(PID_NAME), str(os.getpid()).encode())
        previous = self._recorded().get("final")
        # Of this attempt it is the same failure in a faster process, which this one meets and reports by itself.
        if (
            self.error_file is not None
            and previous is not None
            and previous["attempt"] != self.error_file.parents[1].name
        ):
            replace_atomically(self.error_file, json.dumps(previous["report"]).encode())
            raise SystemExit(previous["report"]["message"]["errorCode"])
        launcher = os.getppid()
        threading.Thread(target=_leave_with, args=(launcher,), name="launcher's end", daemon=True).start()

    def remember(self, run_folder: Path) -> None:
        """Note the run folder, for processes that the launcher starts again."""
        self._record(run_folder=str(run_folder.absolute()))

    def remembered(self) -> Path | None:
        """Return the run folder of the launcher's previous processes; None at the first start."""
        folder = self._recorded().get("run_folder")
        return None if folder is None else Path(folder)

    def previous_failure(self) -> str:
        """Return the failure that ended the launcher's previous processes, as far as this machine knows."""
        assert self.error_file is not None
        attempt = int(self.error_file.parents[1].name.rpartition("_")[2])
        known = [(CONSEQUENCE["ProcessLostError"], "another process was gone")]
        for pid in sorted((_notes(self.error_file) / f"attempt_{attempt - 1}").glob(f"*/{PID_NAME}")):
            try:
                report = json.loads(pid.with_name(self.error_file.name).read_text(encoding="utf-8"))["message"]
                known.append((CONSEQUENCE.get(report["extraInfo"]["kind"], 0), report["message"]))
            except OSError:
                name = f"process {pid.parent.name} of this machine"
                known.append((UNEXPLAINED, f"{name} died without an error report, possibly for lack of memory"))
        return min(known, key=lambda cause: cause[0])[1]

    def reports(self, error: BaseException) -> bool:
        """Return True if this process reports a failure to the user, rather than rank 0 or genlab's launcher.

        A process without a launcher that keeps files may be alone, with stale environment variables.
        """
        may_be_alone = self.is_first or self.error_file is None
        return LAUNCHER_VARIABLE not in os.environ and (may_be_alone or not isinstance(error, _COMMON))

    def write_report(self, error: BaseException, message: str, exit_code: int) -> None:
        """Write the error report of this process, in the form that the elastic agent reads.

        Args:
            error: The failure.
            message: The same in one line.
            exit_code: Of this process.
        """
        if self.error_file is None:
            return
        is_foreseen = isinstance(error, GenlabError)
        details = {
            "py_callstack": message if is_foreseen else "".join(traceback.format_exception(error)),
            "timestamp": str(int(time.time())),
            "kind": type(error).__name__,
        }
        report = {"message": {"message": message, "errorCode": exit_code, "extraInfo": details}}
        replace_atomically(self.error_file, json.dumps(report).encode())
        if isinstance(error, _FINAL):
            self._record(final={"attempt": self.error_file.parents[1].name, "report": report})
        if not self.is_first and isinstance(error, _COMMON):
            self._let_first_report()

    def _let_first_report(self) -> None:
        """Wait for rank 0 to report: the agent ends all processes once one has ended."""
        assert self.error_file is not None
        deadline = time.monotonic() + _REPORTING_SECONDS
        while not (self.error_file.parents[1] / "0" / self.error_file.name).exists() and time.monotonic() < deadline:
            time.sleep(_POLL_SECONDS)

    def _record(self, **facts: Any) -> None:
        if self.error_file is not None:
            replace_atomically(_notes(self.error_file) / _RUN_NAME, json.dumps({**self._recorded(), **facts}).encode())

    def _recorded(self) -> dict[str, Any]:
        if self.error_file is None:
            return {}
        try:
            return dict(json.loads((_notes(self.error_file) / _RUN_NAME).read_text(encoding="utf-8")))
        except OSError:
            return {}


def this_worker() -> Worker | None:
    """Return this process's rank among several; None without a launcher."""
    place = this_place()
    if place is None:
        return None
    error_file = Path(os.environ.get(ERROR_FILE_VARIABLE, ""))
    return Worker(
        rank=place.rank,
        num_workers=place.num_processes,
        error_file=error_file if error_file.name and error_file.parent.is_dir() else None,
    )


@contextmanager
def leaving_orderly() -> Iterator[None]:
    """Let SIGTERM and SIGHUP unwind this process as an exception does, outside of training too."""

    def leave(number: int, _frame: FrameType | None) -> None:
        raise SystemExit(128 + number)

    with handling({signal.SIGTERM: leave, signal.SIGHUP: leave}):
        yield


def _notes(error_file: Path) -> Path:
    return error_file.parents[2]


def _leave_with(launcher: int) -> None:
    """Save and stop when the launcher is gone: killed, it could pass nothing on."""
    while os.getppid() == launcher:
        time.sleep(_WATCH_SECONDS)
    os.kill(os.getpid(), signal.SIGTERM)
    time.sleep(_LEAVING_SECONDS)
    os._exit(128 + signal.SIGTERM)  # it hangs
