"""A command under Hydra: composed and checked first, so that a mistake costs one line and leaves no folder."""

import io
import logging
import os
import shlex
import sys
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext, redirect_stderr, redirect_stdout, suppress
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any, Protocol, runtime_checkable

import hydra
from hydra.core.hydra_config import HydraConfig
from hydra.types import RunMode
from omegaconf import OmegaConf

from genlab.composition.advice import UnknownFlagError, require_settings
from genlab.composition.builder import TARGET
from genlab.composition.composer import (
    MODE,
    Composed,
    Composer,
    open_composer,
    plain,
    quoted,
    select_resolved,
    version_base,
)
from genlab.composition.failures import BUG, explain, leaves_folder, note_circumstances, prefix_of
from genlab.composition.line import read_line
from genlab.composition.location import config_directory
from genlab.composition.naming import register_resolvers
from genlab.composition.processes.launcher import Processes, launch_processes
from genlab.composition.processes.outcome import settled
from genlab.composition.processes.worker import Worker, leaving_orderly, this_worker
from genlab.composition.run_folder import make_new, read_summary, require_free, require_fresh, tidy
from genlab.composition.safety import TPE_SWEEPER, parameters_of, require_safe, require_unswept
from genlab.composition.sweep.conduct import conduct, continued, planned_jobs, refuse_with_sweep, refuse_without_sweep
from genlab.composition.sweep.folder import SweepFolder, SweepPlan
from genlab.composition.sweep.foresight import in_fixed_order, jobs_of_every_choice, jobs_one_change_apart
from genlab.composition.sweep.lifeline import hold_lifeline
from genlab.composition.sweep.placement import are_numbered, require_separate_folders
from genlab.composition.sweep.process import look_after_job
from genlab.composition.sweep.settings import SweepSettings, settings_of
from genlab.composition.sweep.shares import machine_told, num_parallel
from genlab.errors import (
    ConfigurationError,
    FolderInUseError,
    GenlabError,
    StoppedBySignal,
    StorageError,
    SweepError,
)
from genlab.hyperparameters import chosen
from genlab.launched import TO_RUN_ALONE, require_launcher, told_stray_place
from genlab.paths import expanded, from_here
from genlab.storage import require_space
from genlab.streams import outlive_readers

START_BYTES = 1_000_000
"""What the logs and records of any run take; checkpoints and pictures say themselves when they do not fit."""
_FULL_ERROR = "HYDRA_FULL_ERROR"
_MAKE_FILES = ("train", "sample", "evaluate", "export")
"""Commands whose output only tells of what they make."""
_ALONE = Processes(num=1)


@dataclass(frozen=True, kw_only=True)
class JobContext:
    """What a command may know of how it was started."""

    command: str
    """The line that repeats it."""
    overrides: tuple[str, ...]
    choices: Mapping[str, str]
    """Options of the config groups that were chosen."""
    run_folder: Path
    """Of the first process where there are several."""
    is_restarted: bool
    """Whether processes before these died in the same run folder."""
    config_folders: tuple[Path, ...]
    """The configuration tree: ours, then the user's."""


@runtime_checkable
class CommandModule(Protocol):
    """What a command's module offers; ``read`` checks and touches nothing, ``run`` acts."""

    def read(self, values: Mapping[str, Any], overrides: Sequence[str]) -> Any:
        """Settings from the composed configuration; raises ConfigurationError."""

    def run(self, settings: Any, context: JobContext) -> None:
        """Do it."""


@runtime_checkable
class SpreadModule(CommandModule, Protocol):
    """Of a command that several processes can carry out together."""

    def processes(self, settings: Any) -> Processes:
        """What it asks of the machine; raises ConfigurationError."""


@runtime_checkable
class PickledJob(Protocol):
    """The callable that Hydra is given."""

    def __call__(self, configuration: Composed) -> None:
        """Run one job."""

    def module(self) -> CommandModule:
        """The command's module."""


