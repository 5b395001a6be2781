"""Atomic writing of files, and reading of untrusted files that must lie in their own folder.

A reader, or a crash at any instant, finds the old bytes or the new ones, never a mixture. A file that is read from an
untrusted folder must lie in that folder and be an ordinary file: a link can lead to any file of this machine, and a
pipe never ends.
"""

import errno
import fcntl
import glob
import json
import math
import os
import shutil
import stat
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, BinaryIO

from genlab.errors import ConfigurationError, FolderInUseError, StorageError

_TEMPORARY = ".tmp"
_FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)


def replace_atomically(
    path: Path, *parts: bytes | memoryview, previous: Path | None = None, is_synchronised: bool = True
) -> None:
    """Write a file atomically, through a temporary file in the same folder.

    Args:
        path: Of the file.
        parts: Its content, in order.
        previous: Path in the same folder to which the existing file is moved; it is overwritten by default.
        is_synchronised: False leaves the time of writing to the operating system, for thousands of files that can be
            made again: a power failure, unlike a kill, may leave an empty one.

    Raises:
        StorageError: The disk is full; the old file is untouched.
        OSError: The folder cannot be written; the old file is untouched.
    """
    temporary = path.with_name(f".{path.name}.{os.getpid()}{_TEMPORARY}")
    num_bytes = sum(map(len, parts))
    require_space(path, num_bytes)
    try:
        with temporary.open("wb") as file:
            for part in parts:
                file.write(part)
            file.flush()
            if is_synchronised:
                os.fsync(file.fileno())  # the rename must not reach the disk before the bytes
        if previous is not None and path.exists():
            path.replace(previous)
        temporary.replace(path)
    except BaseException as error:
        temporary.unlink(missing_ok=True)
        if is_disk_full(error):
            raise _disk_full(path, num_bytes, error) from error
        if isinstance(error, OSError) and error.filename == str(temporary):
            error.filename = str(path)  # the file that the user named
        raise
    if is_synchronised:
        _synchronise(path.parent)


@contextmanager
def whole_folder(target: Path) -> Iterator[Path]:
    """Yield a temporary folder that is renamed to the target when the block ends, and removed if it fails.

    Leftovers of a killed process for the same target are removed first; the kernel releases the lock on a folder being
    filled when its process is killed.

    Args:
        target: Does not exist, or is an empty folder.

    Raises:
        StorageError: A folder cannot be made there.
    """
    place = target.resolve()
    part = place.with_name(f".{place.name}.{os.getpid()}{_TEMPORARY}")
    try:
        place.parent.mkdir(parents=True, exist_ok=True)
        for stray in place.parent.glob(f".{glob.escape(place.name)}.*{_TEMPORARY}"):
            if stray.is_dir():
                with suppress(FolderInUseError), locked_folder(stray):
                    shutil.rmtree(stray)
        part.mkdir()
    except OSError as error:
        raise StorageError(f"{target} cannot be made: {error.strerror}") from error
    try:
        with locked_folder(part):
            yield part
            try:
                part.rename(place)
            except OSError as error:  # the working directory of a container, or where a disk is mounted
                text = f"{target} cannot be replaced ({error.strerror}); name a folder inside it"
                raise StorageError(text) from error
            _synchronise(place.parent)
    except BaseException:
        shutil.rmtree(part, ignore_errors=True)
        raise


@contextmanager
def locked_folder(folder: Path) -> Iterator[None]:
    """Lock an existing folder, without a file in it, until the block ends or this process dies.

    Raises:
        FolderInUseError: Another process has locked it.
    """
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            raise FolderInUseError(f"{folder} is in use by another process; wait, or name another") from error
        except OSError:  # of a network file system that locks no folders
            pass
        yield
    finally:
        os.close(descriptor)


def require_writable(folder: Path, *, setting: str = "out=FOLDER") -> None:
    """Refuse a folder that cannot be written; nothing is made there.

    Args:
        folder: Need not exist.
        setting: Names another folder, for the message.

    Raises:
        StorageError: As said.
    """
    place = _existing(folder)
    try:
        with tempfile.TemporaryFile(dir=place):
            pass
    except OSError as error:
        raise StorageError(f"{folder} cannot be written ({error.strerror}); {setting} writes elsewhere") from error


def _synchronise(folder: Path) -> None:
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def is_disk_full(error: BaseException) -> bool:
    """Return True if a write failed because of the disk space, a quota, or the limit of the file size."""
    return isinstance(error, OSError) and error.errno in _FULL


