"""The table of a sweep: a row for each job, the best of them, and means over seeds; on the terminal and as CSV."""

import csv
import io
import shlex
import statistics
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from genlab.config.suggestions import suggestion
from genlab.config.targets import to_trust
from genlab.launch.sweep_folder import SEEDS_NAME, TABLE_NAME, JobRecord, SweepFolder
from genlab.launch.sweep_settings import SweepSettings
from genlab.paths import program
from genlab.run.measured import UNKNOWN, comparable_groups, is_number, record_of, refusals
from genlab.storage import replace_atomically
from genlab.tables import aligned

_SEED = "seed"
# Of summary.json, in the order in which a measure is looked for.
_PARTS = ("best", "test", "final")
_MAX_CELL = 60


@dataclass(frozen=True, kw_only=True)
class Row:
    """One job in the table."""

    record: JobRecord
    choices: Mapping[str, str]
    """The overrides that vary within the sweep, by key."""
    measure: str | None
    """Tag of the value; None without a requested measure and a default one of the model."""
    value: float | None
    """Value of the measure; None if the run has not measured it."""
    seconds: float | None
    """Seconds of training, over all processes of the run."""
    minimize: bool | None
    """True if lower is better; None if no direction is declared."""
    is_bound: bool
    """True if the true value may be better."""
    tags: frozenset[str]
    """Tags of all measures of the run."""
    ranking_tags: frozenset[str]
    """Those of them whose declared direction is not "neither": what a sweep may be ranked by."""
    conditions: Mapping[str, str]
    """Facts that two runs must share for their values to be ranked, as in ``genlab compare``."""
    packages: tuple[str, ...]
    """Packages of the user's that the run names, which a command about it has to find."""

    @property
    def competes(self) -> bool:
        """Return True if the run ended without an error, by its last step or its time limit, and has a value."""
        return self.record.exit_code == 0 and self.value is not None


@dataclass(frozen=True, kw_only=True)
class SeedRow:
    """Jobs that differ in their seed alone."""

    choices: Mapping[str, str]
    measure: str | None
    mean: float | None
    """Over the runs that compete; None if they measured different things."""
    standard_deviation: float | None
    """Sample standard deviation (n - 1); None for fewer than two runs."""
    competing: Sequence[JobRecord]
    """The runs with a value that ended without an error."""
    records: Sequence[JobRecord]
    """All runs."""
    packages: tuple[str, ...]
    """As of `Row`."""
    minimize: bool | None
    conditions: frozenset[tuple[tuple[str, str], ...]]
    """Those of the runs with a value."""

    @property
    def is_whole(self) -> bool:
        """Return True if every run competes."""
        return len(self.competing) == len(self.records)


def rows_of(sweep: SweepFolder, settings: SweepSettings) -> list[Row]:
    """Return the current rows of a sweep's table."""
    records = sweep.records()
    overrides = [_by_key(record.overrides) for record in records]
    rows = []
    for record, choices in zip(records, varying(overrides), strict=True):
        summary, configuration = sweep.run_summary(record), sweep.run_configuration(record)
        tags = frozenset(tag for part in _PARTS for tag in summary.get(part) or {} if "/" in tag)
        measure, value = measured(summary, settings.measure)
        minimize, conditions, is_bound = settings.minimize, None, False
        if measure is not None:
            of_run = record_of(measure, value or 0.0, summary, configuration)
            conditions, is_bound = (None if value is None else of_run.conditions), of_run.is_bound
            if minimize is None:
                otherwise = True if measure == summary.get("selected_by") else None
                minimize = {"lower": True, "higher": False}.get(of_run.direction, otherwise)
        rows.append(
            Row(
                record=record,
                choices=choices,
                measure=measure,
                value=value,
                minimize=minimize,
                seconds=summary.get("seconds") or None,
                is_bound=is_bound,
                tags=tags,
                ranking_tags=frozenset(tag for tag in tags if record_of(tag, 0.0, summary, {}).direction != "neither"),
                conditions={"dataset": UNKNOWN} if conditions is None else conditions,
                packages=tuple(to_trust(configuration)),
            )
        )
    return rows


def measured(summary: Mapping[str, Any], measure: str | None) -> tuple[str | None, float | None]:
    """Return a run's value of a measure: at its best checkpoint if there is one, on test data for ``test/...``.

    Args:
        summary: The run's summary.json.
        measure: Tag; None takes the one the run selects by.
    """
    tag = measure or summary.get("selected_by")
    for part in _PARTS:
        value = (summary.get(part) or {}).get(tag)
        if is_number(value):
            return tag, float(value)
    return tag, None


def lacks_measure(row: Row, settings: SweepSettings) -> bool:
    """Return True for a job that has succeeded and does not measure ``sweep.measure``."""
    return row.record.exit_code == 0 and settings.measure is not None and settings.measure not in row.tags


def told_lacking(row: Row, settings: SweepSettings) -> str:
    """Return the warning about a job that does not measure ``sweep.measure``."""
    tail = suggestion(str(settings.measure), row.ranking_tags, kind="tags")
    return f"job {row.record.number} does not measure {settings.measure}; {tail}"


