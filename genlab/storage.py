"""Files that a reader, or a crash at any instant, meets whole: the old bytes or the new ones, never a mixture."""

import errno
import os
import shutil
from pathlib import Path

from genlab.errors import StorageError

_FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)


def replace_atomically(path: Path, content: bytes) -> None:
    """Write a file by way of a temporary one in the same folder.

    Raises:
        StorageError: The disk is full; the old file is untouched.
        OSError: The folder cannot be written; the old file is untouched.
    """
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        with temporary.open("wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())  # the rename must not reach the disk before the bytes
        temporary.replace(path)
    except BaseException as error:
        temporary.unlink(missing_ok=True)
        if isinstance(error, OSError) and error.errno in _FULL:
            free = shutil.disk_usage(path.parent).free
            raise StorageError(
                f"disk full at {path}: {len(content):,} bytes to write, {free:,} free; the former file is untouched"
            ) from error
        raise
    descriptor = os.open(path.parent, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
