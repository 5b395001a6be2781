"""Execution of one job of a sweep in a process of its own.

With every launcher of Hydra, the job itself is an ordinary `genlab train` in the job's folder. A job that fails,
diverges or is killed, also for want of memory, therefore affects no other job, frees its memory, and can be repeated
and resumed like any run.
"""

import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

from hydra.core.hydra_config import HydraConfig

from genlab.config.compose import SWEEP_NODE, Composed, quoted, tree_options
from genlab.errors import ConfigurationError, FolderInUseError, NonFiniteError
from genlab.launch.failures import ERROR_PREFIX, STOPPED_PREFIX
from genlab.launch.metrics_follower import MetricsFollower
from genlab.launch.processes import GENLAB
from genlab.launch.sweep_folder import DONE, STOPPED, JobRecord, JobStatus, SweepFolder
from genlab.launch.sweep_report import lacks_measure, told_lacking, write_tables
from genlab.launch.sweep_settings import SweepSettings
from genlab.launch.sweep_shares import own_devices, threads_of_job
from genlab.paths import from_here
from genlab.run.folder import clear, has_checkpoint, is_untouched, read_summary, require_free
from genlab.signals import handling
from genlab.terminal import shows_progress

OUTPUT_NAME = "output.log"
QUIET = "hydra/job_logging=quiet"
"""The override of ``-q``, which is about the terminal of a start alone."""
_WATCHDOG = "GENLAB_JOB_OF_SWEEP"
_POLL_SECONDS = 0.2
_LEAVING_SECONDS = 60.0
_MAX_SHOWN = 3
# Hydra's own keys that describe this sweep and not a job.
_OF_SWEEP = (
    "hydra.mode",
    "hydra.job.config.override_dirname.",
    "hydra.run.",
    "hydra.sweep.",
    "hydra/callbacks",
    "hydra.callbacks",
    "hydra/launcher",
    "hydra.launcher",
    "hydra/sweeper",
    "hydra.sweeper",
    QUIET,
)


class StoppedByLauncher(BaseException):
    """Raised by a launcher in the process that runs a job: the job saves and stops, for the reason that it names.

    An Exception would not pass through Hydra.
    """


def run_sweep_job(settings: SweepSettings, configuration: Composed) -> None:
    """Run the job that Hydra has composed, unless it is done; a failure is recorded and not raised.

    Args:
        settings: Of the sweep, for its table.
        configuration: Of the job.

    Raises:
        ConfigurationError: Its folder lies outside of the sweep's, or holds other files.
        SystemExit: This process got a signal to end the sweep, and the job has saved.
    """
    config = HydraConfig.get()
    sweep = SweepFolder(Path(str(config.sweep.dir)))
    run_folder = Path(str(config.runtime.output_dir))
    # The folder of a job that starts from the beginning is cleared.
    if sweep.path.resolve() not in run_folder.resolve().parents:
        raise ConfigurationError(f"hydra.sweep.subdir must lie in the sweep's folder, got {config.sweep.subdir}")
    record = JobRecord(
        number=int(config.job.num),
        overrides=task_overrides_of(config.overrides.task),
        folder=os.path.relpath(run_folder, sweep.path),
        status="running",
        num_threads=threads_of_job(configuration),
    )
    previous = sweep.record(record.number)
    if (previous is None or previous.folder != record.folder) and not is_untouched(run_folder):
        raise ConfigurationError(f"hydra.sweep.subdir must name new or empty folders, got {from_here(run_folder)}")
    if sweep.stop_signal() is None:
        with _interruptions_left_to_sweep(), own_devices(configuration, sweep.jobs_folder) as variables:
            _run_and_record(record, sweep, settings, variables)
    number = sweep.stop_signal(of_this_process=True)
    if number is not None:
        raise SystemExit(128 + number)  # Hydra would run the next job after any Exception


