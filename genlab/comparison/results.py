"""The table of results: published values beside those of runs, a row for each measure of each run of an experiment.

The table is Markdown. It is kept in a file, and read back from there, so that results stay whose run is not at hand.
"""

import re
import shlex
from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, fields, replace
from datetime import datetime

from genlab.comparison.published import Experiment, Published
from genlab.comparison.runs import Run
from genlab.comparison.table import rounded, shown
from genlab.errors import ConfigurationError
from genlab.printing import describe_seconds
from genlab.run.measured import Record
from genlab.run.names import CONFIG_NAME
from genlab.storage import read_json

TABLE_MARKS = ("<!-- genlab report: begin -->", "<!-- genlab report: end -->")
SUMMARY_MARKS = ("<!-- genlab report: summary begin -->", "<!-- genlab report: summary end -->")
NOT_RUN = "not run"
MARK = "†"
"""At a value that is older than a change of numerics that concerns it."""
# Overrides that change where or how fast a run goes, and not what it is.
_NEUTRAL = (
    *("experiment=", "num_threads=", "device=", "hydra.", "hydra/"),
    *("dataset.root=", "dataset.download=", "dataset.cache=", "dataset.num_workers="),
    *("name=", "logger=", "logger.", "resume=", "trainer.sample_interval=", "trainer.checkpoint_interval="),
    *("seed=", "trainer.max_minutes="),  # a column of its own; a run that it stopped has not finished
)
_HEADER = (
    *("experiment", "measure", "published", "expected", "ours", "gap"),
    *("of", "run", "cost", "commit, seed", "hardware"),
)
_CELL = re.compile(r"(?<!\\)\|")
_OVERRIDE = re.compile(r"`([^`]+)`")
_VALUE = re.compile(r"\*\*(-?[\d,]+(?:\.\d+)?(?:e[-+]\d+)?)\*\*")
_TIME = re.compile(r"(\d+(?:\.\d+)?) (s|min|h|days)")
_PYTHONS = re.compile(r"(?<==)(True|False|None)$")
_SECONDS = {"s": 1.0, "min": 60.0, "h": 3600.0, "days": 86400.0}


@dataclass(frozen=True)
class Row:
    """One measure of one run, as the cells of a row; what the rows of a run share is in the first one alone."""

    experiment: str
    measure: str
    published: str
    expected: str
    ours: str
    gap: str
    protocol: str
    settings: str
    """Number of steps, and the overrides that change the training."""
    cost: str
    commit: str
    """With the seed."""
    hardware: str

    @property
    def name(self) -> str:
        """Return the name of the measure."""
        return self.measure.strip("`")

    @property
    def is_measured(self) -> bool:
        """Return True if the row has a value."""
        return self.ours.startswith("**")

    @property
    def value(self) -> float:
        """Return the value as the table has it, rounded."""
        return float(self.value_text.replace(",", ""))

    @property
    def value_text(self) -> str:
        """Return the digits of the value; "" without one."""
        found = _VALUE.match(self.ours)
        return found[1] if found else ""

    @property
    def state(self) -> str:
        """Return how the run of a value ended early: "interrupted after 500 of 20,000 steps"; "" if it did not."""
        told = self.ours.removesuffix(MARK).partition(", ")[2]
        return told if " after " in told else ""

    @property
    def seconds(self) -> float | None:
        """Return the time of the run, rounded; None if it is not known."""
        found = _TIME.fullmatch(self.cost)
        return float(found[1]) * _SECONDS[found[2]] if found else None

    @property
    def overrides(self) -> list[str]:
        """Return the overrides among the settings."""
        return _OVERRIDE.findall(self.settings)

    @property
    def seed(self) -> str:
        """Return the seed of the run."""
        return self.commit.partition(", ")[2]


Rows = tuple[Row, ...]
"""The rows of one run, or of an experiment that was not run."""


