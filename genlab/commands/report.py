"""`genlab report`: every published result of the experiments beside the values of runs, as a Markdown table."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from genlab.comparison.numerics import marked
from genlab.comparison.published import (
    as_markdown,
    read_experiments,
    replaced_between_markers,
    results_between_markers,
)
from genlab.comparison.runs import read_runs
from genlab.config.fields import check_fields
from genlab.errors import ConfigurationError
from genlab.launch.contract import JobContext
from genlab.run.environment import ancestors
from genlab.storage import replace_atomically


@dataclass(frozen=True, kw_only=True)
class ReportSettings:
    """The keys of configs/report.yaml."""

    runs: tuple[str, ...]
    write: str | None
    """A Markdown file with the two markers."""


def read(values: Mapping[str, Any], overrides: Sequence[str]) -> ReportSettings:
    """Return the checked settings.

    Raises:
        ConfigurationError: Something in them does not fit, or the file to write into does not exist.
    """
    del overrides
    settings = check_fields(ReportSettings, values, "")
    if settings.write is not None and not Path(settings.write).is_file():
        raise ConfigurationError(f"write must be an existing file, got {settings.write}")
    return settings


def run(settings: ReportSettings, context: JobContext) -> None:
    """Print the table, or write it between the markers of a file and keep the file's results of other experiments.

    Values from before a change of numerics that concerns them are marked.

    Raises:
        ConfigurationError: There are no runs, a header is incomplete, the file has no markers, or no run is one
            of an experiment.
    """
    experiments = read_experiments(context.config_folders)
    runs = read_runs(map(Path, settings.runs))
    if settings.write is None:
        print(marked(as_markdown(experiments, runs, {}), ancestors))
        return
    if not any(run.experiment is not None for run in runs):
        raise ConfigurationError(f"no run of an experiment in {', '.join(settings.runs)}; nothing written")
    path = Path(settings.write)
    text = path.read_text(encoding="utf-8")
    table = marked(as_markdown(experiments, runs, results_between_markers(text)), ancestors)
    text = replaced_between_markers(text, table, where=settings.write)
    replace_atomically(path, text.encode())
    print(f"written to {path}")
