"""Execution of a command under Hydra: it is composed and checked first, so an error leaves no folder."""

import io
import logging
import shlex
import sys
import warnings
from collections.abc import Callable, Sequence
from contextlib import redirect_stderr, redirect_stdout, suppress
from pathlib import Path
from typing import Any

import hydra
from hydra.core.hydra_config import HydraConfig
from hydra.types import RunMode
from omegaconf import OmegaConf

from genlab.config.compose import (
    MODE,
    Composed,
    Composer,
    open_composer,
    plain,
    quoted,
    tree_options,
    version_base,
)
from genlab.config.key_help import training_help
from genlab.config.location import config_directory
from genlab.config.naming import register_resolvers
from genlab.config.targets import targets_in
from genlab.environment import environment
from genlab.errors import (
    FolderInUseError,
    GenlabError,
    StoppedBySignal,
    StorageError,
    SweepError,
)
from genlab.launch.advice import UnknownFlagError, require_settings
from genlab.launch.arguments import parse_command_line
from genlab.launch.contract import CommandModule, JobContext, PickledJob, SpreadModule
from genlab.launch.failures import BUG, explain, leaves_folder, note_circumstances, prefix_of
from genlab.launch.outcome import finalise_status
from genlab.launch.preflight import CheckedRun, CheckedSweep, preflight, task_overrides
from genlab.launch.processes import launch_processes
from genlab.launch.streams import outlive_readers
from genlab.launch.sweep import refuse_with_sweep, resumed_plan, run_sweep
from genlab.launch.sweep_folder import SweepPlan
from genlab.launch.sweep_job import run_sweep_job, start_watchdog
from genlab.launch.sweep_settings import settings_of
from genlab.launch.worker import Worker, leaving_orderly, this_worker
from genlab.parallel.place import stray_place_warning
from genlab.paths import from_here
from genlab.run.folder import make_new, read_summary, tidy
from genlab.run.hyperparameters import chosen

_MAKE_FILES = ("train", "sample", "evaluate", "export")
"""Commands that write files and only report them on the terminal."""


def launch(
    command: str, arguments: Sequence[str], *, job: PickledJob, positional: str | None, own_flags: Sequence[str] = ()
) -> Path | None:
    """Run a command: show its configuration, run it once, or sweep.

    Args:
        command: Name of the command, of its primary configuration and of its log.
        arguments: Arguments after the command.
        job: The callable that Hydra runs.
        positional: Key of an argument without ``=``.
        own_flags: Options of the command beside those of Hydra, already replaced by overrides.

    Returns:
        The run folder of a single run; None for anything else.

    Raises:
        GenlabError: An expected failure, with a message of one line.
        SweepError: Jobs of a sweep failed, after the others ran.
    """
    try:
        Path.cwd()
    except FileNotFoundError as error:
        raise StorageError("the working directory does not exist any more; change to another") from error
    start_watchdog()
    # A log that cannot be written is no reason for tracebacks: the files that matter will say that the disk is full.
    logging.raiseExceptions = False
    worker = this_worker()
    if worker is not None:
        worker.enter()
    register_resolvers()
    try:
        options, overrides, flags = parse_command_line(arguments, positional=positional, own_flags=own_flags)
    except UnknownFlagError as error:
        with open_composer(command, config_dir=None) as composer:
            raise error.advised(composer, command) from None
    if options.hydra_help:
        run_hydra(command, ["--hydra-help"], job=job)  # it would set up logging before --info shows it
        return None
    if options.shell_completion:
        run_hydra(command, [*overrides, *flags], job=job)
        return None
    with open_composer(command, config_dir=options.config_dir, config_name=options.config_name) as composer:
        require_settings(overrides, composer, command)
        is_sweep = options.multirun or composer.asks_for_sweep(overrides)
        if is_sweep:
            refuse_with_sweep(overrides)
        if is_sweep and (previous := resumed_plan(overrides, config_dir=options.config_dir)) is not None:
            overrides = list(previous.overrides)
        if options.help and command == "train":
            print(training_help(composer, overrides))  # noqa: T201
            return None
        if options.cfg or options.help or options.info:
            composer.compose(overrides)
        else:
            if worker is not None:
                overrides += _of_restart(worker)
            module = job.module()
            checked = preflight(composer, overrides, module=module, is_sweep=is_sweep, worker=worker)
            if command in _MAKE_FILES:
                outlive_readers()
                if isinstance(module, SpreadModule) and (stray := stray_place_warning()) is not None:
                    print(f"genlab: warning: {stray}", file=sys.stderr)  # noqa: T201
            if isinstance(checked, CheckedSweep):
                _sweep(composer, checked, config_dir=options.config_dir, job=job)
            elif worker is not None and not worker.is_first:
                _run_beside(module, checked, overrides, worker)
            elif worker is None and checked.processes.num > 1:
                return _run_in_processes(command, overrides, flags, checked)
            else:
                return _run_once(composer, overrides, checked, module)
            return None
    run_hydra(command, [*overrides, *flags], job=job)
    return None