def _run_and_record(
    record: JobRecord, sweep: SweepFolder, settings: SweepSettings, variables: Mapping[str, str]
) -> None:
    run_folder = sweep.run_folder(record)
    holder = await_free(run_folder)
    if holder is not None:
        sweep.write_record(replace(record, status="failed", reason=holder, exit_code=FolderInUseError.exit_code))
        tell(f"job {record.number}: failed: {holder}")
        return
    previous = sweep.record(record.number)
    if previous is not None:
        previous = sweep.finalise(previous)
    if previous is not None and previous.status in DONE:
        tell(f"job {record.number}: {previous.status} before", is_progress=True)
        return
    is_resumed = has_checkpoint(run_folder)
    if is_resumed and previous is not None:
        record = replace(record, num_threads=previous.num_threads)
    arguments = _arguments_of_job(record, run_folder, is_resumed=is_resumed)
    sweep.write_record(record)
    output = from_here(run_folder / OUTPUT_NAME)
    tell(f"job {record.number}: {_choices_text(record, sweep)}\n  output: {output}", is_progress=True)
    ended = _run([sys.executable, *GENLAB, "train", *arguments], record, sweep, variables)
    sweep.write_record(ended)
    rows = write_tables(sweep, settings)
    reason = "" if ended.reason is None else f": {ended.reason}"
    tell(f"job {record.number}: {ended.status}{reason}", is_progress=not ended.has_failed)
    lacking = [row for row in rows if lacks_measure(row, settings)]
    if len(lacking) == 1 and lacking[0].record.number == record.number:  # the first of the sweep
        tell(f"warning: {told_lacking(lacking[0], settings)}")


@contextmanager
def _interruptions_left_to_sweep() -> Iterator[None]:
    """Ignore signals of the terminal in the worker of a launcher; the process of the sweep handles them."""
    if signal.getsignal(signal.SIGINT) is not signal.default_int_handler:
        yield
        return
    with handling({number: lambda *_: None for number in (signal.SIGINT, signal.SIGHUP)}):
        yield


def _choices_text(record: JobRecord, sweep: SweepFolder) -> str:
    """Return the overrides in which this job differs from the others."""
    typed = sweep.read_plan().overrides
    return " ".join(argument for argument in record.overrides if argument not in typed)


def tell(text: str, *, is_progress: bool = False) -> None:
    """Print a line at once, also from the worker of a launcher.

    Args:
        text: The line.
        is_progress: True for a line that ``-q`` leaves out.
    """
    if shows_progress() or not is_progress:
        print(f"{text}\n", end="", flush=True)  # noqa: T201 - in one write, as other jobs tell meanwhile


def await_free(run_folder: Path) -> str | None:
    """Wait for a job that lost its parent process to save and exit.

    Returns:
        None, or a description of the process that keeps the folder locked.
    """
    deadline = time.monotonic() + _LEAVING_SECONDS
    while True:
        try:
            require_free(run_folder)
            return None
        except FolderInUseError as error:
            if time.monotonic() > deadline:
                return str(error)
            time.sleep(_POLL_SECONDS)


def _arguments_of_job(record: JobRecord, run_folder: Path, *, is_resumed: bool) -> list[str]:
    """Return the job's arguments: a run with a checkpoint is resumed, any other starts again in the cleared folder."""
    flags, of_hydra = tree_options(), HydraConfig.get().overrides.hydra
    own = [str(argument) for argument in of_hydra if not str(argument).lstrip("+~").startswith(_OF_SWEEP)]
    if is_resumed:
        return [*flags, f"resume={quoted(str(run_folder))}", *own]
    clear(run_folder)
    return [*flags, *record.arguments, f"hydra.run.dir={quoted(str(run_folder))}", *own]


def _run(command: Sequence[str], record: JobRecord, sweep: SweepFolder, variables: Mapping[str, str]) -> JobRecord:
    run_folder = sweep.run_folder(record)
    log = run_folder / OUTPUT_NAME
    follower = MetricsFollower(run_folder)
    follower.new_records()  # of an earlier process

    def shall_stop() -> bool:
        _report_validations(record, run_folder, follower)
        return sweep.is_asked_to_prune(record.number) or sweep.stop_signal() is not None

    with log.open("ab") as output:
        start = output.tell()
        started = subprocess.Popen(
            command,
            stdin=subprocess.PIPE,
            stdout=output,
            stderr=subprocess.STDOUT,
            # Signals of the terminal do not reach it: the sweep passes an interruption on.
            start_new_session=True,
            env={**os.environ, **variables, _WATCHDOG: "1", "GENLAB_DEBUG": "1"},
        )
    with started as process:
        try:
            exit_code = _wait(process, shall_stop)
        except BaseException as error:
            exit_code = _end(process, at_once=isinstance(error, KeyboardInterrupt))
            why = str(error) if isinstance(error, StoppedByLauncher) else STOPPED
            sweep.write_record(replace(record, status="interrupted", reason=why, exit_code=exit_code))
            raise
    status, reason = _status(exit_code, record, sweep, _last_error(log, start))
    return replace(record, status=status, reason=reason, exit_code=exit_code)