def require_space(path: Path, num_bytes: int) -> None:
    """Refuse to write more bytes than there is space for.

    Args:
        path: Need not exist.
        num_bytes: Number of bytes to be written.

    Raises:
        StorageError: There is less space than that.
    """
    # File systems without storage, such as /proc, have no size, and raise their own errors on writing.
    if shutil.disk_usage(_existing(path)).total > 0 and free_bytes(path) < num_bytes:
        raise _disk_full(path, num_bytes)


def free_bytes(path: Path) -> int:
    """Return the free space in bytes on the disk of a path, which need not exist."""
    return shutil.disk_usage(_existing(path)).free


def _existing(path: Path) -> Path:
    return next(place for place in (path, *path.absolute().parents) if place.exists())


def _disk_full(path: Path, num_bytes: int, error: BaseException | None = None) -> StorageError:
    fault = "disk full"
    if isinstance(error, OSError) and error.errno != errno.ENOSPC:  # a quota, or `ulimit -f`
        fault = str(error.strerror).lower()
    return StorageError(
        f"{fault} at {path}: {num_bytes:,} bytes to write, {free_bytes(path):,} free; existing files are untouched"
    )


def remove_temporaries(folder: Path) -> None:
    """Remove temporary files of killed processes; no other process may be writing to the folder."""
    for stray in folder.glob(f".*{_TEMPORARY}"):
        if not stray.is_dir():  # `whole_folder` removes its own
            stray.unlink(missing_ok=True)


@contextmanager
def opened_within(folder: Path, name: str) -> Iterator[BinaryIO]:
    """Open an ordinary file of a folder to read it.

    Args:
        folder: May be a link itself.
        name: Path of the file inside it.

    Raises:
        OSError: It cannot be opened.
        ValueError: It lies outside the folder or is not an ordinary file.
    """
    path = folder / name
    if leads_out(path, folder):
        raise ValueError("it leads out of the folder")
    # A pipe would wait for its writer.
    with open(path, "rb", opener=lambda path, flags: os.open(path, flags | os.O_NONBLOCK)) as file:
        status = os.fstat(file.fileno())
        if not stat.S_ISREG(status.st_mode):
            raise ValueError("it is not an ordinary file")
        yield file


def json_bytes(content: Any) -> bytes:
    """Return content as JSON; numbers that are not finite become null, which JSON has no other word for."""
    return json.dumps(_finite(content), indent=1).encode()


def _finite(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _finite(kept) for key, kept in value.items()}
    if isinstance(value, list | tuple):
        return [_finite(kept) for kept in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


def read_within(folder: Path, name: str) -> bytes:
    """Return the content of an ordinary file of a folder, as opened by `opened_within`.

    Raises:
        OSError: It cannot be read.
        ValueError: It lies outside the folder or is not an ordinary file.
    """
    with opened_within(folder, name) as file:
        # Python allocates as much memory as it is asked to read.
        return file.read(os.fstat(file.fileno()).st_size)


def read_json(folder: Path, name: str) -> dict[str, Any]:
    """Return the object in a JSON file of a folder.

    Raises:
        OSError: It cannot be read.
        ValueError: It lies outside the folder, is not an ordinary file or holds no JSON object.
    """
    try:
        content = json.loads(read_within(folder, name))
    except RecursionError as error:
        raise ValueError("it is nested too deeply") from error
    if not isinstance(content, dict):
        raise ValueError("it holds no keys and values")
    return content


def read_json_if_whole(folder: Path, name: str) -> dict[str, Any]:
    """Return the object in a JSON file of a folder; empty if it is absent or damaged."""
    try:
        return read_json(folder, name)
    except (OSError, ValueError):
        return {}


def require_contained(folder: Path) -> None:
    """Refuse a folder that contains special files, or links that lead out of it, since it is also written to.

    Raises:
        ConfigurationError: The first such thing.
    """
    for parent, folder_names, file_names in os.walk(folder):
        for name in (*folder_names, *file_names):
            path = Path(parent, name)
            if leads_out(path, folder):
                raise ConfigurationError(
                    f"{folder} is refused: {path.relative_to(folder)} leads out of it; put the files themselves there"
                )
            if not (path.is_file() or path.is_dir() or path.is_symlink()) and path.exists():
                raise ConfigurationError(f"{folder} is refused: {path.relative_to(folder)} is not an ordinary file")


def leads_out(path: Path, folder: Path) -> bool:
    """Return True if a path inside a folder leads outside through a link."""
    try:
        path.stat()
    except OSError as error:
        if error.errno == errno.ELOOP:  # links in a circle, which Python 3.13 resolves without an error
            return True
    return not path.resolve().is_relative_to(folder.resolve())