def _run_once(composer: Composer, overrides: Sequence[str], checked: CheckedRun, module: CommandModule) -> Path | None:
    """Run a job in this process, with the settings that were read and checked."""
    folder, is_new = _made(checked)
    failures: list[Exception] = []

    def job(configuration: Composed) -> None:
        try:
            _run_here(module, configuration, checked.settings)
        except Exception as error:  # Hydra would announce it in a line of its own
            failures.append(error)

    try:
        composer.run(overrides, job, folder=folder)
        if failures:
            raise failures[0]
    except BaseException as error:
        _close_logs()
        if folder is not None and is_new and not leaves_folder(error):
            tidy(folder)
        raise
    _close_logs()
    return folder


def _made(checked: CheckedRun) -> tuple[Path | None, bool]:
    """Make the folder of a run; return None for a command without one."""
    return make_new(checked.folder) if checked.has_run_folder else (None, False)


def _run_in_processes(command: str, overrides: Sequence[str], flags: Sequence[str], checked: CheckedRun) -> Path | None:
    folder, is_new = _made(checked)
    previous = {} if folder is None else read_summary(folder)
    in_folder = [] if folder is None else [f"hydra.run.dir={quoted(str(folder))}"]
    try:
        launch_processes(command, [*overrides, *in_folder, *flags], checked.processes)
    except GenlabError as error:
        if folder is None or error.exit_code == FolderInUseError.exit_code:
            raise
        if is_new and not leaves_folder(error):
            tidy(folder)
        raise finalise_status(folder, error, previous=previous) from None
    return folder


def _run_beside(module: CommandModule, checked: CheckedRun, overrides: Sequence[str], worker: Worker) -> None:
    """Run a job in a process other than rank 0, without Hydra's files and without output."""
    logging.disable(logging.WARNING)
    warnings.simplefilter("ignore")
    arguments = tuple(task_overrides(overrides))
    context = JobContext(
        command=shlex.join(["genlab", *arguments]),
        overrides=arguments,
        choices={},
        run_folder=checked.folder,
        is_restarted=worker.remembered() is not None,
        config_folders=(),
    )
    nowhere = io.StringIO()
    with leaving_orderly(), redirect_stdout(nowhere), redirect_stderr(nowhere):
        module.run(checked.settings, context)


def _of_restart(worker: Worker) -> list[str]:
    """Return the overrides of a restarted process: its run folder, whose .hydra/ is not written again."""
    folder = worker.remembered()
    if folder is None:
        return []
    return [f"hydra.run.dir={quoted(str(folder))}", *(["hydra.output_subdir=null"] if folder.exists() else [])]