def _report_validations(record: JobRecord, run_folder: Path, follower: MetricsFollower) -> None:
    for values in follower.new_records():
        measures = {
            tag: value
            for tag, value in values.items()
            if tag.startswith(("validation/", "quality/")) and isinstance(value, int | float)
        }
        if measures:
            chosen = read_summary(run_folder).get("selected_by")
            shown = [tag for tag in measures if chosen in (tag, None)][:_MAX_SHOWN]
            text = ", ".join(f"{tag} {measures[tag]:.6g}" for tag in shown)
            if shown:
                tell(f"job {record.number}: step {values['step']}: {text}", is_progress=True)


def _wait(process: subprocess.Popen[bytes], shall_stop: Callable[[], bool]) -> int:
    """Wait for the process to end; close its standard input once it shall stop."""
    assert process.stdin is not None
    while True:
        try:
            return process.wait(timeout=_POLL_SECONDS)
        except subprocess.TimeoutExpired:
            if shall_stop() and not process.stdin.closed:
                process.stdin.close()


def _end(process: subprocess.Popen[bytes], *, at_once: bool) -> int:
    """End a job: let it save and exit, or kill it at once."""
    assert process.stdin is not None
    try:
        process.stdin.close()
        if not at_once:
            return process.wait()
    except KeyboardInterrupt:
        pass
    process.kill()
    return process.wait()


def _status(exit_code: int, record: JobRecord, sweep: SweepFolder, error: str | None) -> tuple[JobStatus, str | None]:
    """Return the status and the reason of a process that has ended."""
    summary = sweep.run_summary(record)
    has_let_go = exit_code in (128 + signal.SIGTERM, -signal.SIGTERM)  # saved, or not yet listening
    if exit_code == 0:
        return ("interrupted" if summary.get("status") == "interrupted" else "finished"), summary.get("reason")
    if has_let_go and sweep.stop_signal() is not None:
        return "interrupted", STOPPED
    if has_let_go and sweep.is_asked_to_prune(record.number):
        return "pruned", f"after step {summary.get('step', 0)}: worse than the median of the finished runs"
    if exit_code < 0:
        return "killed", f"signal {-exit_code}" + (
            ", possibly for lack of memory" if exit_code == -signal.SIGKILL else ""
        )
    if exit_code > 128:
        return "interrupted", error or f"signal {exit_code - 128}"
    reason = error or f"exit code {exit_code}"
    return ("diverged" if exit_code == NonFiniteError.exit_code else "failed"), reason


def _last_error(log: Path, start: int) -> str | None:
    with log.open("rb") as file:
        file.seek(start)
        lines = file.read().decode("utf-8", errors="replace").splitlines()
    errors = [
        line.removeprefix(ERROR_PREFIX).removeprefix(STOPPED_PREFIX)
        for line in lines
        if line.startswith(STOPPED_PREFIX)
    ]
    return errors[-1] if errors else None


def task_overrides_of(overrides: Sequence[object]) -> tuple[str, ...]:
    """Return the overrides of a job without those of the node ``sweep``."""
    return tuple(argument for argument in map(str, overrides) if not argument.lstrip("+~").startswith(f"{SWEEP_NODE}."))


def start_watchdog() -> None:
    """Stop a job of a sweep as on SIGTERM once its standard input, a pipe from its parent, closes; else do nothing.

    The pipe closes on request and whenever the parent process dies, on every system. A signal to a process group would
    reach too many processes, and a parent process that was killed sends no signal.
    """
    if os.environ.pop(_WATCHDOG, None) is None:
        return
    # SLURM announces the end of a job's time with it; the parent process's launcher handles it and closes the pipe.
    signal.signal(signal.SIGUSR2, signal.SIG_IGN)
    threading.Thread(target=_stop_at_end_of_input, name="watchdog", daemon=True).start()


def _stop_at_end_of_input() -> None:
    while os.read(sys.stdin.fileno(), 1024):
        pass
    os.kill(os.getpid(), signal.SIGTERM)
