"""Preflight checks: every run is composed and checked before Hydra makes a folder."""

import os
import re
import sys
from collections import Counter
from collections.abc import Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from hydra.core.hydra_config import HydraConfig
from hydra.types import RunMode
from omegaconf import OmegaConf

from genlab.config.build import TARGET
from genlab.config.compose import Composed, Composer, parse_overrides, plain, select_resolved
from genlab.config.consequences import differing_data
from genlab.errors import ConfigurationError
from genlab.launch.contract import CommandModule, ReplacingModule, SpreadModule
from genlab.launch.processes import Processes
from genlab.launch.representative_jobs import in_fixed_order, jobs_one_change_apart
from genlab.launch.sweep import TPE_SWEEPER, parameters_of, planned_jobs, refuse_without_sweep, require_same_jobs
from genlab.launch.sweep_settings import SweepSettings, settings_of
from genlab.launch.sweep_shares import machine_in_environment, num_parallel
from genlab.launch.worker import Worker
from genlab.parallel.place import TO_RUN_ALONE
from genlab.paths import expanded
from genlab.run.folder import require_free, require_fresh
from genlab.run.hyperparameters import chosen
from genlab.run.names import CONFIG_NAME
from genlab.storage import require_space
from genlab.terminal import hide_progress

START_BYTES = 1_000_000
"""Space for the logs and records of any run, in bytes; checkpoints and pictures check their own."""
_ALONE = Processes(num=1)
_JOB_NUMBER = re.compile(r"\bhydra[:.]job\.(num|id)\b")


@dataclass(frozen=True, kw_only=True)
class CheckedRun:
    """A single run that was composed and checked."""

    folder: Path
    has_run_folder: bool
    """True if the command makes and locks a run folder."""
    settings: Any
    """As the command has read them."""
    processes: Processes


@dataclass(frozen=True, kw_only=True)
class CheckedSweep:
    """A sweep whose jobs were checked."""

    folder: Path
    overrides: tuple[str, ...]
    """In which the order of the jobs is fixed."""
    settings: SweepSettings | None
    """None for a sweep that writes no table of its jobs."""
    jobs: tuple[tuple[str, ...], ...] | None
    """Overrides of each job; None where a search makes them one by one, or without a table."""
    naming_override: str
    """Override of Hydra for the names of the jobs' folders, put before those of the sweep."""
    machine: AbstractContextManager[None]
    """Context in which the launcher runs."""


def preflight(
    composer: Composer, overrides: Sequence[str], *, module: CommandModule, is_sweep: bool, worker: Worker | None
) -> CheckedRun | CheckedSweep:
    """Compose and check the run, or the jobs of the sweep.

    Args:
        composer: Of the command.
        overrides: Of the command line.
        module: Of the command.
        is_sweep: True if the command line asks for one.
        worker: The rank of this process among several, if there are several.

    Raises:
        ConfigurationError: Something does not exist or does not fit.
        StorageError: The disk is full, or the run folder is not a folder.
        FolderInUseError: Another process has locked the run folder.
    """
    if is_sweep:
        if worker is not None:
            raise ConfigurationError(f"a sweep starts processes of its own, by trainer.devices; {TO_RUN_ALONE}")
        return _check_sweep(composer, overrides, module=module)
    composed = composer.compose(overrides)
    _require_working_directory(composed)
    if composed.hydra.mode == RunMode.MULTIRUN:
        return preflight(composer, overrides, module=module, is_sweep=True, worker=worker)
    if settings_of(composed) is not None:
        refuse_without_sweep(overrides)
    # Before anything is read or started: Hydra sets them for the job alone, and for one process of several.
    os.environ.update(select_resolved(composed, "hydra.job.env_set"))
    settings = _read(module, composer, composed, overrides)
    processes = _processes(module, settings, worker)
    folder = Path(_folder_of(composed, "hydra.run.dir"))
    has_run_folder = composed.hydra.run.dir != "."
    if has_run_folder and (worker is None or worker.is_first):
        require_free(folder)
        if composed.get("resume") is None and (worker is None or worker.remembered() is None):
            require_fresh(folder)
        require_space(folder, START_BYTES)
    return CheckedRun(folder=folder, has_run_folder=has_run_folder, settings=settings, processes=processes)


def _require_working_directory(composed: Composed) -> None:
    if composed.hydra.job.get("chdir"):
        raise ConfigurationError(
            "hydra.job.chdir must be false, because paths are relative to the working directory, got true; "
            "hydra.run.dir chooses the run folder"
        )


def _naming_override(overrides: Sequence[str]) -> str:
    """Return the override of Hydra that leaves what all jobs of a sweep share out of the names of their folders."""
    keys = [override.key_or_group for override in parse_overrides(overrides) if not override.is_sweep_override()]
    shared = ",".join(key for key in keys if not key.startswith("hydra"))
    return f"hydra.job.config.override_dirname.exclude_keys=[{shared}]"