def varying(overrides: Sequence[Mapping[str, str]]) -> list[dict[str, str]]:
    """Return each job's overrides that not all jobs share, under the same keys for every job."""
    keys = dict.fromkeys(key for job in overrides for key in job)
    varied = [key for key in keys if len({job.get(key) for job in overrides}) > 1]
    return [{key: job.get(key, "") for key in varied} for job in overrides]


def best_row(rows: Sequence[Row]) -> Row | None:
    """Return the best run; None if no run competes, their measures or data differ, or no direction is declared."""
    competing = [row for row in rows if row.competes]
    return min(competing, key=_rank) if competing and why_not_ranked(rows) is None else None


def why_not_ranked(rows: Sequence[Row]) -> str | None:
    """Return why the values of the runs that compete cannot be ranked; None if they can."""
    competing = [row for row in rows if row.competes]
    measures = sorted({str(row.measure) for row in competing})
    if len(measures) > 1:
        return f"the runs select by different measures ({', '.join(measures)}); sweep.measure=... names a common one"
    if any(row.minimize is None for row in competing):
        return f"{measures[0]} has no declared direction; sweep.minimize=true or false gives one"
    groups = comparable_groups({row.record.number: row.conditions for row in competing})
    refused = refusals(groups, lambda numbers: f"job {', '.join(map(str, numbers))}")
    return f"the jobs did not measure the same: {refused[0]}" if refused else None


def seed_rows(rows: Sequence[Row]) -> list[SeedRow]:
    """Return mean, standard deviation and number over the seeds of each setting; empty if the seed does not vary.

    The best mean of those with a value for every seed comes first, then that of the others: a learning rate at which
    some seeds diverge shall not win by the rest. Settings that do not measure the same on the same data stay in the
    order of the jobs.
    """
    groups: dict[tuple[object, ...], list[Row]] = {}
    for row in rows:
        if _SEED not in row.choices:
            return []
        others = tuple((key, value) for key, value in row.choices.items() if key != _SEED)
        groups.setdefault(others, []).append(row)
    made = []
    for group in groups.values():
        competing = [row for row in group if row.competes]
        told = [*competing, *group]  # a job that failed early has no measure
        are_alike = len({row.measure for row in competing}) < 2
        values = [row.value for row in competing if row.value is not None] if are_alike else []
        made.append(
            SeedRow(
                choices={key: value for key, value in group[0].choices.items() if key != _SEED},
                measure=next((row.measure for row in told if row.measure is not None), None) if are_alike else None,
                mean=statistics.fmean(values) if values else None,
                standard_deviation=statistics.stdev(values) if len(values) > 1 else None,
                competing=[row.record for row in competing],
                records=[row.record for row in group],
                packages=tuple(name for row in group for name in row.packages),
                minimize=next((row.minimize for row in told if row.minimize is not None), None),
                conditions=frozenset(tuple(row.conditions.items()) for row in competing),
            )
        )
    return sorted(made, key=_rank_of_mean) if _are_ranked(made) else made


def _are_ranked(rows: Sequence[SeedRow]) -> bool:
    """Return True if the means of the settings that have one are of the same measure on the same data."""
    valued = [row for row in rows if row.competing]
    of_same = len({(row.measure, row.minimize, row.conditions) for row in valued}) == 1
    return of_same and valued[0].minimize is not None and valued[0].mean is not None


def write_tables(sweep: SweepFolder, settings: SweepSettings) -> list[Row]:
    """Write summary.csv, and seeds.csv if seeds vary; return the rows."""
    rows = rows_of(sweep, settings)
    keys = list(rows[0].choices) if rows else []
    header = ["number", "status", "reason", "exit_code", *keys, "measure", "value", "seconds", "folder"]
    lines: list[list[object]] = [
        [
            row.record.number,
            row.record.status,
            row.record.reason,
            row.record.exit_code,
            *row.choices.values(),
            row.measure,
            row.value,
            row.seconds,
            row.record.folder,
        ]
        for row in rows
    ]
    _write_csv(sweep, TABLE_NAME, header, lines)
    if groups := seed_rows(rows):
        header = [*groups[0].choices, "measure", "mean", "standard_deviation", "n", "jobs"]
        lines = [
            [
                *group.choices.values(),
                group.measure,
                group.mean,
                group.standard_deviation,
                len(group.competing),
                len(group.records),
            ]
            for group in groups
        ]
        _write_csv(sweep, SEEDS_NAME, header, lines)
    return rows


def report(rows: Sequence[Row], settings: SweepSettings, *, config_dir: str | None = None) -> str:
    """Return the report for the terminal.

    Args:
        rows: Of the table.
        settings: Of the sweep.
        config_dir: Of its command line.
    """
    if not rows:
        return "no job has started"
    groups = seed_rows(rows)
    parts = [_table(rows), *([_seeds_table(groups)] if groups else [])]
    if len(groups) > 1 and len(groups[0].competing) > 1 and _are_ranked(groups):
        parts.append(_told_best_setting(groups, config_dir))
    else:
        parts.append(_told_best(rows, settings, config_dir))
    return "\n\n".join(parts)


