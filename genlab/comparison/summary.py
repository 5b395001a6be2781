"""The summary of results: one line for each setting of an experiment, seeds averaged, beside the paper's value."""

import re
import statistics
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from genlab.comparison.numerics import MARK
from genlab.comparison.published import Experiment
from genlab.comparison.results import Row, Rows, markdown_table, of_other_data

_HEADER = ("result", "paper", "ours", "gap", "other measures", "time", "`genlab train ...`")
_OVERRIDE = re.compile(r"`([^`]*=[^`]*)`")
_UNITS = {"s": 1, "min": 60, "h": 3600, "days": 86400}


@dataclass(frozen=True)
class _Setting:
    """The runs of an experiment with the same settings on the same hardware, one for each seed."""

    experiment: Experiment
    runs: tuple[Rows, ...]

    @property
    def overrides(self) -> list[str]:
        return _OVERRIDE.findall(self.runs[0][0].settings)

    @property
    def measures(self) -> dict[str, list[Row]]:
        """Return the measured rows of each measure, one for each seed."""
        rows = [row for run in self.runs for row in run if row.is_measured]
        return {name: [row for row in rows if row.name == name] for name in dict.fromkeys(row.name for row in rows)}


def as_summary(experiments: Sequence[Experiment], results: Sequence[Rows]) -> str:
    """Return the summary as a Markdown table by family, with the number of experiments that were not run.

    A line has the first measure of its experiment that was measured, averaged over the seeds with their standard
    deviation, and the value that an experiment of the same result publishes; its source stands in the first line of
    the result. The time is the median.

    Args:
        experiments: All of them.
        results: Of :func:`genlab.comparison.results.rows_of`.
    """
    settings = sorted(_settings(experiments, results), key=lambda each: each.experiment.result)
    cells: list[tuple[str, ...]] = []
    family, result = "", ""
    for setting in settings:
        its_family, _, task = setting.experiment.result.rpartition(": ")
        if its_family != family:
            cells.append((f"**{its_family}**", *[""] * (len(_HEADER) - 1)))
        is_first = setting.experiment.result != result
        cells.append(_line(setting, experiments, task if is_first else ""))
        family, result = its_family, setting.experiment.result
    num_without = len(experiments) - len({setting.experiment.name for setting in settings})
    return f"{markdown_table(_HEADER, cells)}\n\nNot measured: {num_without} of {len(experiments)} experiments."


def _settings(experiments: Sequence[Experiment], results: Sequence[Rows]) -> Iterator[_Setting]:
    for experiment in experiments:
        own = [rows for rows in results if rows[0].experiment == f"`{experiment.name}`"]
        own = [rows for rows in own if any(row.is_measured for row in rows)]
        for key in dict.fromkeys((rows[0].settings, rows[0].hardware) for rows in own):
            yield _Setting(experiment, tuple(rows for rows in own if (rows[0].settings, rows[0].hardware) == key))


def _line(setting: _Setting, experiments: Sequence[Experiment], task: str) -> tuple[str, ...]:
    (measure, rows), *others = setting.measures.items()
    published = None
    if not of_other_data(setting.overrides):
        same = [each for each in experiments if each.result == setting.experiment.result]
        published = next((each.published[measure] for each in same if measure in each.published), None)
    value, text = _averaged(rows)
    paper = "" if published is None else published.text.replace("+-", "±")
    words = " ".join([f"experiment={setting.experiment.name}", *setting.overrides])
    return (
        task,
        paper if task else paper.partition(" (")[0],
        f"**{text}** `{measure}`",
        "" if published is None else f"{value - published.value:+.3g}",
        "; ".join(f"{_averaged(each)[1]} `{other}`" for other, each in others),
        f"{_median_time([run[0].cost for run in setting.runs])}, {setting.runs[0][0].hardware}",
        f"`{words}`",
    )


def _averaged(rows: Sequence[Row]) -> tuple[float, str]:
    """Return the mean over the seeds, and its text with as many decimals as the values have."""
    texts = [row.ours.split("**")[1].replace(",", "") for row in rows]
    values = [float(text) for text in texts]
    decimals = len(texts[0].partition(".")[2]) if "e" not in texts[0] else 6
    mean = statistics.fmean(values)
    text = f"{mean:,.{decimals}f}"
    if len(values) > 1:
        text += f" ± {statistics.stdev(values):.2g} ({len(values)} seeds)"
    return mean, text + (MARK if any(row.ours.endswith(MARK) for row in rows) else "")


def _median_time(costs: Sequence[str]) -> str:
    def seconds(cost: str) -> float:
        number, _, unit = cost.partition(" ")
        return float(number) * _UNITS[unit]

    known = sorted(filter(None, costs), key=seconds)
    return known[(len(known) - 1) // 2] if known else "unknown"