def launch(
    command: str, words: Sequence[str], *, job: PickledJob, bare_word: str | None, own_flags: Sequence[str] = ()
) -> None:
    """Run a command's line: show, run once, or sweep.

    Args:
        command: Name of the command, of its primary configuration and of its log.
        words: The line after the command.
        job: What Hydra shall call.
        bare_word: Key that a word without ``=`` stands for.
        own_flags: Options of the command beside those of Hydra, which words no longer holds.

    Raises:
        GenlabError: What the user can be told in a line.
        SweepError: Jobs of a sweep failed, after the others ran.
    """
    try:
        Path.cwd()
    except FileNotFoundError as error:
        raise StorageError("the working directory does not exist any more; change to another") from error
    hold_lifeline()
    # A log that cannot be written is no reason for tracebacks: the files that matter will say that the disk is full.
    logging.raiseExceptions = False
    worker = this_worker()
    if worker is not None:
        require_launcher()
        worker.enter()
    register_resolvers()
    try:
        options, overrides, flags = read_line(words, bare_word=bare_word, own_flags=own_flags)
    except UnknownFlagError as error:
        with open_composer(command, config_dir=None) as composer:
            raise error.advised(composer, command) from None
    if options.hydra_help:
        run_hydra(command, ["--hydra-help"], job=job)  # it would set up the logging that the line describes
        return
    if options.shell_completion:
        run_hydra(command, [*overrides, *flags], job=job)
        return
    with open_composer(command, config_dir=options.config_dir, config_name=options.config_name) as composer:
        require_settings(overrides, composer, command)
        is_sweep = options.multirun or composer.asks_for_sweep(overrides)
        if is_sweep:
            refuse_with_sweep(overrides)
        if is_sweep and (former := continued(overrides, config_dir=options.config_dir)) is not None:
            overrides = list(former.words)
        if options.cfg or options.help or options.info:
            composed = composer.compose(overrides)
            if not options.cfg:
                require_safe(composed, overrides)
            plan = None
        else:
            if worker is not None:
                overrides += _of_restart(worker)
            plan = _check_ahead(composer, overrides, module=job.module(), is_sweep=is_sweep, worker=worker)
    if plan is not None and command in _MAKE_FILES:
        outlive_readers()
        if isinstance(job.module(), SpreadModule) and (stray := told_stray_place()) is not None:
            print(f"genlab: warning: {stray}", file=sys.stderr)  # noqa: T201
    if plan is None:
        run_hydra(command, [*overrides, *flags], job=job)
    elif worker is not None and not worker.is_first:
        _run_beside(job.module(), plan, overrides, worker)
    elif plan.is_sweep:

        def line(folder: Path) -> list[str]:
            # Of -m and hydra.mode=RUN the first counts, as in any Hydra program.
            of_hydra = [f"hydra.sweep.dir={quoted(str(folder))}", f"{MODE}=MULTIRUN"]
            return [*plan.words, *plan.overrides, *of_hydra, *flags]

        with plan.machine:
            if plan.settings is None:
                _sweep(command, line(Path(plan.folder)), job=job)
            else:
                conduct(
                    Path(plan.folder),
                    plan.settings,
                    SweepPlan(words=plan.overrides, config_dir=options.config_dir, jobs=plan.jobs),
                    command=command,
                    run=lambda folder: run_hydra(command, line(folder), job=job),
                )
    elif worker is None and plan.processes.num > 1:
        _run_in_processes(command, overrides, flags, plan)
    else:
        _run_once(command, overrides, flags, plan, job=job)


