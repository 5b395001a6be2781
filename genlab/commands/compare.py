"""`genlab compare`: runs side by side, comparable values ranked, as a table, CSV, JSON or a page."""

import shutil
from dataclasses import dataclass
from pathlib import Path

from genlab.comparison.ranking import sorted_runs
from genlab.comparison.runs import read_runs
from genlab.comparison.table import WIDTH, as_csv, as_json, as_text
from genlab.config.fields import reader_of
from genlab.launch.contract import JobContext
from genlab.storage import replace_atomically

_STANDARD_OUTPUT = "-"


@dataclass(frozen=True, kw_only=True)
class CompareSettings:
    """The keys of configs/compare.yaml.

    Raises:
        ValueError: There is nothing to compare, or a file cannot be that, or has no folder to lie in.
    """

    runs: tuple[str, ...]
    sort: str | None
    csv: str | None
    json: str | None
    html: str | None

    def __post_init__(self) -> None:
        if not self.runs:
            raise ValueError("runs must name at least one run or folder of runs")
        if self.html == _STANDARD_OUTPUT:
            raise ValueError("html must be a file, got -")
        places = [place for place in (self.csv, self.json, self.html) if place is not None]
        if len(set(places)) < len(places):
            raise ValueError(f"csv, json and html must be different files, got {', '.join(places)}")
        for name in ("csv", "json", "html"):
            place = getattr(self, name)
            if place is not None and (not Path(place).parent.is_dir() or Path(place).is_dir()):
                raise ValueError(f"{name} must be a file in an existing folder, got {place}")


read = reader_of(CompareSettings)


def run(settings: CompareSettings, context: JobContext) -> None:
    """Read the runs, rank their values, and print or write the comparison.

    Raises:
        ConfigurationError: There are no runs, or the sort column does not exist.
    """
    runs = read_runs(map(Path, settings.runs))
    if settings.sort is not None:
        runs = sorted_runs(runs, settings.sort)
    texts = {
        place: form(runs) for place, form in ((settings.csv, as_csv), (settings.json, as_json)) if place is not None
    }
    shown = texts.pop(_STANDARD_OUTPUT, None)
    if settings.html is not None:
        from genlab.comparison.page import as_page  # Pillow is needed for nothing else here

        texts[settings.html] = as_page(runs, command=context.command)
    # The files come first: what is printed may end the command, as nobody reads the rest.
    for place, text in texts.items():
        replace_atomically(Path(place), text.encode())
    if shown is None:
        shown = as_text(runs, width=shutil.get_terminal_size((WIDTH, 0)).columns)
    print(shown.rstrip("\n"))
    for place in texts:
        print(f"written to {Path(place)}")
