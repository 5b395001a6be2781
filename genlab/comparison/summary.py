"""The summary of results: one line for each setting of an experiment, seeds averaged, beside the paper's value."""

import statistics
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from genlab.comparison.published import Experiment, Published
from genlab.comparison.results import MARK, Row, Rows, is_measured, markdown_table, of_other_data

_HEADER = ("result", "paper", "ours", "gap", "other measures", "time", "`genlab train ...`")


@dataclass(frozen=True)
class _Setting:
    """The runs of an experiment with the same settings on the same hardware, one for each seed."""

    experiment: Experiment
    runs: tuple[Rows, ...]

    @property
    def overrides(self) -> list[str]:
        return self.runs[0][0].overrides

    @property
    def measures(self) -> list[list[Row]]:
        """Return the measured rows of each measure, one for each seed, in the order of the experiment's header.

        Values of another protocol are a list of their own, after that of more seeds.
        """
        rows = [row for run in self.runs for row in run if row.is_measured]
        keys = Counter((row.name, row.protocol) for row in rows).most_common()
        names = list(self.experiment.measures)
        keys = sorted((key for key in keys if key[0][0] in names), key=lambda key: names.index(key[0][0]))
        return [[row for row in rows if (row.name, row.protocol) == key] for key, _ in keys]


def as_summary(experiments: Sequence[Experiment], results: Sequence[Rows]) -> str:
    """Return the summary as a Markdown table by family, with the number of experiments that were not run.

    A line has the first measure of its experiment that was measured, averaged over the seeds of the same protocol with
    their standard deviation, and the value that an experiment of the same result publishes, with its source where it
    comes first. The time is the median.

    Args:
        experiments: All of them.
        results: Of :func:`genlab.comparison.results.rows_of`.
    """
    settings = sorted(_settings(experiments, results), key=lambda each: (each.experiment.result, each.experiment.name))
    cells: list[tuple[str, ...]] = []
    family, result, cited = "", "", set[str]()
    for setting in settings:
        its_family, _, task = setting.experiment.result.rpartition(": ")
        if its_family != family:
            cells.append((f"**{its_family}**", *[""] * (len(_HEADER) - 1)))
        is_first = setting.experiment.result != result
        published = _published(setting, experiments)
        paper = "" if published is None else published.text.replace("+-", "±")
        cells.append(
            (
                task if is_first else "",
                paper.partition(" (")[0] if paper in cited else paper,
                *_values(setting, published),
            )
        )
        family, result = its_family, setting.experiment.result
        cited.add(paper)
    num_without = len(experiments) - len({setting.experiment.name for setting in settings})
    return f"{markdown_table(_HEADER, cells)}\n\nNot measured: {num_without} of {len(experiments)} experiments."


def _settings(experiments: Sequence[Experiment], results: Sequence[Rows]) -> Iterator[_Setting]:
    known = {f"`{experiment.name}`": experiment for experiment in experiments}
    groups: dict[tuple[str, str, str], list[Rows]] = {}
    for rows in results:
        if rows[0].experiment in known and is_measured(rows):
            groups.setdefault((rows[0].experiment, rows[0].settings, rows[0].hardware), []).append(rows)
    for (name, _, _), runs in groups.items():
        yield _Setting(known[name], tuple(runs))


def _published(setting: _Setting, experiments: Sequence[Experiment]) -> Published | None:
    """Return the published value of a setting's first measure for the same task."""
    if of_other_data(setting.overrides):
        return None
    measure = setting.measures[0][0].name
    same = [each.published for each in experiments if each.result == setting.experiment.result]
    return next((published[measure] for published in same if measure in published), None)


def _values(setting: _Setting, published: Published | None) -> tuple[str, ...]:
    first, *others = setting.measures
    value, text = _averaged(first)
    num_protocols = Counter(rows[0].name for rows in setting.measures)
    names = [
        f"`{row.name}`" + (f" ({row.protocol})" if num_protocols[row.name] > 1 else "") for row, *_ in setting.measures
    ]
    words = " ".join([f"experiment={setting.experiment.name}", *setting.overrides])
    return (
        f"**{text}** {names[0]}" + (f", {first[0].state}" if first[0].state else ""),
        "" if published is None else f"{value - published.value:+.3g}",
        "; ".join(f"{_averaged(rows)[1]} {name}" for rows, name in zip(others, names[1:], strict=True)),
        f"{_median_time([run[0] for run in setting.runs])}, {setting.runs[0][0].hardware}",
        f"`{words}`",
    )


def _averaged(rows: Sequence[Row]) -> tuple[float, str]:
    """Return the mean over the seeds, and its text with as many decimals as the values have."""
    mean = statistics.fmean(row.value for row in rows)
    decimals = max(len(row.value_text.partition(".")[2]) for row in rows)
    text = f"{mean:.2e}" if any("e" in row.value_text for row in rows) else f"{mean:,.{decimals}f}"
    if len(rows) > 1:
        text += f" ± {statistics.stdev(row.value for row in rows):.2g} ({len(rows)} seeds)"
    return mean, text + (MARK if any(row.ours.endswith(MARK) for row in rows) else "")


def _median_time(rows: Sequence[Row]) -> str:
    known = sorted((row.seconds, row.cost) for row in rows if row.seconds is not None)
    return known[(len(known) - 1) // 2][1] if known else "unknown"
