"""Published results, from the headers of the experiments, beside those of runs.

An experiment's file opens with comments of this form, which :func:`read_experiment` alone knows::

    # @package _global_
    # Title: what is reproduced, with the paper.
    # command:    genlab train experiment=NAME
    # cost:       20 minutes of one CPU core
    # measures:   nll_upper_bound_nats, nll_importance_weighted_nats
    # published:  nll_upper_bound_nats = 80.97 +- 0.1 (arXiv:1502.04623, table 2)
    # ours:       docs/results.md
    # differs:    from the paper in what
    # expected:   nll_upper_bound_nats = 85.12 +- 0.5 (one run; docs/results.md)
    # twin:       NAME_quick
    # picture:    docs/pictures/NAME.png

``measures`` are lines of the ledger; ``published`` is ``none``, with an optional remark, or one entry for each value.
The last three fields are optional: ``expected`` is the value that a repetition of this experiment should reach, with a
tolerance, in the form of ``published``; ``twin`` is the experiment that stands for it on two CPU cores,
``picture`` a picture that a run of it has made. A field continues in the comment lines below it that are indented.
"""

import re
import shlex
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from genlab.comparison.records import Record
from genlab.comparison.runs import Run, describe_seconds
from genlab.comparison.table import rounded, shown
from genlab.config.catalogue import files_of, with_inherited
from genlab.errors import ConfigurationError

BEGIN = "<!-- genlab report: begin -->"
END = "<!-- genlab report: end -->"
FIELDS = ("command", "cost", "measures", "published", "ours", "differs")
OPTIONAL_FIELDS = ("expected", "twin", "picture")

_FIELD = re.compile(rf"({'|'.join((*FIELDS, *OPTIONAL_FIELDS))}): +(.*)")
_ENTRY = re.compile(r"(?P<measure>\w+) = (?P<value>-?[\d.]+)(?: \+- (?P<deviation>[\d.]+))? \(.+\)", re.ASCII)
_MODEL = re.compile(r"^  - override /model: (\w+)$", re.MULTILINE)
# Overrides that change where or how fast a run goes, and not what it is.
_NEUTRAL = (
    *("experiment=", "num_threads=", "device=", "dataset.root=", "dataset.download=", "hydra.", "hydra/"),
    *("name=", "logger=", "logger.", "resume="),
    *("seed=", "trainer.max_minutes="),  # a column of its own; a run that it stopped has not finished
)
_HEADER = (
    "experiment",
    "measure",
    "published",
    "expected",
    "ours",
    "gap",
    "of",
    "run",
    "cost",
    "commit, seed",
    "hardware",
)


@dataclass(frozen=True, kw_only=True)
class Published:
    """A value that a paper reports, or that a run of ours reached before."""

    value: float
    deviation: float | None
    """Of what is expected, the tolerance."""
    text: str
    """The value with its deviation and its source, as written in the header."""


@dataclass(frozen=True, kw_only=True)
class Experiment:
    """An experiment, as described by its header."""

    name: str
    title: str
    """The result that is reproduced, with the paper."""
    model: str
    """The option of ``model=`` that it trains."""
    command: str
    cost: str
    measures: tuple[str, ...]
    """Of the ledger, in the order in which they are reported."""
    published: dict[str, Published]
    """By measure; empty where nothing was published."""
    remark: str
    """Remark of the header if nothing was published, at least "none"."""
    ours: str
    differs: str
    """Differences from the paper, or from the experiment whose quick version it is."""
    expected: dict[str, Published]
    """By measure, each with a tolerance; empty where nothing was measured."""
    twin: str | None
    """The quick version of this experiment for two CPU cores."""
    picture: str | None
    """Path of a picture in the repository that a run of it has made."""


def read_experiments(folders: Sequence[Path]) -> list[Experiment]:
    """Return the experiments of configuration trees by name; the first tree takes precedence.

    Raises:
        ConfigurationError: A header is incomplete.
    """
    return [read_experiment(path) for path in files_of("experiment", folders).values()]


