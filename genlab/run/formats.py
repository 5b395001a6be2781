"""Versions of the files in a run folder; those without one are older, and read as version 1."""

from pathlib import Path

FORMAT_KEY = "format_version"
CONFIG_FORMAT = 1
CHECKPOINT_FORMAT = 2


def newer_format(path: Path, version: object, newest: int) -> str | None:
    """Return the refusal of a file whose format version is newer than the newest that is read; None for others."""
    if not isinstance(version, int) or version <= newest:
        return None
    return (
        f"{path} has format version {version}, and this version of genlab reads versions up to {newest}; install the "
        "version that wrote it"
    )
