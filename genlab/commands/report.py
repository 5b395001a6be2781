"""`genlab report`: every published result of the experiments beside the values of runs, as a Markdown table."""

import functools
import sys
from dataclasses import dataclass
from pathlib import Path

from genlab.comparison.numerics import LEGEND, marked
from genlab.comparison.published import read_experiments
from genlab.comparison.results import (
    MARK,
    SUMMARY_MARKS,
    TABLE_MARKS,
    as_markdown,
    replaced_between_markers,
    results_in,
    rows_of,
)
from genlab.comparison.runs import read_runs
from genlab.comparison.summary import as_summary
from genlab.config.fields import reader_of
from genlab.errors import ConfigurationError
from genlab.launch.contract import JobContext
from genlab.run.environment import ancestors
from genlab.storage import replace_atomically

_MAX_NAMED = 3


@dataclass(frozen=True, kw_only=True)
class ReportSettings:
    """The keys of configs/report.yaml.

    Raises:
        ValueError: There are no runs, or the file to write into does not exist.
    """

    runs: tuple[str, ...]
    write: str | None
    """A Markdown file with the markers of the table, and of the summary if it has one."""

    def __post_init__(self) -> None:
        if not self.runs:
            raise ValueError("runs must name at least one run or folder of runs")
        if self.write is not None and not Path(self.write).is_file():
            raise ValueError(f"write must be an existing file, got {self.write}")


read = reader_of(ReportSettings)


def run(settings: ReportSettings, context: JobContext) -> None:
    """Print the summary and the table, or write them between the markers of a file and keep its other results.

    Values from before a change of numerics that concerns them are marked. Experiments without a complete header and
    runs of none are left out, and named on stderr.

    Raises:
        ConfigurationError: There are no runs, the file has no markers or a row that cannot be read, or no run is one of
            a known experiment.
    """
    problems: list[str] = []
    experiments = read_experiments(context.config_folders, problems)
    for problem in problems:
        print(f"genlab: left out: {problem}", file=sys.stderr)
    runs = read_runs(map(Path, settings.runs))
    names = {experiment.name for experiment in experiments}
    if others := [run.name for run in runs if run.experiment not in names]:
        rest = f" and {len(others) - _MAX_NAMED} more" if len(others) > _MAX_NAMED else ""
        named = ", ".join(others[:_MAX_NAMED])
        print(f"genlab: runs of no experiment with a header, left out: {named}{rest}", file=sys.stderr)
    if settings.write is not None and not any(run.experiment in names for run in runs):
        raise ConfigurationError(f"no run of an experiment in {', '.join(settings.runs)}; nothing written")
    text = "" if settings.write is None else _text_of(settings.write)
    results = marked(rows_of(experiments, runs, results_in(text)), functools.cache(ancestors))
    summary, table = as_summary(experiments, results), as_markdown(results)
    if MARK in table:
        table += f"\n\n{LEGEND}"
    if settings.write is None:
        print(f"{summary}\n\n{table}")
        return
    text = replaced_between_markers(text, TABLE_MARKS, table, where=settings.write)
    if SUMMARY_MARKS[0] in text:
        text = replaced_between_markers(text, SUMMARY_MARKS, summary, where=settings.write)
    replace_atomically(Path(settings.write).resolve(), text.encode())
    print(f"written to {settings.write}")


def _text_of(path: str) -> str:
    try:
        return Path(path).read_text(encoding="utf-8")
    except UnicodeDecodeError as error:
        raise ConfigurationError(f"write must be a text file in UTF-8, got {path}: {error.reason}") from error