def rows_of(experiments: Sequence[Experiment], runs: Sequence[Run], kept: Mapping[str, Sequence[Rows]]) -> list[Rows]:
    """Return the rows of each run, and those of the experiments without one.

    Args:
        experiments: In the order of the table.
        runs: Of any of them; of two with the same settings, seed and hardware the one that was started or resumed later
            counts.
        kept: Rows of earlier runs, by the name of the experiment. A measured run replaces those of the same settings,
            seed and hardware; rows without a value stay only where there is no new run.
    """
    found = []
    runs = sorted(runs, key=_time_of_start)
    for experiment in experiments:
        new = [_rows(experiment, run) for run in runs if run.experiment == experiment.name]
        old = [rows for rows in kept.get(experiment.name, ()) if not new or is_measured(rows)]
        own = {_identity(rows): _with_header(rows, experiment) for rows in old}
        for rows in new:
            if is_measured(rows) or _identity(rows) not in own:
                own[_identity(rows)] = rows
        found += list(own.values()) or [_rows(experiment, None)]
    known = {experiment.name for experiment in experiments}
    return found + [rows for name, own_rows in kept.items() if name not in known for rows in own_rows]


def as_markdown(results: Iterable[Rows]) -> str:
    """Return the table."""
    cells = [[getattr(row, field.name) for field in fields(row)] for rows in results for row in rows]
    return markdown_table(_HEADER, cells)


