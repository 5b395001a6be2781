"""The reference of configuration keys, generated from the comments of the YAML files when the site is built."""

from pathlib import Path

from genlab.config.catalogue import head_of, keys_of

CONFIGS = Path(__file__).parent.parent / "configs"
COMMANDS = (
    *("train", "sample", "evaluate", "compare", "export", "check", "board", "datasets", "report"),
    *("runs", "pretrained", "doctor", "schema"),
)
GROUPS = {
    "trainer": "Training",
    "model": "Models and their parts",
    "dataset": "Data sets",
    "optimizer": "Optimizers",
    "schedule": "Learning-rate schedules",
    "technique": "GAN techniques",
    "quality": "Quality of samples in training",
    "logger": "Loggers",
}


def table(path: Path, prefix: str) -> list[str]:
    """Return a Markdown table of the keys of one file; empty for a file without keys."""
    rows = [(f"{prefix}{key}", value, comment) for key, value, comment in keys_of(path) if not key.endswith("_target_")]
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
        lines += [f"## genlab {command}", "", " ".join(head_of(path)), "", *table(path, "")]
    for group, title in GROUPS.items():
        lines += [f"## {title}: `{group}=`", ""]
        for path in sorted((CONFIGS / group).rglob("*.yaml")):
            option = path.relative_to(CONFIGS).with_suffix("")
            inner = ".".join(option.parts[:-1]) if group != "technique" else "model.techniques"
            inner = (
                "dataset" if inner == "dataset.preparation" else inner
            )  # its keys are merged into those of a data set
            lines += [
                f"### `{'/'.join(option.parts[:-1])}={path.stem}`",
                "",
                " ".join(head_of(path)),
                "",
                *table(path, f"{inner}."),
            ]
    return "\n".join(lines)
