"""Run folders: numbered, locked by one process, checked before anything is built, and removed if unused."""

import fcntl
import os
import re
import shlex
import shutil
import socket
import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from filelock import BaseFileLock, FileLock, Timeout

from genlab.config.naming import UNNUMBERED
from genlab.config.plain_yaml import read_plain
from genlab.config.targets import to_trust
from genlab.errors import ConfigurationError, FolderInUseError, StorageError
from genlab.paths import from_here, program
from genlab.storage import opened_within, read_json_if_whole, read_within, remove_temporaries

LOCK_NAME = ".lock"
OWNER_NAME = ".owner"
_HYDRA_FOLDER = ".hydra"  # hydra.output_subdir may name another
_HYDRA_FILES = {"config.yaml", "hydra.yaml", "overrides.yaml", "config.pickle"}  # the last by a callback of Hydra
_PATIENCE_SECONDS = 0.3
_TYPES_OF_SUMMARY = {
    **dict.fromkeys(("status", "reason", "selected_by"), str | None),
    **dict.fromkeys(("step", "saved_step"), int),
    "seconds": float | int | None,
    **dict.fromkeys(("best", "test", "final", "measures"), dict | None),
}


@contextmanager
def locked(folder: Path, *, is_resumed: bool) -> Iterator[None]:
    """Lock a run folder against other processes of this machine until the block ends or this process dies.

    The kernel releases the lock when a process is killed. Locks on network file systems are not guaranteed.

    Raises:
        FolderInUseError: Another process has locked it.
        ConfigurationError: It contains a run already, and this is not its resumption.
        StorageError: It cannot be written.
    """
    make(folder)
    lock = _acquired(folder, hint="wait, or stop it" if is_resumed else "wait, or choose another hydra.run.dir")
    try:
        remove_temporaries(folder)
        if not is_resumed:
            require_fresh(folder)
        _write_owner(folder)
        yield
    finally:
        (folder / OWNER_NAME).unlink(missing_ok=True)
        lock.release()


def require_fresh(folder: Path) -> None:
    """Refuse a folder that contains anything but the files of a start, or a dry run, which may be replaced.

    Raises:
        ConfigurationError: As said.
        StorageError: It, or what it should lie in, is not a folder.
    """
    place = next(place for place in (folder, *folder.parents) if place.exists())
    if not place.is_dir():
        raise StorageError(f"{folder} cannot be made: {place} is a file")
    if folder.is_dir() and not is_untouched(folder) and not is_dry_run(folder):
        is_run = (folder / "config.yaml").is_file()
        way_on = f"to resume it: {resume_command(folder)}" if is_run else "name another"
        raise ConfigurationError(f"name or hydra.run.dir must be a new or empty folder, got {folder}; {way_on}")


def resume_command(folder: Path, packages: Iterable[str] | None = None) -> str:
    """Return the command line that resumes a run.

    Args:
        folder: Of the run.
        packages: Packages of the user's that the command has to trust and find; None for those that the run names.
    """
    if packages is None:
        try:
            packages = list(to_trust(read_plain(folder, "config.yaml")))
        except (OSError, ValueError):
            packages = []  # it is damaged, as the command will say
    return f"{program(packages)} train resume={shlex.quote(str(from_here(folder)))}"


def require_free(folder: Path) -> None:
    """Refuse a folder that another process has locked; the folder is not changed.

    Raises:
        FolderInUseError: As said.
    """
    if not (folder / LOCK_NAME).is_file():
        return
    _acquired(folder).release()


