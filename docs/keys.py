"""The reference of configuration keys, generated from the comments of the YAML files when the site is built."""

import re
from collections.abc import Iterator
from pathlib import Path

CONFIGS = Path(__file__).parent.parent / "configs"
COMMANDS = ("train", "sample", "evaluate", "compare", "export", "check", "board", "datasets", "report")
GROUPS = {
    "trainer": "How a run spends its time",
    "model": "Models and their parts",
    "dataset": "Data sets",
    "optimizer": "Optimizers",
    "schedule": "Learning-rate schedules",
    "technique": "GAN techniques",
    "logger": "Loggers",
}
_KEY = re.compile(r"^(?P<indent> *)(?P<name>\w+):(?P<rest>.*)$")
_NOT_SHOWN = ("defaults", "hydra")


def keys_of(path: Path) -> Iterator[tuple[str, str, str]]:
    """Yield key, default and comment of each key of a YAML file; comment lines above a key belong to it.

    A blank line ends a comment: the head of a file is no comment of its first key.
    """
    parents: list[tuple[int, str]] = []
    above: list[str] = []
    for line in path.read_text(encoding="utf-8").splitlines():
        if line.lstrip().startswith("#"):
            above.append(line.lstrip().lstrip("# "))
            continue
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


def headline(path: Path) -> str:
    """Return the comment at the head of a YAML file."""
    lines = []
    for line in path.read_text(encoding="utf-8").splitlines():
        if line.startswith(("# @package", "# yaml-language-server:")):
            continue
        if not line.startswith("#"):
            break
        lines.append(line.lstrip("# "))
    return " ".join(lines)


def table(path: Path, prefix: str) -> list[str]:
    """Return a Markdown table of the keys of one file, empty where it sets none."""
    rows = [(f"{prefix}{key}", value, comment) for key, value, comment in keys_of(path) if key != "_target_"]
    if not rows:
        return []
    escaped = [[cell.replace("|", "\\|") for cell in row] for row in rows]
    lines = [f"| `{key}` | {f'`{value}`' if value else ''} | {comment} |" for key, value, comment in escaped]
    return ["| key | default | meaning |", "|---|---|---|", *lines, ""]


def reference() -> str:
    """Return the page: the keys of each command, then those of each group's options."""
    lines = [
        "# Keys",
        "",
        "Generated from the comments in `configs/`. `genlab train --cfg job` shows your own values.",
        "",
    ]
    for command in COMMANDS:
        path = CONFIGS / f"{command}.yaml"
        lines += [f"## genlab {command}", "", headline(path), "", *table(path, "")]
    for group, title in GROUPS.items():
        lines += [f"## {title}: `{group}=`", ""]
        for path in sorted((CONFIGS / group).rglob("*.yaml")):
            option = path.relative_to(CONFIGS).with_suffix("")
            inner = ".".join(option.parts[:-1]) if group != "technique" else f"model.techniques.{path.stem}"
            inner = "dataset" if inner == "dataset.preparation" else inner  # its keys stand among those of a data set
            lines += [
                f"### `{'/'.join(option.parts[:-1])}={path.stem}`",
                "",
                headline(path),
                "",
                *table(path, f"{inner}."),
            ]
    return "\n".join(lines)
