"""Files that a reader, or a crash at any instant, meets whole: the old bytes or the new ones, never a mixture."""

import os
from pathlib import Path


def replace_atomically(path: Path, content: bytes) -> None:
    """Write a file by way of a temporary one in the same folder.

    Raises:
        OSError: The disk is full or the folder cannot be written; the old file is untouched.
    """
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        with temporary.open("wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())  # the rename must not reach the disk before the bytes
        temporary.replace(path)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise
    descriptor = os.open(path.parent, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