def _folder_of(composed: Composed, key: str) -> str:
    return expanded(str(select_resolved(composed, key)), key)


def _check_sweep(composer: Composer, overrides: Sequence[str], *, module: CommandModule) -> CheckedSweep:
    whole = composer.compose(overrides, is_sweep=True)
    _require_working_directory(whole)
    hide_progress(whole.hydra.runtime.choices["hydra/job_logging"] == "quiet")
    parameters = parameters_of(whole)
    is_search = whole.hydra.sweeper.get(TARGET) == TPE_SWEEPER
    arguments = in_fixed_order(composer, [*parameters, *overrides], is_search=is_search)
    settings = settings_of(whole)
    # Random choices among the sweeper's own parameters are fixed by overrides that take precedence.
    fixed = [argument for argument in arguments[: len(parameters)] if argument not in parameters]
    overrides = [*fixed, *arguments[len(parameters) :]]
    jobs = None if settings is None else planned_jobs(overrides, whole, settings)
    if settings is not None and settings.resume is not None:
        require_same_jobs(Path(settings.resume), jobs)
    devices: tuple[str, ...] = ()
    choices, destinations = [], []
    for job_overrides, composed in jobs_one_change_apart(composer, arguments):
        if composed.get("resume") is not None:
            raise ConfigurationError("resume cannot be swept; resume one run at a time, without -m")
        choices.append(chosen(composed.hydra.runtime.choices))
        settings_of_job = _read(module, composer, composed, job_overrides)
        if isinstance(module, ReplacingModule):
            destinations.append(module.destination(settings_of_job))
        processes = _processes(module, settings_of_job, None)
        devices = devices or processes.visible_devices
        if settings is None and processes.num > 1:
            raise ConfigurationError(
                f"{processes.key} must be 1 with -m, whose jobs run here one by one, got {processes.num}"
            )
    if settings is not None and (note := differing_data(choices, overrides)) is not None:
        print(f"genlab: {note}", file=sys.stderr)  # noqa: T201
    _require_separate(destinations, overrides)
    folder = _folder_of(whole, "hydra.sweep.dir")
    parallel = None
    if settings is not None:
        parallel = num_parallel(whole, None if jobs is None else len(jobs))
        folder = settings.resume or folder
        _require_numbered_folders(whole)
        if settings.resume is None and (Path(folder) / CONFIG_NAME).exists():
            raise ConfigurationError(f"hydra.sweep.dir must not be the folder of a run, got {folder}")
    require_space(Path(folder), START_BYTES)
    return CheckedSweep(
        folder=Path(folder),
        overrides=tuple(overrides),
        settings=settings,
        jobs=jobs,
        naming_override=_naming_override(overrides),
        machine=machine_in_environment(devices, parallel),
    )


def _require_numbered_folders(whole: Composed) -> None:
    """Refuse names of job folders without the job's number, which two jobs could share."""
    templates: Any = OmegaConf.to_container(whole.hydra.sweep, resolve=False)
    if not _JOB_NUMBER.search(str(templates["subdir"])):
        raise ConfigurationError(
            f"hydra.sweep.subdir must contain ${{hydra:job.num}}, so that each job has a folder of its own, got "
            f"{templates['subdir']}"
        )


def _require_separate(destinations: Sequence[Path], overrides: Sequence[str]) -> None:
    """Refuse jobs that would replace each other's results."""
    for place, number in Counter(destinations).items():
        if number > 1:
            swept = [override.key_or_group for override in parse_overrides(overrides) if override.is_sweep_override()]
            name = "-".join(f"${{{key}}}" for key in swept)
            raise ConfigurationError(
                f"out must name a folder for each job, such as 'out=results/{name}', since they would replace each "
                f"other's {place}"
            )


def _read(module: CommandModule, composer: Composer, composed: Composed, overrides: Sequence[str]) -> Any:
    HydraConfig.instance().set_config(composed)
    try:
        return module.read(plain(composed), task_overrides(overrides))
    except ConfigurationError as error:
        parsed = parse_overrides(overrides)
        is_typed = any(str(error).startswith(override.key_or_group + " ") for override in parsed)
        if not str(error).startswith("model.") or is_typed or (reason := composer.other_model(parsed)) is None:
            raise
        raise ConfigurationError(f"{reason} ({error})") from error


def task_overrides(overrides: Sequence[str]) -> list[str]:
    """Return the overrides without those of Hydra, which calls them so too."""
    return [argument for argument in overrides if not argument.lstrip("+~").startswith("hydra")]


def _processes(module: CommandModule, settings: Any, worker: Worker | None) -> Processes:
    """Return the processes of a run, checked against those that were started."""
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