def is_abandoned(folder: Path) -> bool:
    """Return True if the process that had locked a folder died without releasing it; the folder is not changed.

    Also False if the process was one of another machine, of which nothing is known.
    """
    try:
        host = read_within(folder, OWNER_NAME).decode(errors="replace").rpartition(" on ")[2]
        with opened_within(folder, LOCK_NAME) as lock:
            fcntl.flock(lock, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except (OSError, ValueError):
        return False  # it released the lock, or still has it
    return host == socket.gethostname()


def is_untouched(folder: Path) -> bool:
    """Return True if the folder contains only files of Hydra, its log and the files of the lock."""
    return all(_is_of_a_start(entry) for entry in folder.iterdir())


def is_dry_run(folder: Path) -> bool:
    """Return True if the folder contains a run of ``trainer.dry_run=true``, which has no checkpoints to lose."""
    try:
        trainer = read_plain(folder, "config.yaml")["trainer"]
        return trainer["dry_run"] is True and not has_checkpoint(folder)
    except (OSError, ValueError, LookupError, TypeError):
        return False  # a damaged one may be of any run


def tidy(folder: Path) -> None:
    """Remove an unused run folder, and the folders above it that are empty then."""
    if not folder.is_dir() or not is_untouched(folder):
        return
    for entry in sorted(folder.rglob("*"), reverse=True):
        entry.rmdir() if entry.is_dir() else entry.unlink()
    for place in (folder, folder.parent, folder.parent.parent):
        if place.resolve() == Path.cwd():
            break
        try:
            place.rmdir()
        except OSError:  # it is not empty, perhaps only since this instant
            break


def clear(folder: Path, *, keep: str | None = None) -> None:
    """Remove the files of a run except its logs, for another attempt in the same folder.

    Args:
        folder: Of the run.
        keep: Name of a file that stays too.
    """
    # In this order: a kill meanwhile leaves summary.json without checkpoints, never checkpoints without it.
    for entry in sorted(folder.iterdir()) if folder.is_dir() else ():
        if entry.name != keep and not _is_of_a_start(entry):
            shutil.rmtree(entry) if entry.is_dir() and not entry.is_symlink() else entry.unlink()


def remove(folder: Path) -> None:
    """Delete a run folder that no process has locked, and the folder above it if that is empty then.

    It is renamed first, so that an interrupted removal leaves no incomplete run.

    Raises:
        FolderInUseError: A process has locked it.
        StorageError: It cannot be removed.
    """
    lock = _acquired(folder)
    try:
        nameless = folder.rename(folder.with_name(f".removed-{folder.name}"))
        shutil.rmtree(nameless)
    except OSError as error:
        raise StorageError(f"{folder} cannot be removed: {error.strerror}") from error
    finally:
        lock.release()
    with suppress(OSError):  # it contains other runs
        folder.parent.rmdir()


def has_checkpoint(folder: Path) -> bool:
    """Return True if the folder has a checkpoint to resume from."""
    names = ("last.safetensors", "previous.safetensors")
    return any((folder / "checkpoints" / name).exists() for name in names) and (folder / "config.yaml").is_file()


def read_summary(run_folder: Path) -> dict[str, Any]:
    """Return a run's summary.json, without entries of another type than a run writes; empty if absent or damaged."""
    summary = read_json_if_whole(run_folder, "summary.json")
    return {key: value for key, value in summary.items() if isinstance(value, _TYPES_OF_SUMMARY.get(key, object))}


def never_saved(folder: Path) -> bool:
    """Return True if a run certainly ended before its first complete checkpoint, so that a new start loses nothing.

    summary.json contains the step of the newest save. A save in progress leaves temporary files, never a checkpoint.
    False if files of a run are missing, or there are checkpoints of other names: the user has to decide.
    """
    left = [entry.name for entry in (folder / "checkpoints").glob("*")]
    if (folder / "summary.json").exists():
        harmless = all(name.endswith(".tmp") for name in left)
        return harmless and read_summary(folder).get("saved_step") == 0
    metrics = folder / "metrics.jsonl"
    return not left and not (metrics.exists() and metrics.stat().st_size)


def _is_of_a_start(entry: Path) -> bool:
    if entry.is_dir():
        names = {file.name for file in entry.iterdir()}
        return names <= _HYDRA_FILES and (bool(names) or entry.name == _HYDRA_FOLDER)
    return entry.name in (LOCK_NAME, OWNER_NAME) or entry.suffix == ".log"


def _acquired(folder: Path, *, hint: str = "wait, or stop it") -> BaseFileLock:
    # Another start may be testing at this instant if the folder is free.
    lock = FileLock(folder / LOCK_NAME, timeout=_PATIENCE_SECONDS)
    try:
        lock.acquire(poll_interval=_PATIENCE_SECONDS / 10)
    except Timeout as error:
        raise FolderInUseError(f"{folder} is in use by {_owner(folder)}; {hint}") from error
    except OSError as error:
        raise StorageError(f"{folder} cannot be written: {error.strerror}") from error
    return lock


def make_new(folder: Path) -> tuple[Path, bool]:
    """Make the folder of a run or a sweep, with the next free number if its name has a placeholder.

    A process reserves a number by making a folder with only the number as its name, which is then renamed. Simultaneous
    starts therefore never share a number.

    Args:
        folder: As named by :mod:`genlab.config.naming` or by the user.

    Returns:
        The folder, and True if it was made here.

    Raises:
        StorageError: It cannot be made.
    """
    if not folder.name.startswith(UNNUMBERED):
        is_new = not folder.exists()
        make(folder)
        return folder, is_new
    while True:
        make(folder.parent)
        number = f"{max(_numbers_in(folder.parent), default=0) + 1:04d}"
        bare, full = folder.with_name(number), folder.with_name(folder.name.replace(UNNUMBERED, number, 1))
        try:
            bare.mkdir()
        except (FileExistsError, FileNotFoundError):  # another start was faster, or has tidied up the parent
            continue
        except OSError as error:
            raise StorageError(f"{folder.parent} cannot be written: {error.strerror}") from error
        if list(_numbers_in(folder.parent)).count(int(number)) > 1:  # it had its full name already
            bare.rmdir()
            continue
        return bare.rename(full), True


def _numbers_in(folder: Path) -> Iterator[int]:
    for entry in folder.iterdir():
        if number := re.match(r"\d+(?=-|$)", entry.name, re.ASCII):
            yield int(number[0])


def make(folder: Path, *, setting: str = "hydra.run.dir=FOLDER (hydra.sweep.dir with -m)") -> None:
    """Make a folder if it does not exist.

    Args:
        folder: Of a run, or for other files.
        setting: Names another folder, for the message.

    Raises:
        StorageError: It cannot be.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise StorageError(f"{folder} cannot be made: {error.strerror}; {setting} writes elsewhere") from error


def _write_owner(folder: Path) -> None:
    try:
        (folder / OWNER_NAME).unlink(missing_ok=True)  # it may be a link, or a pipe that would wait for its reader
        (folder / OWNER_NAME).write_text(f"PID {os.getpid()} on {socket.gethostname()}", encoding="utf-8")
    except OSError as error:
        raise StorageError(f"{folder} cannot be written: {error.strerror}") from error


def _owner(folder: Path) -> str:
    for _ in range(10):  # a process that has just acquired the lock still has to write its name
        with suppress(OSError, ValueError):
            if name := read_within(folder, OWNER_NAME):
                return name.decode(errors="replace")
        time.sleep(_PATIENCE_SECONDS / 10)
    return "another process"
