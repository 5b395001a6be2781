"""The folder of the data sets."""

import difflib
import os
import shlex
from pathlib import Path

from genlab.errors import DataError
from genlab.paths import expanded, user_cache
from genlab.printing import printable

ROOT_KEY = "dataset.root"
ROOT_VARIABLE = "GENLAB_DATA"


def resolve_root(root: str | None) -> Path:
    """Return the folder of the data sets: `root`, else the environment variable GENLAB_DATA, else the user's cache."""
    key, named = _named(root)
    return Path(expanded(named, key)).absolute() if named else user_cache()


def existing_root(root: str | None) -> Path:
    """Return the folder of the data sets; one that the user named must exist, so that a misspelt one is not made.

    Raises:
        DataError: It does not exist.
    """
    folder = resolve_root(root)
    key, named = _named(root)
    if named:
        require_folder(folder, key=key, hint=f"to download into it: mkdir -p {shlex.quote(str(folder))}")
    return folder


def require_folder(path: Path, *, key: str, hint: str | None = None) -> None:
    """Refuse a path that is not a folder.

    Args:
        path: Absolute.
        key: The setting that names it, for the error.
        hint: A hint other than the nearest name.

    Raises:
        DataError: As said, with the folder beside it of nearest name.
    """
    if path.is_dir():
        return
    if path.exists():
        raise DataError(f"{key} must be a folder, and {printable(str(path))} is a file")
    parent = next(place for place in path.parents if place.is_dir())
    missing = path.relative_to(parent).parts[0]
    near = difflib.get_close_matches(missing, _names_of_folders(parent), n=1)
    guess = f"did you mean {parent / near[0]}?" if near else None
    hints = "; ".join(printable(text) for text in (guess, hint) if text)
    raise DataError(f"{key} must be an existing folder, got {printable(str(path))}{'; ' if hints else ''}{hints}")


def describe_root(root: str | None) -> str:
    """Return the folder and the setting it came from, for error messages."""
    key, named = _named(root)
    setting = key if named else f"the default; neither {ROOT_KEY} nor {ROOT_VARIABLE} is set"
    return f"{resolve_root(root)} ({setting})"


def _named(root: str | None) -> tuple[str, str | None]:
    """Return the setting that names the folder, and its value."""
    return (ROOT_KEY, root) if root else (ROOT_VARIABLE, os.environ.get(ROOT_VARIABLE))


def _names_of_folders(parent: Path) -> list[str]:
    try:
        return [place.name for place in parent.iterdir() if place.is_dir()]
    except OSError:
        return []