def read_experiment(path: Path) -> Experiment:
    """Return the parsed header of an experiment's file.

    Raises:
        ConfigurationError: It is incomplete, or a value is not in the form given above.
    """
    fields: dict[str, list[str]] = {}
    title: list[str] = []
    last = title
    for line in path.read_text(encoding="utf-8").splitlines():
        if not line.startswith("#"):
            break
        text = line.removeprefix("#").strip()
        if text.startswith(("@package", "yaml-language-server:")):
            continue
        match = _FIELD.fullmatch(text)
        if match:
            last = fields.setdefault(match[1], [])
            last.append(match[2].strip())
        else:
            last.append(text)
    missing = [name for name in FIELDS if name not in fields]
    if missing:
        raise ConfigurationError(f"{path}: the header lacks '# {missing[0]}:'; it needs {', '.join(FIELDS)}")
    measures = tuple(name.strip() for name in " ".join(fields["measures"]).split(","))
    published = _entries("published", fields["published"], path)
    expected = _entries("expected", fields.get("expected", ["none"]), path)
    for field, entries in (("published", published), ("expected", expected)):
        for name, entry in entries.items():
            if name not in measures:
                raise ConfigurationError(f"{path}: {name} is {field} and not among '# measures:'")
            if field == "expected" and entry.deviation is None:
                raise ConfigurationError(
                    f"{path}: {name} is expected without a tolerance: 'value +- tolerance (source)'"
                )
    return Experiment(
        name=path.stem,
        title=" ".join(title),
        model=_model(path),
        measures=measures,
        published=published,
        remark="" if published else " ".join(fields["published"]),
        expected=expected,
        twin=fields.get("twin", [None])[0],
        picture=fields.get("picture", [None])[0],
        **{name: " ".join(fields[name]) for name in ("command", "cost", "ours", "differs")},
    )


def _model(path: Path) -> str:
    named = [name for file in with_inherited(path) for name in _MODEL.findall(file.read_text(encoding="utf-8"))]
    return named[-1] if named else "draw"


def _entries(field: str, lines: Sequence[str], path: Path) -> dict[str, Published]:
    if lines[0] == "none" or lines[0].startswith("none;"):
        return {}
    entries: list[str] = []
    for line in lines:
        if " = " in line.partition("(")[0]:
            entries.append(line)
        else:
            entries[-1:] = [f"{' '.join(entries[-1:])} {line}".strip()]
    found = {}
    for entry in entries:
        match = _ENTRY.fullmatch(entry)
        if match is None:
            raise ConfigurationError(
                f"{path}: {field} must be 'none', 'none; remark' or 'measure = value (source)', got '{entry}'"
            )
        found[match["measure"]] = Published(
            value=float(match["value"]),
            deviation=None if match["deviation"] is None else float(match["deviation"]),
            text=entry.partition(" = ")[2],
        )
    return found


def as_markdown(experiments: Sequence[Experiment], runs: Sequence[Run], kept: Mapping[str, Sequence[str]]) -> str:
    """Return a table with a row for each measure of each run of an experiment, and "not run" for the rest.

    Args:
        experiments: In the order of the table.
        runs: Of any of them.
        kept: Rows that stand for an experiment without a run among these, by its name.
    """
    lines = [_line(_HEADER), _line(["---" for _ in _HEADER])]
    for experiment in experiments:
        own: list[Run | None] = [run for run in runs if run.experiment == experiment.name]
        if not own and experiment.name in kept:
            lines += kept[experiment.name]
            continue
        for run in own or [None]:
            for position, measure in enumerate(experiment.measures):
                lines.append(_line(_row(experiment, measure, run, is_first=position == 0)))
    return "\n".join(lines)


def results_between_markers(text: str) -> dict[str, list[str]]:
    """Return the rows of a Markdown file's table that hold results, by the experiment of each."""
    name, found = "", dict[str, list[str]]()
    for line in text.partition(BEGIN)[2].partition(END)[0].splitlines():
        if line.startswith("| "):
            name = line.split(" | ")[0].strip("| `") or name
            found.setdefault(name, []).append(line)
    return {name: lines for name, lines in found.items() if not all("| not run |" in line for line in lines)}


def _line(cells: Sequence[str]) -> str:
    return f"| {' | '.join(cells)} |"