def _told_best(rows: Sequence[Row], settings: SweepSettings, config_dir: str | None) -> str:
    best = best_row(rows)
    competing = [row for row in rows if row.competes]
    if best is not None:
        extreme = "lowest" if best.minimize else "highest"
        value = f"{best.measure} {best.value:.6g}, the {extreme} of {len(competing)}"
        if bounds := [str(row.record.number) for row in competing if row.is_bound and not best.is_bound]:
            value += f"; job {', '.join(bounds)}: a bound, the true value may be better"
        command = _command(best.record.arguments, config_dir, best.packages)
        return f"best: job {best.record.number}, {value}\n  {command}"
    if not competing:
        finished = [row for row in rows if row.record.exit_code == 0]
        if not finished:
            return "best: unknown, no job has finished"
        tags = sorted(set().union(*(row.ranking_tags for row in finished)))
        if settings.measure is None:
            named = f"; sweep.measure=... names one of {', '.join(tags)}" if tags else ""
            return f"best: unknown, no model selects by a measure{named}"
        return (
            f"best: unknown, no job has measured {settings.measure}; {suggestion(settings.measure, tags, kind='tags')}"
        )
    return f"best: not chosen, {why_not_ranked(rows)}"


def _told_best_setting(groups: Sequence[SeedRow], config_dir: str | None) -> str:
    """Return the setting with the best mean over its seeds, and the command that trains it with all of them."""
    best = groups[0]
    seeds = ",".join(_by_key(record.overrides)[_SEED] for record in best.records)
    shared = [argument for argument in best.records[0].arguments if not argument.startswith(f"{_SEED}=")]
    jobs = ", ".join(str(record.number) for record in best.competing)
    part = "" if best.is_whole else f" of {len(best.competing)} of {len(best.records)} seeds"
    extreme = "lowest" if best.minimize else "highest"
    rivals = [group for group in groups if group.competing and group.is_whole == best.is_whole]
    num = "the only setting" if len(rivals) == 1 else f"the {extreme} of {len(rivals)} settings"
    whole = " with a value for every seed" if best.is_whole and not all(group.is_whole for group in groups) else ""
    command = _command(["-m", *shared, f"{_SEED}={seeds}"], config_dir, best.packages)
    return f"best: jobs {jobs}, mean {best.measure} {best.mean:.6g}{part}, {num}{whole}\n  {command}"


def _command(arguments: Sequence[str], config_dir: str | None, packages: Collection[str]) -> str:
    own = [argument for argument in arguments if not argument.startswith("name=")]  # a name is the sweep's
    where = [] if config_dir is None else ["--config-dir", config_dir]
    return f"{program(packages)} {shlex.join(['train', *own, *where])}"


def _table(rows: Sequence[Row]) -> str:
    keys = list(rows[0].choices)
    measures = {row.measure for row in rows if row.measure is not None}
    common = next(iter(measures)) if len(measures) == 1 else None
    header = ["job", *keys, "status", *([common] if common else ["measure", "value"]), "seconds", "reason"]
    lines = []
    for row in rows:
        value = "" if row.value is None else f"{row.value:.6g}"
        lines.append(
            [
                str(row.record.number),
                *row.choices.values(),
                row.record.status,
                *([value] if common else [row.measure or "", value]),
                "" if row.seconds is None else f"{row.seconds:.0f}",
                row.record.reason or "",
            ]
        )
    return _in_columns(header, lines)


def _seeds_table(groups: Sequence[SeedRow]) -> str:
    header = [*(groups[0].choices or ["setting"]), "measure", "mean", "standard deviation", "n"]
    lines = []
    for group in groups:
        lines.append(
            [
                *(group.choices.values() or ["the only one"]),
                group.measure or "",
                "" if group.mean is None else f"{group.mean:.6g}",
                "" if group.standard_deviation is None else f"{group.standard_deviation:.3g}",
                f"{len(group.competing)}" + ("" if group.is_whole else f" of {len(group.records)}"),
            ]
        )
    return _in_columns(header, lines)


def _in_columns(header: Sequence[str], lines: Sequence[Sequence[str]]) -> str:
    return aligned([header], [[*map(_cut, line[:-1]), line[-1]] for line in lines])


def _cut(cell: str) -> str:
    return cell if len(cell) <= _MAX_CELL else f"{cell[: _MAX_CELL - 3]}..."


def _by_key(overrides: Sequence[str]) -> dict[str, str]:
    return {key.lstrip("+~"): value for key, _, value in (override.partition("=") for override in overrides)}


def _rank(row: Row) -> float:
    assert row.value is not None
    return row.value if row.minimize else -row.value


def _rank_of_mean(row: SeedRow) -> tuple[bool, bool, float]:
    mean = 0.0 if row.mean is None else row.mean
    return row.mean is None, not row.is_whole, mean if row.minimize else -mean


def _write_csv(sweep: SweepFolder, name: str, header: Sequence[str], lines: Iterable[Sequence[object]]) -> None:
    text = io.StringIO()
    csv.writer(text, lineterminator="\n").writerows([header, *lines])
    replace_atomically(sweep.path / name, text.getvalue().encode())
