"""Preflight check of the folders of a sweep's jobs: each must be new, separate, and inside the sweep's."""

import itertools
import os
import re
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path, PurePath
from typing import Any

from omegaconf import OmegaConf

from genlab.config.compose import Composed
from genlab.errors import ConfigurationError
from genlab.launch.sweep_folder import (
    DONE,
    JOBS_NAME,
    PLAN_NAME,
    SEEDS_NAME,
    STORAGE_NAME,
    TABLE_NAME,
    JobRecord,
    SweepFolder,
)
from genlab.run.folder import LOCK_NAME, OWNER_NAME, is_dry_run, is_untouched

_KEY = "hydra.sweep.subdir"
# The form in configs/train.yaml: short, and beginning with the number.
_NUMBERED = re.compile(r"\$\{genlab\.job_folder:\$\{hydra:job\.num\},[^/]*\}")
_OWN_NAMES = {JOBS_NAME, PLAN_NAME, TABLE_NAME, SEEDS_NAME, STORAGE_NAME, LOCK_NAME, OWNER_NAME}
_OWN_NAMES |= {".submitit", "multirun.yaml"}
_MAX_NAME_BYTES = 255
_MAX_PATH_BYTES = 3_800
"""Maximum length of a folder's path: the system's limit of 4,096 less the names of a run's files."""


def are_numbered(whole: Composed) -> bool:
    """Return True if the folders of a sweep's jobs are named as shipped: separate, and short."""
    templates: Any = OmegaConf.to_container(whole.hydra.sweep, resolve=False)
    return _NUMBERED.fullmatch(str(templates["subdir"])) is not None


def require_separate_folders(
    subdirectory: Callable[[Sequence[str], int], str],
    jobs: Sequence[Sequence[str]] | None,
    *,
    trial: Sequence[str],
    sweep: SweepFolder,
    is_resumed: bool,
    is_numbered: bool,
) -> None:
    """Refuse job folders that two jobs would share, that lie elsewhere or that are not empty.

    Args:
        subdirectory: Gives that of a job, by its overrides and number.
        jobs: Overrides of each job; None where a search makes them.
        trial: Overrides of a representative job of a search, which may occur more than once.
        sweep: The folder of the sweep, which need not exist.
        is_resumed: True if the sweep was started before.
        is_numbered: True if the names alone show that the folders are separate.

    Raises:
        ConfigurationError: As said.
    """
    if not is_resumed and (sweep.path / "config.yaml").exists():
        raise ConfigurationError(f"hydra.sweep.dir must not be the folder of a run, got {sweep.path}")
    if not is_resumed and (sweep.path / PLAN_NAME).exists() and not sweep.is_dry_run():
        return  # the error on acquiring the folder says how to resume
    records = {record.number: record for record in sweep.records()} if is_resumed else {}
    numbers: Iterable[int] = range(len(jobs)) if jobs is not None else itertools.count(max(records, default=-1) + 1)
    numbered = dict(zip(numbers, [trial, trial] if jobs is None else jobs, strict=False))
    if is_numbered:
        # Composition takes a large part of a second per job; for these only the disk is checked.
        is_open = [n for n, record in records.items() if record.folder is not None and record.status not in DONE]
        on_disk = is_open if is_resumed else numbered if sweep.path.exists() else ()
        numbered = {number: numbered[number] for number in on_disk if number in numbered}
    owners: dict[PurePath, int] = {}
    for number, overrides in numbered.items():
        folder = _inside(sweep.path, subdirectory(overrides, number), number)
        for other, owner in owners.items():
            if other == folder:
                raise ConfigurationError(
                    f"{_KEY} must differ between jobs, got {folder} for {owner} and {number}; add ${{hydra:job.num}}"
                )
            if other in folder.parents or folder in other.parents:
                raise ConfigurationError(
                    f"{_KEY} must not put one job's folder into another's, got {other} for job {owner} and {folder} "
                    f"for job {number}"
                )
        owners[folder] = number
        _require_same_or_new(sweep.path, folder, records.get(number), number)


def _inside(sweep: Path, subdirectory: str, number: int) -> PurePath:
    """Return a job's folder relative to the sweep's, if it can lie there."""
    folder = PurePath(os.path.relpath((sweep / subdirectory).resolve(), sweep.resolve()))
    if not folder.name or ".." in folder.parts:
        raise ConfigurationError(f"{_KEY} must lie in the sweep's folder, got {subdirectory!r} for job {number}")
    if folder.parts[0] in _OWN_NAMES:
        raise ConfigurationError(f"{_KEY} must not be {folder.parts[0]}, which the sweep itself writes")
    longest = max(len(os.fsencode(part)) for part in folder.parts)
    if longest > _MAX_NAME_BYTES:
        raise ConfigurationError(
            f"{_KEY} must have names of at most {_MAX_NAME_BYTES} bytes, got {longest} for job {number}"
        )
    if (length := len(os.fsencode(sweep / folder))) > _MAX_PATH_BYTES:
        raise ConfigurationError(
            f"{_KEY} must give paths of at most {_MAX_PATH_BYTES} bytes, got {length} for job {number}"
        )
    return folder


def _require_same_or_new(sweep: Path, folder: PurePath, record: JobRecord | None, number: int) -> None:
    if record is not None and record.folder is not None:
        if PurePath(record.folder) != folder:
            raise ConfigurationError(
                f"{_KEY} must stay as it was on resumption: job {number} has the folder {record.folder}, got {folder}"
            )
    elif (place := sweep / folder).exists() and not (place.is_dir() and (is_untouched(place) or is_dry_run(place))):
        raise ConfigurationError(f"{_KEY} must name new or empty folders, got {place} for job {number}")