@dataclass(frozen=True)
class _Plan:
    is_sweep: bool
    folder: str
    has_run_folder: bool = True
    """Whether what is run makes the folder its own."""
    single: Any = None
    """Checked settings of a single run."""
    overrides: tuple[str, ...] = ()
    """Of a sweep, whose jobs have an order now."""
    processes: Processes = _ALONE
    settings: SweepSettings | None = None
    """Of a sweep that keeps a table of its jobs."""
    jobs: tuple[tuple[str, ...], ...] | None = None
    words: tuple[str, ...] = ()
    """Of Hydra, that the line of a sweep gets in front."""
    machine: AbstractContextManager[None] = field(default_factory=nullcontext)
    """In which the launcher of a sweep runs."""


def _check_ahead(
    composer: Composer, overrides: Sequence[str], *, module: CommandModule, is_sweep: bool, worker: Worker | None
) -> _Plan:
    """Compose and check everything that is going to run, before Hydra makes a folder or starts a callback."""
    if is_sweep:
        if worker is not None:
            raise ConfigurationError(f"a sweep starts processes of its own, by trainer.devices; {TO_RUN_ALONE}")
        return _check_sweep(composer, overrides, module=module)
    composed = composer.compose(overrides)
    require_safe(composed, overrides)
    if composed.hydra.mode == RunMode.MULTIRUN:
        return _check_ahead(composer, overrides, module=module, is_sweep=True, worker=worker)
    if settings_of(composed) is not None:
        refuse_without_sweep(overrides)
    settings = _read(module, composed, overrides)
    processes = _processes(module, settings, worker)
    folder = _folder_of(composed, "hydra.run.dir")
    has_run_folder = composed.hydra.run.dir != "."
    if has_run_folder and (worker is None or worker.is_first):
        require_free(Path(folder))
        if composed.get("resume") is None and (worker is None or worker.remembered() is None):
            require_fresh(Path(folder))
        require_space(Path(folder), START_BYTES)
    return _Plan(is_sweep=False, folder=folder, has_run_folder=has_run_folder, single=settings, processes=processes)


def _of_every_job(composer: Composer, overrides: Sequence[str]) -> tuple[str, ...]:
    """Hydra's setting for the overrides that all jobs of a sweep share, which the folder of a job does not repeat."""
    keys = [override.key_or_group for override in composer.parse(overrides) if not override.is_sweep_override()]
    shared = ",".join(key for key in keys if not key.startswith("hydra"))
    return (f"hydra.job.config.override_dirname.exclude_keys=[{shared}]",)


def _folder_of(composed: Composed, key: str) -> str:
    return expanded(str(select_resolved(composed, key)), key)


def _check_sweep(composer: Composer, overrides: Sequence[str], *, module: CommandModule) -> _Plan:
    whole = composer.compose(overrides, is_sweep=True)
    require_safe(whole, overrides)
    parameters = parameters_of(whole)
    is_search = whole.hydra.sweeper.get("_target_") == TPE_SWEEPER
    words = in_fixed_order(composer, [*parameters, *overrides], is_search=is_search)
    require_unswept(composer.parse(words))
    for job_overrides in jobs_of_every_choice(composer, words):
        require_safe(composer.compose(job_overrides), job_overrides)
    settings = settings_of(whole)
    # What the sweeper's own parameters leave to chance is settled by words that win over them.
    settled = [word for word in words[: len(parameters)] if word not in parameters]
    overrides = [*settled, *words[len(parameters) :]]
    jobs = None if settings is None else planned_jobs(overrides, whole, settings)
    examples = list(jobs_one_change_apart(composer, words))
    devices: tuple[str, ...] = ()
    for job_overrides in examples:
        composed = composer.compose(job_overrides)
        if composed.get("resume") is not None:
            raise ConfigurationError("resume cannot be swept; go on from one run at a time, without -m")
        processes = _processes(module, _read(module, composed, job_overrides), None)
        devices = devices or processes.visible_devices
        if settings is None and processes.num > 1:
            raise ConfigurationError(
                f"{processes.key} must be 1 with -m, whose jobs run here one by one, got {processes.num}"
            )
    folder = _folder_of(whole, "hydra.sweep.dir")
    of_every_job = _of_every_job(composer, overrides)
    parallel = None
    if settings is not None:
        parallel = num_parallel(whole, None if jobs is None else len(jobs))
        is_resumed = settings.resume is not None
        folder = settings.resume or folder
        require_separate_folders(
            partial(composer.job_subdirectory, whole, of_every_job),
            jobs,
            trial=examples[0],
            sweep=SweepFolder(Path(folder)),
            is_resumed=is_resumed,
            is_numbered=are_numbered(whole),
        )
    require_space(Path(folder), START_BYTES)
    return _Plan(
        is_sweep=True,
        folder=folder,
        overrides=tuple(overrides),
        settings=settings,
        jobs=jobs,
        words=of_every_job,
        machine=machine_told(devices, parallel),
    )