def replaced_between_markers(text: str, table: str, *, where: str) -> str:
    """Return a Markdown text with a new table between its markers, the rest unchanged.

    Raises:
        ConfigurationError: The markers are not there, once each and in their order.
    """
    before, begin, rest = text.partition(BEGIN)
    _, end, after = rest.partition(END)
    if not begin or not end or BEGIN in rest or END in before or END in after:
        raise ConfigurationError(f"{where} must hold the lines '{BEGIN}' and '{END}', once each, around the table")
    return f"{before}{BEGIN}\n{table}\n{END}{after}"


def _row(experiment: Experiment, measure: str, run: Run | None, *, is_first: bool) -> tuple[str, ...]:
    published, expected = experiment.published.get(measure), experiment.expected.get(measure)
    remark = experiment.remark if is_first and experiment.remark else "none"
    text = (
        f"`{experiment.name}`" if is_first else "",
        f"`{measure}`",
        _in_cell(remark if published is None else published.text.replace("+-", "±")),
        "" if expected is None else f"{expected.value:g} ± {expected.deviation:g}",
    )
    if run is None:
        return (*text, "not run", "", "", "", _in_cell(experiment.cost) if is_first else "", "", "")
    record = next((record for record in run.records if record.name == measure), None)
    return (
        *text,
        _state(run) if record is None else f"**{rounded(record)}**{_error(record)}{_outcome(record, expected, run)}",
        "" if record is None or published is None or _is_of_other_data(run) else _gap(record.value, published.value),
        "" if record is None else _protocol(record),
        _in_cell(_settings(run)) if is_first else "",
        describe_seconds(run.seconds) if is_first and run.seconds is not None else "",
        _in_cell(f"{run.commit or 'unknown'}, {shown(run.seed)}") if is_first else "",
        _in_cell(shown(run.hardware)) if is_first else "",
    )


def _state(run: Run) -> str:
    if run.status == "finished":
        return "not measured: `genlab evaluate`"
    total = "" if run.num_steps is None else f" of {run.num_steps:,}"
    return _in_cell(f"{shown(run.status)} after {run.step or 0:,}{total} steps")


def _error(record: Record) -> str:
    return "" if record.standard_error is None else f" ± {record.standard_error:.2g}"


def _outcome(record: Record, expected: Published | None, run: Run) -> str:
    """Return the mark of a finished run of the unchanged experiment: as expected, or not."""
    if expected is None or expected.deviation is None or run.status != "finished" or changes(run):
        return ""
    return ", as expected" if abs(record.value - expected.value) <= expected.deviation else ", not as expected"


def _is_of_other_data(run: Run) -> bool:
    """Return True if the run was made on other data, or with other labels, than those of the published value."""
    return any(override.lstrip("+~").startswith("dataset") for override in changes(run))


def _gap(ours: float, published: float) -> str:
    gap = ours - published
    return f"{gap:+.3g}" + ("" if published == 0 else f" ({gap / published:+.1%})")


def _protocol(record: Record) -> str:
    """Return a short description of the protocol of a measure."""
    parts = [
        record.kind if record.kind not in ("exact", "estimate") else "",
        "" if record.num_importance_samples is None else f"K={record.num_importance_samples}",
        "" if record.num_generated is None else f"{record.num_generated:,} samples",
        f"{record.num_examples:,} {record.split} images" if record.num_examples else record.split,
        "averaged weights" if record.weights == "averaged" else "",
        record.features or "",
    ]
    return _in_cell(", ".join(part for part in parts if part))


def _settings(run: Run) -> str:
    """Return the overrides of the experiment, and the number of steps of the run."""
    steps = "" if run.step is None else f"{run.step:,} steps"
    return ", ".join(part for part in (steps, *(f"`{shown(override)}`" for override in changes(run))) if part)


def changes(run: Run) -> list[str]:
    """Return the overrides that change the training of an experiment's run, those of its resumptions too."""
    resumptions = [shlex.split(command) for command in run.commands if "resume=" in command]
    later = [word for words in resumptions for word in words if "=" in word and not word.startswith("-")]
    overrides = dict.fromkeys((*run.overrides, *later))
    return [override for override in overrides if not override.lstrip("+~").startswith(_NEUTRAL)]


def _in_cell(text: str) -> str:
    """Return the text escaped for a cell of a Markdown table, without HTML markup."""
    return text.replace("|", "\\|").replace("<", "&lt;")
