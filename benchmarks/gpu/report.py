"""One JSON file and one Markdown page of what the cases gave."""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

_TABLES = {
    "agreement": ("what", "value", "rule", "holds", "note"),
    "training": ("model", "variant", "ms", "ratio", "launches", "kernels", "peak_mb"),
    "sampling": ("model", "batch", "sampler", "seconds", "images_per_second", "ratio"),
    "machine": ("what", "value"),
}
_INTRODUCTIONS = {
    "agreement": "First of all: are the numbers right?",
    "training": "A training step as `genlab train` makes it, medians of CUDA events; ratios are to the eager step.",
    "sampling": "A batch of images; full passes are the time of one pass times the number of symbols.",
    "machine": "What the device can do, and what it took.",
}


def write_report(folder: Path, name: str, record: Mapping[str, Any]) -> Path:
    """Write both files, also while cases are still to come; the page is returned."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / f"{name}.json").write_text(json.dumps(record, indent=1) + "\n", encoding="utf-8")
    page = folder / f"{name}.md"
    page.write_text(markdown(record), encoding="utf-8")
    return page


def markdown(record: Mapping[str, Any]) -> str:
    """Return the page: a heading, the cases that failed, a table of each kind."""
    rows: Sequence[Mapping[str, Any]] = record["rows"]
    facts = ", ".join(f"{key} {value}" for key, value in record["machine"].items())
    lines = [f"# {record['title']}", "", facts, ""]
    failed = {name: case for name, case in record["cases"].items() if case["error"]}
    lines += [f"- **{name} failed after {case['seconds']} s**: {case['error']}" for name, case in failed.items()]
    missed = [row["what"] for row in rows if row.get("holds") is False]
    lines += [f"- **does not hold**: {what}" for what in missed]
    if not failed and not missed:
        lines.append(f"All {len(record['cases'])} cases ended, and everything agrees.")
    for table, columns in _TABLES.items():
        chosen = [row for row in rows if row["table"] == table]
        if chosen:
            lines += ["", f"## {table.capitalize()}", "", _INTRODUCTIONS[table], "", _line(columns)]
            lines += [
                _line(["---"] * len(columns)),
                *(_line([_cell(row.get(name)) for name in columns]) for row in chosen),
            ]
    seconds = ", ".join(f"{name} {case['seconds']} s" for name, case in record["cases"].items())
    return "\n".join([*lines, "", f"Cases: {seconds}.", ""])


def _line(cells: Sequence[str]) -> str:
    return f"| {' | '.join(cells)} |"


def _cell(value: object) -> str:
    if value is None:
        return ""
    text = ("**no**", "yes")[value] if isinstance(value, bool) else str(value)
    return text.replace("|", "/").replace("\n", " ")