def _read(module: CommandModule, composed: Composed, overrides: Sequence[str]) -> Any:
    HydraConfig.instance().set_config(composed)
    return module.read(plain(composed), _of_job(overrides))


def _of_job(overrides: Sequence[str]) -> list[str]:
    return [word for word in overrides if not word.lstrip("+~").startswith("hydra")]


def _processes(module: CommandModule, settings: Any, worker: Worker | None) -> Processes:
    """How many processes a run asks for, if they agree with those that were started."""
    if not isinstance(module, SpreadModule):
        if worker is not None and worker.num_workers > 1:
            raise ConfigurationError(
                f"this command runs in one process, and {worker.num_workers} were started; {TO_RUN_ALONE}"
            )
        return _ALONE
    processes = module.processes(settings)
    if worker is not None and processes.num not in (1, worker.num_workers):
        raise ConfigurationError(
            f"{processes.key} must be 1 or the {worker.num_workers} processes that were started, got {processes.num}; "
            f"{TO_RUN_ALONE}"
        )
    return processes


class _Quiet:
    """A job whose failure Hydra does not see, for Hydra would announce it in a line of its own."""

    def __init__(self, job: PickledJob) -> None:
        self.job = job
        self.failure: Exception | None = None

    def __call__(self, configuration: Composed) -> None:
        try:
            self.job(configuration)
        except Exception as error:
            self.failure = error

    def module(self) -> CommandModule:
        return self.job.module()


def _run_once(command: str, overrides: Sequence[str], flags: Sequence[str], plan: _Plan, *, job: PickledJob) -> None:
    folder, is_new = _made(plan)
    quiet = _Quiet(job)
    try:
        run_hydra(command, [*overrides, *_in_folder(folder), *flags], job=quiet)
        if quiet.failure is not None:
            raise quiet.failure
    except BaseException as error:
        _close_logs()
        if folder is not None and is_new and not leaves_folder(error):
            tidy(folder)
        raise
    _close_logs()


def _made(plan: _Plan) -> tuple[Path | None, bool]:
    """Make the run folder of a plan; None for a command that has none."""
    return make_new(Path(plan.folder)) if plan.has_run_folder else (None, False)


def _in_folder(folder: Path | None) -> list[str]:
    return [] if folder is None else [f"hydra.run.dir={quoted(str(folder))}"]


def _run_in_processes(command: str, overrides: Sequence[str], flags: Sequence[str], plan: _Plan) -> None:
    folder, is_new = _made(plan)
    former = {} if folder is None else read_summary(folder)
    try:
        launch_processes(command, [*overrides, *_in_folder(folder), *flags], plan.processes)
    except GenlabError as error:
        if folder is None or error.exit_code == FolderInUseError.exit_code:
            raise
        if is_new and not leaves_folder(error):
            tidy(folder)
        raise settled(folder, error, former=former) from None


def _run_beside(module: CommandModule, plan: _Plan, overrides: Sequence[str], worker: Worker) -> None:
    """A second process or a later one: without Hydra, which would write files, and without a word."""
    logging.disable(logging.WARNING)
    warnings.simplefilter("ignore")
    words = tuple(_of_job(overrides))
    context = JobContext(
        command=shlex.join(["genlab", *words]),
        overrides=words,
        choices={},
        run_folder=Path(plan.folder),
        is_restarted=worker.remembered() is not None,
        config_folders=(),
    )
    nowhere = io.StringIO()
    with leaving_orderly(), redirect_stdout(nowhere), redirect_stderr(nowhere):
        module.run(plan.single, context)


