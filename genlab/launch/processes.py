"""``trainer.devices=N``: the N processes of a run, started by PyTorch's elastic agent as torchrun would start them."""

import logging
import os
import signal
import sys
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from types import FrameType
from typing import TYPE_CHECKING, Any

from genlab.environment import environment
from genlab.errors import GenlabError, ProcessLostError, StoppedBySignal
from genlab.launch.worker import CONSEQUENCE, PID_NAME, UNEXPLAINED
from genlab.parallel.place import LAUNCHER_VARIABLE
from genlab.signals import signal_text

if TYPE_CHECKING:
    from torch.distributed.elastic.multiprocessing.errors import ProcessFailure

GENLAB = ("-P", "-m", "genlab")
"""Arguments with which Python starts genlab; with -m alone it would import from the working directory."""
_LEAVING_SECONDS = "120"
_HANDLED = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGQUIT, signal.SIGUSR1)


@dataclass(frozen=True, kw_only=True)
class Processes:
    """The processes that a run needs."""

    num: int
    """Number of processes, one for each device."""
    max_restarts: int = 0
    """Number of times that all of them are restarted after one has died."""
    key: str = "devices"
    """The setting that gives their number."""
    visible_devices: tuple[str, ...] = ()
    """Names of the CUDA devices from which those of the processes are taken; empty on a CPU."""


def num_cores() -> int:
    """Return the number of cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


class WorkerFailure(GenlabError):  # noqa: N818 - it happened elsewhere
    """A process failed and wrote an error report."""

    def __init__(self, message: str, *, rank: int, exit_code: int, details: str = "") -> None:
        super().__init__(message)
        self.rank = rank
        self.details = details or message
        self.exit_code = exit_code  # type: ignore[misc]


def launch_processes(command: str, arguments: Sequence[str], processes: Processes) -> None:
    """Run ``genlab COMMAND ARGUMENTS`` in several processes of this machine, and wait for them.

    Args:
        command: Name of the command.
        arguments: Arguments after the command.
        processes: Their number and devices.

    Raises:
        WorkerFailure: A process failed and wrote an error report.
        ProcessLostError: A process died or hung, and restarts were used up.
        StoppedBySignal: This process got a signal, and the others have ended.
    """
    # PyTorch's launcher is imported only when it is used.
    from torch.distributed.elastic.multiprocessing import DefaultLogsSpecs, SignalException
    from torch.distributed.elastic.multiprocessing.errors import ChildFailedError
    from torch.distributed.launcher.api import LaunchConfig, elastic_launch

    with tempfile.TemporaryDirectory(prefix="genlab_") as notes, _surroundings(processes, Path(notes)):
        config = LaunchConfig(
            min_nodes=1,
            max_nodes=1,
            nproc_per_node=processes.num,
            run_id="genlab",
            rdzv_backend="c10d",
            rdzv_endpoint="localhost:0",
            local_addr="localhost",
            max_restarts=processes.max_restarts,
            logs_specs=DefaultLogsSpecs(log_dir=notes),
            signals_to_handle="SIGTERM,SIGINT,SIGQUIT",
        )

        def hang_up(number: int, _frame: FrameType | None) -> None:
            signal.signal(number, signal.SIG_IGN)  # a terminal that closes sends it twice
            raise SignalException(f"got signal {number}", signal.Signals(number))

        if signal.getsignal(signal.SIGHUP) is not signal.SIG_IGN:  # as it is under nohup
            signal.signal(signal.SIGHUP, hang_up)
        try:
            elastic_launch(config, sys.executable)(*GENLAB, command, *arguments)
        except SignalException as stop:
            _signal_all(Path(notes), signal.SIGKILL)  # processes that a second signal left no time to end
            raise StoppedBySignal(f"stopped by {signal_text(int(stop.sigval))}", int(stop.sigval)) from None
        except ChildFailedError as error:
            raise root_cause(error.failures, num=processes.num) from None


def root_cause(failures: Mapping[int, "ProcessFailure"], *, num: int) -> WorkerFailure | ProcessLostError:
    """Return the failure that caused the others, which fail or are stopped because of it.

    Args:
        failures: Rank to the end of its process, in the order of their discovery.
        num: Total number of processes.
    """
    causes = [_cause(rank, failure, num) for rank, failure in failures.items()]
    return min(causes, key=lambda cause: cause[0])[1]


def _cause(rank: int, failure: "ProcessFailure", num: int) -> tuple[int, WorkerFailure | ProcessLostError]:
    """Return a score of how likely the end of a process is the consequence of another's, and its description."""
    report: Any = failure.message
    if isinstance(report, dict):
        kind = report["extraInfo"].get("kind")
        failed = WorkerFailure(
            str(report["message"]),
            rank=rank,
            exit_code=int(report["errorCode"]),
            details=str(report["extraInfo"]["py_callstack"]),
        )
        return CONSEQUENCE.get(kind, 0), failed
    if failure.exitcode < 0:
        name = signal.Signals(-failure.exitcode).name
        hint = ", possibly for lack of memory" if failure.exitcode == -signal.SIGKILL else ""
        text = f"process {rank} of {num} was killed by {name}{hint}"
        is_told = failure.exitcode == -signal.SIGTERM
        return CONSEQUENCE["StoppedBySignal"] if is_told else UNEXPLAINED, ProcessLostError(text)
    return UNEXPLAINED, ProcessLostError(f"process {rank} of {num} ended with exit code {failure.exitcode}")


@contextmanager
def _surroundings(processes: Processes, notes: Path) -> Iterator[None]:
    """Set the environment and the signal handlers in which the agent runs, and restore them at the end."""
    share = max(num_cores() // processes.num, 1)
    variables = {
        "OMP_NUM_THREADS": os.environ.get("OMP_NUM_THREADS", str(share)),
        # With the store of the first attempt, a second one meets what that left there and hangs (pytorch #135712).
        "TORCH_DISABLE_SHARE_RDZV_TCP_STORE": "1",
        "TORCH_ELASTIC_SHUTDOWN_TIMEOUT": os.environ.get("TORCH_ELASTIC_SHUTDOWN_TIMEOUT", _LEAVING_SECONDS),
        LAUNCHER_VARIABLE: "1",
    }
    handlers = {number: signal.getsignal(number) for number in _HANDLED}
    signal.signal(signal.SIGUSR1, lambda number, _: _signal_all(notes, number))
    disabled = logging.root.manager.disable
    logging.disable(logging.CRITICAL)  # the agent logs at length what root_cause says in one line
    try:
        with environment(variables):
            yield
    finally:
        logging.disable(disabled)
        for number, handler in handlers.items():
            signal.signal(number, handler)


def _signal_all(notes: Path, number: int) -> None:
    """Send a signal to every living process of the newest attempt."""
    attempts = sorted(notes.glob("*/attempt_*"), key=lambda path: int(path.name.rpartition("_")[2]))
    for pid in attempts[-1].glob(f"*/{PID_NAME}") if attempts else ():
        with suppress(ProcessLookupError):
            worker = int(pid.read_text(encoding="utf-8"))
            if os.getsid(worker) == worker:  # the agent gives each a session; another's process that has the number now
                os.kill(worker, number)