def _sweep(composer: Composer, checked: CheckedSweep, *, config_dir: str | None, job: PickledJob) -> None:
    def run(folder: Path) -> None:
        # Of -m and hydra.mode=RUN the first counts, as in any Hydra program.
        of_hydra = [f"hydra.sweep.dir={quoted(str(folder))}", f"{MODE}=MULTIRUN"]
        composer.run_sweep([checked.naming_override, *checked.overrides, *of_hydra], job)

    with checked.machine:
        if checked.settings is None:
            _run_all(run, checked.folder)
        else:
            record = SweepPlan(overrides=checked.overrides, config_dir=config_dir, jobs=checked.jobs)
            run_sweep(checked.folder, checked.settings, record, run=run)


def _run_all(run: Callable[[Path], None], folder: Path) -> None:
    """Run the jobs of a sweep that keeps no table."""
    try:
        run(folder)
    except Exception as error:
        # Hydra raises the first failure after all jobs; each was reported when it happened.
        raise SweepError(f"the sweep had failures, the first: {explain(error)[0]}") from error
    finally:
        _close_logs()


def run_hydra(command: str, arguments: Sequence[str], *, job: PickledJob) -> None:
    """Run Hydra's own program with the arguments, for its help and its completion."""
    previous = sys.argv
    sys.argv = [previous[0], *arguments]
    try:
        with environment({"HYDRA_FULL_ERROR": "1"}):
            hydra.main(config_path=str(config_directory()), config_name=command, **version_base())(job)()
    finally:
        sys.argv = previous


def run_job(module: Callable[[], CommandModule], configuration: Composed) -> None:
    """Run one job in the process of its launcher; a job of a sweep with a table gets a process of its own."""
    settings = settings_of(configuration)
    if settings is not None and HydraConfig.get().mode == RunMode.MULTIRUN:
        run_sweep_job(settings, configuration)
        return
    _run_here(module(), configuration)


def _run_here(module: CommandModule, configuration: Composed, settings: Any = None) -> None:
    """Run a job.

    Args:
        module: Of the command.
        configuration: As Hydra has composed it.
        settings: Read from it before; None for a job of a sweep.
    """
    context = _context()
    try:
        module.run(module.read(plain(configuration), context.overrides) if settings is None else settings, context)
    except BaseException as error:
        message, code = explain(error)
        is_unforeseen = code == BUG and not isinstance(error, GenlabError)
        log = _write_into_log(message, error if is_unforeseen else None)
        if is_unforeseen:
            note_circumstances(error, log=log, targets=targets_in(OmegaConf.to_container(configuration)))
        if HydraConfig.get().mode == RunMode.MULTIRUN:
            print(f"{prefix_of(error)}job {HydraConfig.get().job.num}: {message}", file=sys.stderr)  # noqa: T201
            if isinstance(error, StoppedBySignal):
                # Hydra would run the next job after any Exception.
                raise SystemExit(code) from error
        raise


def _context() -> JobContext:
    config = HydraConfig.get()
    overrides = tuple(str(override) for override in config.overrides.task)
    return JobContext(
        command=shlex.join(["genlab", str(config.job.name), *overrides, *tree_options()]),
        overrides=overrides,
        choices=chosen(config.runtime.choices),
        run_folder=Path(config.runtime.output_dir),
        is_restarted=(worker := this_worker()) is not None and worker.remembered() is not None,
        config_folders=tuple(Path(source.path) for source in config.runtime.config_sources if source.schema == "file"),
    )


def _write_into_log(message: str, bug: BaseException | None) -> Path | None:
    """Write the failure of a job into the log of its run folder; return the path of the log as typed from here."""
    log = None
    record = logging.LogRecord(
        "genlab",
        logging.ERROR,
        __file__,
        0,
        message,
        None,
        None if bug is None else (type(bug), bug, bug.__traceback__),
    )
    for handler in logging.getLogger().handlers:
        if isinstance(handler, logging.FileHandler):
            handler.emit(record)
            log = from_here(Path(handler.baseFilename))
    return log


def _close_logs() -> None:
    for handler in list(logging.getLogger().handlers):
        if isinstance(handler, logging.FileHandler):
            logging.getLogger().removeHandler(handler)
            with suppress(OSError):  # the disk is full, as was said
                handler.close()