def _of_restart(worker: Worker) -> list[str]:
    """What the line of a process that is started again lacks: the run folder, whose .hydra/ stays as it is."""
    folder = worker.remembered()
    if folder is None:
        return []
    return [f"hydra.run.dir={quoted(str(folder))}", *(["hydra.output_subdir=null"] if folder.exists() else [])]


def _sweep(command: str, words: Sequence[str], *, job: PickledJob) -> None:
    try:
        run_hydra(command, words, job=job)
    except Exception as error:
        # Hydra raises the first failure after all jobs; each of them was reported when it happened.
        raise SweepError(f"the sweep had failures, the first: {explain(error)[0]}") from error
    finally:
        _close_logs()


def run_hydra(command: str, words: Sequence[str], *, job: PickledJob) -> None:
    """Hand a line to Hydra, whose exceptions come through as they are."""
    program, former = sys.argv[0], (sys.argv, os.environ.get(_FULL_ERROR))
    sys.argv = [program, *words]
    os.environ[_FULL_ERROR] = "1"
    try:
        hydra.main(config_path=str(config_directory()), config_name=command, **version_base())(job)()
    finally:
        sys.argv = former[0]
        if former[1] is None:
            os.environ.pop(_FULL_ERROR, None)
        else:
            os.environ[_FULL_ERROR] = former[1]


def run_job(command: str, module: Callable[[], CommandModule], configuration: Composed) -> None:
    """One job, in whatever process its launcher chose; one of a sweep that keeps a table gets a process of its own."""
    settings = settings_of(configuration)
    if settings is not None and HydraConfig.get().mode == RunMode.MULTIRUN:
        look_after_job(command, settings, configuration)
        return
    _run_here(module(), configuration)


def _run_here(module: CommandModule, configuration: Composed) -> None:
    context = _context()
    try:
        settings = module.read(plain(configuration), context.overrides)
        module.run(settings, context)
    except BaseException as error:
        message, code = explain(error)
        is_unforeseen = code == BUG and not isinstance(error, GenlabError)
        log = _write_into_log(message, error if is_unforeseen else None)
        if is_unforeseen:
            note_circumstances(error, log=log, targets=_targets(OmegaConf.to_container(configuration)))
        if HydraConfig.get().mode == RunMode.MULTIRUN:
            print(f"{prefix_of(error)}job {HydraConfig.get().job.num}: {message}", file=sys.stderr)  # noqa: T201
            if isinstance(error, StoppedBySignal):
                # Hydra would go on with the next job after any Exception.
                raise SystemExit(code) from error
        raise


def _context() -> JobContext:
    config = HydraConfig.get()
    overrides = tuple(str(override) for override in config.overrides.task)
    return JobContext(
        command=shlex.join(["genlab", str(config.job.config_name), *overrides]),
        overrides=overrides,
        choices=chosen(config.runtime.choices),
        run_folder=Path(config.runtime.output_dir),
        is_restarted=(worker := this_worker()) is not None and worker.remembered() is not None,
        config_folders=tuple(Path(source.path) for source in config.runtime.config_sources if source.schema == "file"),
    )


def _targets(node: Any) -> Iterator[str]:
    """The classes and functions that a configuration names, outside of Hydra's part."""
    if isinstance(node, Mapping):
        for name, value in node.items():
            if name == TARGET and isinstance(value, str):
                yield value
            elif name != "hydra":
                yield from _targets(value)


def _write_into_log(message: str, bug: BaseException | None) -> Path | None:
    """Write how a job ended into the log of its run folder; returns the log as a person here would type it."""
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
