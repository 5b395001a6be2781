"""Paths as users write them (``~`` is the home folder, ``~ada`` that of the user ada), and commands to be typed."""

import os
import shlex
import shutil
import sys
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from genlab.errors import ConfigurationError


def expanded(text: str, key: str) -> str:
    """Return a path with ``~`` or ``~USER`` at its head replaced, and any other text as it is.

    Args:
        text: Of one value.
        key: The setting that it belongs to, for the error.

    Raises:
        ConfigurationError: There is no such user, or HOME is not set and the user has no entry of that kind.
    """
    if not text.startswith("~"):
        return text
    user = text[1:].partition("/")[0]
    # Python takes an empty HOME for the root of the file system.
    if user or os.environ.get("HOME") != "":
        try:
            return str(Path(text).expanduser())
        except RuntimeError:
            pass
    if user:
        raise ConfigurationError(f"{key} must name the home of an existing user, got {text}; write the path out")
    raise ConfigurationError(f"{key} needs a home folder, got {text} without HOME; set HOME, or write the path out")


def expanded_inside(value: Any, key: str) -> Any:
    """Return plain data with every text at any depth as :func:`expanded` returns it."""
    if isinstance(value, str):
        return expanded(value, key)
    if isinstance(value, Mapping):
        return {name: expanded_inside(item, f"{key}.{name}" if key else str(name)) for name, item in value.items()}
    if isinstance(value, list):
        return [expanded_inside(item, key) for item in value]
    return value


def absolute(path: Path | str) -> Path:
    """Return the absolute path, without ``..``, whose folders may be removed."""
    whole = Path(path).absolute()
    return whole.resolve() if ".." in whole.parts else whole


def from_here(path: Path) -> Path:
    """Return a path relative to the working directory if it is inside; other paths unchanged."""
    return path.relative_to(Path.cwd()) if path.is_relative_to(Path.cwd()) else path


def program(packages: Iterable[str] = ()) -> str:
    """Return the command that starts this program; without an activated environment `genlab` is not on the path.

    Args:
        packages: Packages of the user's that the command has to trust to read the run, and to find.
    """
    needed = list(packages)
    allowed = [name.strip() for name in os.environ.get("GENLAB_ALLOW", "").split(",")]
    trusted = [name for name in dict.fromkeys([*allowed, *needed]) if name]
    prefix = f"GENLAB_ALLOW={','.join(trusted)} " if needed else ""
    if needed and (places := os.environ.get("PYTHONPATH")):
        prefix = f"PYTHONPATH={shlex.quote(places)} {prefix}"
    script = Path(sys.executable).with_name("genlab")
    if shutil.which("genlab") or not script.exists():
        return f"{prefix}genlab"
    return f"{prefix}{shlex.quote(str(from_here(script)))}"


def user_cache() -> Path:
    """Return the folder of files that can be downloaded or computed again: below XDG_CACHE_HOME, else ``~/.cache``.

    Raises:
        ConfigurationError: The home folder is unknown.
    """
    named = os.environ.get("XDG_CACHE_HOME", "")
    # The standard says that a relative one is ignored.
    place = named if Path(named).is_absolute() else expanded("~/.cache", "XDG_CACHE_HOME (by default)")
    return Path(place) / "genlab"