def markdown_table(header: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """Return a Markdown table of cells that are escaped already."""
    return "\n".join(f"| {' | '.join(cells)} |" for cells in (header, ["---"] * len(header), *rows))


def results_in(text: str) -> dict[str, list[Rows]]:
    """Return the results of the table in a Markdown file, by the name of the experiment.

    Raises:
        ConfigurationError: A value or a time is not in the form that the report writes.
    """
    found: dict[str, list[Rows]] = {}
    name = ""
    for line in text.partition(TABLE_MARKS[0])[2].partition(TABLE_MARKS[1])[0].splitlines():
        cells = [cell.strip() for cell in _CELL.split(line)[1:-1]]
        if len(cells) != len(_HEADER) or not cells[1].startswith("`"):
            continue
        row = Row(*cells)
        if row.is_measured and (not row.value_text or (row.cost and row.seconds is None)):
            raise ConfigurationError(f"the table of results has a row that cannot be read: {line}")
        if row.experiment:
            name = row.experiment.strip("`")
            found.setdefault(name, []).append(())
        found[name][-1] += (row,)
    run = {name: [rows for rows in own if any(row.ours != NOT_RUN for row in rows)] for name, own in found.items()}
    return {name: own for name, own in run.items() if own}


def replaced_between_markers(text: str, marks: tuple[str, str], content: str, *, where: str) -> str:
    """Return a Markdown text with new content between two markers, the rest unchanged.

    Raises:
        ConfigurationError: The markers are not there, once each and in their order.
    """
    begin, end = marks
    if any(text.count(mark) != 1 for mark in marks) or text.index(begin) > text.index(end):
        raise ConfigurationError(f"{where} must hold the lines '{begin}' and '{end}', once each, around the table")
    before, after = text.partition(begin)[0], text.partition(end)[2]
    return f"{before}{begin}\n{content}\n{end}{after}"


def _time_of_start(run: Run) -> float:
    """Return the time of a run's last start or resumption; 0 if it is not known."""
    with suppress(OSError, ValueError, LookupError, TypeError, OverflowError):  # it is damaged, or of an older run
        return datetime.fromisoformat(read_json(run.folder, "environment.json")["date"]).timestamp()
    config = run.folder / CONFIG_NAME  # whose time a copy of the folder may not keep
    return config.stat().st_mtime if config.exists() else 0.0


def _identity(rows: Rows) -> tuple[tuple[str, ...], str, str]:
    return tuple(sorted(rows[0].settings.split(", "))), rows[0].seed, rows[0].hardware


def is_measured(rows: Rows) -> bool:
    """Return True if a run has a value of any measure."""
    return any(row.is_measured for row in rows)


def _with_header(rows: Rows, experiment: Experiment) -> Rows:
    """Return rows of an earlier table with what the experiment's header says now."""
    renewed = []
    for row in rows:
        expected = experiment.expected.get(row.name)
        ours = row.ours
        if row.is_measured and expected is not None and "as expected" in ours:
            ours = f"{ours.partition(', ')[0]}{_agreement(row.value, expected)}{MARK * ours.endswith(MARK)}"
        renewed.append(replace(row, ours=ours, **_from_header(experiment, row.name, is_first=bool(row.experiment))))
    return _of_these_data(tuple(renewed))


def _rows(experiment: Experiment, run: Run | None) -> Rows:
    names = [f"`{experiment.name}`", *[""] * (len(experiment.measures) - 1)]
    rows = [_row(experiment, measure, run, name) for measure, name in zip(experiment.measures, names, strict=True)]
    if run is None:
        rows[0] = replace(rows[0], cost=_in_cell(experiment.cost))
    else:
        rows[0] = replace(
            rows[0],
            settings=_in_cell(_settings(run)),
            cost="" if run.seconds is None else describe_seconds(run.seconds),
            commit=_in_cell(f"{run.commit or 'unknown'}, {shown(run.seed)}"),
            hardware=_in_cell(shown(run.hardware)),
        )
    return _of_these_data(tuple(rows))


def _of_these_data(rows: Rows) -> Rows:
    """Return the rows of a run without expected values if they are of other data."""
    return tuple(replace(row, expected="") for row in rows) if of_other_data(rows[0].overrides) else rows


def _from_header(experiment: Experiment, measure: str, *, is_first: bool) -> dict[str, str]:
    """Return the cells of a row that an experiment's header fills."""
    published, expected = experiment.published.get(measure), experiment.expected.get(measure)
    text = "none" if published is None else published.text.replace("+-", "±")
    return {
        "published": _in_cell(experiment.remark if is_first and experiment.remark else text),
        "expected": "" if expected is None else f"{expected.value:g} ± {expected.deviation:g}",
    }


def _row(experiment: Experiment, measure: str, run: Run | None, name: str) -> Row:
    """Return a row without what the rows of the run share but the name, which is that of the first one."""
    published, expected = experiment.published.get(measure), experiment.expected.get(measure)
    row = Row(name, f"`{measure}`", "", "", NOT_RUN, *[""] * 6)
    row = replace(row, **_from_header(experiment, measure, is_first=bool(name)))
    if run is None:
        return row
    record = next((record for record in run.records if record.name == measure), None)
    if record is None or run.is_outdated:
        return replace(row, ours=_state(run))
    return replace(
        row,
        ours=f"**{rounded(record)}**{_error(record)}{_outcome(record, expected, run)}",
        gap="" if published is None or of_other_data(changes(run)) else _gap(record.value, published.value),
        protocol=_protocol(record),
    )


def _state(run: Run) -> str:
    if run.status == "finished":
        return "not measured"
    total = "" if run.num_steps is None else f" of {run.num_steps:,}"
    return _in_cell(f"{shown(run.status)} after {run.step or 0:,}{total} steps")


def _error(record: Record) -> str:
    return "" if record.standard_error is None else f" ± {record.standard_error:.2g}"


def _outcome(record: Record, expected: Published | None, run: Run) -> str:
    """Return the mark of a finished run of the unchanged experiment, as expected or not, or how a run ended early."""
    if run.status != "finished" and run.step != run.num_steps:
        return f", {_state(run)}"
    if expected is None or run.status != "finished" or changes(run):
        return ""
    return _agreement(record.value, expected)


def _agreement(value: float, expected: Published) -> str:
    return ", as expected" if abs(value - expected.value) <= (expected.deviation or 0.0) else ", not as expected"


def of_other_data(overrides: Iterable[str]) -> bool:
    """Return True if a run was made on other data, or with other labels, than those of the published value."""
    return any(override.lstrip("+~").startswith("dataset") for override in overrides)


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
    later = [each for arguments in resumptions for each in arguments if "=" in each and not each.startswith("-")]
    # By key, as the last one counts; a sweep writes True where a user types true.
    overrides = {override.partition("=")[0]: _PYTHONS.sub(_as_typed, override) for override in (*run.overrides, *later)}
    return [override for override in overrides.values() if not override.lstrip("+~").startswith(_NEUTRAL)]


def _as_typed(match: re.Match[str]) -> str:
    return {"True": "true", "False": "false", "None": "null"}[match[0]]


def _in_cell(text: str) -> str:
    """Return the text escaped for a cell of a Markdown table, without HTML markup."""
    return text.replace("|", "\\|").replace("<", "&lt;")
