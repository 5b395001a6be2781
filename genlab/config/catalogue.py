"""Descriptions of the options of a config group, read from the comments at the head of its files without imports."""

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from genlab.config.location import config_directory
from genlab.tables import described

_KEY = re.compile(r"^(?P<indent> *)(?P<name>\w+):(?P<rest>.*)$")
_INHERITED = re.compile(r"^  - (\w+)(?: .*)?$", re.MULTILINE)
_AFTER_SENTENCE = re.compile(r"(?<=\.)(?<!\bal\.) (?=[A-Z])")
_NOT_SHOWN = ("defaults", "hydra")
_FACTS = ("Objective: ", "Needs: ")


@dataclass(frozen=True, kw_only=True)
class NamedSettings:
    """The settings of a command that lists options, or describes one."""

    name: str | None
    """The option to describe; None lists all."""


def files_of(group: str, folders: Sequence[Path]) -> dict[str, Path]:
    """Return the file of each option of a group, sorted by name.

    Args:
        group: Name of the group.
        folders: Configuration trees, in order of precedence.
    """
    files = {path.stem: path for folder in reversed(folders) for path in (folder / group).glob("*.yaml")}
    return dict(sorted(files.items()))


def options_of(group: str, folders: Sequence[Path]) -> dict[str, str]:
    """Return each option of a group with the first sentence of its file, sorted.

    Args:
        group: Name of the group.
        folders: Configuration trees, in order of precedence.
    """
    return {name: headline(path) for name, path in files_of(group, folders).items()}


def settings_of(command: str) -> str:
    """Return the settings of a command with their comments, as its file in configs/ has them.

    Dollar signs are doubled because Hydra reads the text as a template.
    """
    keys = keys_of(config_directory() / f"{command}.yaml")
    return described([(f"{key}={value}", comment) for key, value, comment in keys], indent="").replace("$", "$$")


def headline(path: Path) -> str:
    """Return the first sentence of the comment at the head of a YAML file, or else its first line; "" if absent.

    A line that begins with "Objective: " or "Needs: " follows it.
    """
    head = head_of(path)
    facts = [line for line in head if line.startswith(_FACTS)]
    lines = [line for line in head if line not in facts]
    ends = (number for number, line in enumerate(lines, start=1) if line.endswith("."))
    return " ".join([*_AFTER_SENTENCE.split(" ".join(lines[: next(ends, 1)]), maxsplit=1)[:1], *facts])


def head_of(path: Path) -> list[str]:
    """Return the lines of the comment at the head of a YAML file, without those for Hydra and editors."""
    lines: list[str] = []
    for line in path.read_text(encoding="utf-8").splitlines():
        if line.startswith(("# @package", "# yaml-language-server:")) or not (line.strip() or lines):
            continue
        if not line.startswith("#"):
            break
        lines.append(line.lstrip("# ").rstrip())
    return lines


def with_inherited(path: Path) -> list[Path]:
    """Return the files of a group that a YAML file inherits from, followed by the file."""
    defaults = path.read_text(encoding="utf-8").partition("\ndefaults:\n")[2].partition("\n\n")[0]
    parents = [path.with_name(f"{name}.yaml") for name in _INHERITED.findall(defaults)]
    return [*(file for parent in parents if parent.is_file() for file in with_inherited(parent)), path]


def keys_of(path: Path) -> Iterator[tuple[str, str, str]]:
    """Yield key, default and comment of each key of a YAML file; comment lines above a key belong to it.

    A blank line ends a comment. The comment at the head of the file belongs to the file, not to its first key.
    """
    parents: list[tuple[int, str]] = []
    above: list[str] = []
    is_head = True
    for line in path.read_text(encoding="utf-8").splitlines():
        if line.lstrip().startswith("#"):
            if not is_head:
                above.append(line.lstrip().lstrip("# "))
            continue
        is_head = False
        match = _KEY.match(line)
        if match is None:
            above = []
            continue
        indent, name = len(match["indent"]), match["name"]
        parents = [parent for parent in parents if parent[0] < indent]
        value, _, beside = match["rest"].partition(" #")
        key = ".".join([*(parent for _, parent in parents), name])
        parents.append((indent, name))
        if key.split(".")[0] not in _NOT_SHOWN and (value.strip() or beside.strip()):
            yield key, value.strip(), beside.strip() or " ".join(above)
        above = []
