"""Descriptions of the options of a config group, read from the comments at the head of its files without imports."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from genlab.config.fields import check_fields
from genlab.config.location import config_directory


@dataclass(frozen=True, kw_only=True)
class NoSettings:
    """The settings of a command without any."""


def read_nothing(values: Mapping[str, Any]) -> NoSettings:
    """Check that nothing was set.

    Raises:
        ConfigurationError: A key was given.
    """
    return check_fields(NoSettings, values, "")


def options_of(group: str, folders: Sequence[Path]) -> dict[str, str]:
    """Return each option of a group with the first line of its file, sorted.

    Args:
        group: Name of the group.
        folders: Configuration trees, in order of precedence.
    """
    files: dict[str, Path] = {}
    for folder in folders:
        for path in (folder / group).glob("*.yaml"):
            files.setdefault(path.stem, path)
    return {name: headline(files[name]) for name in sorted(files)}


def describe_options(group: str, folders: Sequence[Path]) -> Iterator[str]:
    """Return ``name  first sentence of its file`` for each option of a group, sorted.

    Args:
        group: Name of the group.
        folders: Configuration trees, in order of precedence.
    """
    options = options_of(group, folders)
    width = max(map(len, options), default=0)
    for name, first_sentence in options.items():
        yield f"{name:<{width}}  {first_sentence}"


def settings_of(command: str) -> str:
    """Return the settings of a command with their comments, as written in its primary configuration.

    Dollar signs are doubled because Hydra reads the text as a template.
    """
    text = (config_directory() / f"{command}.yaml").read_text(encoding="utf-8")
    after_defaults = text.partition("\ndefaults:\n")[2].partition("\n\n")[2]
    settings = after_defaults.partition("hydra:\n")[0].strip()
    return f"{settings}\n".replace("$", "$$") if settings else ""


def headline(path: Path) -> str:
    """Return the first line of the comment at the head of a YAML file; "" if there is none."""
    for line in path.read_text(encoding="utf-8").splitlines():
        if line.startswith(("# @package", "# yaml-language-server:")) or not line.strip():
            continue
        return line.removeprefix("#").strip() if line.startswith("#") else ""
    return ""
