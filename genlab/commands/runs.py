"""`genlab runs`: the runs below a folder, newest first; `genlab runs rm RUN...` deletes some of them."""

import shutil
import sys
import time
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from genlab.comparison.runs import Run, read_runs
from genlab.comparison.table import rounded
from genlab.config.fields import reader_of
from genlab.errors import ConfigurationError
from genlab.launch.contract import JobContext
from genlab.paths import expanded, from_here
from genlab.printing import describe_seconds
from genlab.run.folder import is_untouched, remove, require_free
from genlab.run.formats import FORMAT_KEY
from genlab.run.measured import QUALITY, VALIDATION, Record
from genlab.run.names import CONFIG_NAME, RUNS_ROOT, STARTED_NAME, find_run
from genlab.run.pretrained import is_pretrained
from genlab.tables import aligned

_REMOVE = "rm"
_MARKS_OF_RUNS = (CONFIG_NAME, STARTED_NAME, "summary.json")
_HEADER = ("name", "model", "data", "status", "step", "measure", "age", "size")
_MEASURE = _HEADER.index("measure")
_INDENT = "  "
_KILO = 1000


@dataclass(frozen=True, kw_only=True)
class RunsSettings:
    """The keys of configs/runs.yaml.

    Raises:
        ValueError: There is nothing to list or to delete.
    """

    runs: tuple[str, ...]
    sure: bool

    def __post_init__(self) -> None:
        if not self.runs or self.runs == (_REMOVE,):
            raise ValueError(f"runs must name at least one run{'' if self.runs else ' or folder of runs'}")


read = reader_of(RunsSettings)


def run(settings: RunsSettings, context: JobContext) -> None:
    """Print the list, or delete the named runs.

    Raises:
        ConfigurationError: There are no runs, a run to delete is unknown, or nobody is there to be asked.
        FolderInUseError: A run to delete is running.
        StorageError: A run cannot be deleted.
    """
    del context
    if settings.runs[0] == _REMOVE:
        _remove([_to_remove(name) for name in settings.runs[1:]], is_confirmed=settings.sure)
        return
    width = shutil.get_terminal_size((0, 0)).columns if sys.stdout.isatty() else 0
    found = sorted(read_runs(map(Path, settings.runs)), key=_time_of_change, reverse=True)
    # Without the folders of `genlab evaluate out=FOLDER`, which no command takes as a run.
    found = [run for run in found if any((run.folder / name).exists() for name in _MARKS_OF_RUNS)]
    print(table(found, width=width))


def table(runs: Sequence[Run], *, width: int = 0) -> str:
    """Return the list of runs in the order given.

    Args:
        runs: Of :func:`genlab.comparison.runs.read_runs`.
        width: Columns of the terminal; 0 is no limit. In a table that is too wide, each name has a line of its own,
            whole, since it is there to be typed; measures are cut, and lose their step where that is not enough.
    """
    rows = [_row(run) for run in runs]
    whole = aligned([_HEADER], rows, width=0)
    if not width or _width(whole) <= width:
        return whole
    most = _most_of_measure(rows, width)
    if most < max(len(_shortened(row[_MEASURE], 0)) for row in rows):
        rows = [(*row[:_MEASURE], row[_MEASURE].partition(" (step ")[0], *row[_MEASURE + 1 :]) for row in rows]
        most = _most_of_measure(rows, width)
    rows = [(*row[:_MEASURE], _shortened(row[_MEASURE], most), *row[_MEASURE + 1 :]) for row in rows]
    head, rule, *lines = _without_names(rows).splitlines()
    named = [text for row, line in zip(rows, lines, strict=True) for text in (row[0], f"{_INDENT}{line}")]
    return "\n".join((_HEADER[0], f"{_INDENT}{head}", f"{_INDENT}{rule}", *named))


def _without_names(rows: Sequence[tuple[str, ...]]) -> str:
    return aligned([_HEADER[1:]], [row[1:] for row in rows], width=0)


def _most_of_measure(rows: Sequence[tuple[str, ...]], width: int) -> int:
    """Return the length of the longest measure with which rows without their names fit a width."""
    excess = _width(_without_names(rows)) + len(_INDENT) - width
    return max(len(row[_MEASURE]) for row in rows) - max(excess, 0)


def _width(text: str) -> int:
    return max(map(len, text.splitlines()))


def _shortened(measure: str, most: int) -> str:
    """Return a measure with its value whole and its name cut to fit."""
    name, _, value = measure.partition(" ")
    return measure if len(measure) <= most else f"{name[: max(most - len(value) - 4, 1)]}... {value}"


def _row(run: Run) -> tuple[str, ...]:
    # Of the test, else of a validation.
    record = next((record for record in run.records if record.is_declared and record.direction != "neither"), None)
    step = "" if run.step is None else f"{run.step:,}"
    return (
        _name(run),
        run.model or "",
        run.dataset or "",
        run.status,
        step,
        "" if record is None else _measure(record, run),
        describe_seconds(max(time.time() - _time_of_change(run), 0)),
        _bytes(_size(run.folder)),
    )


def _measure(record: Record, run: Run) -> str:
    """Return a measure as text, with its step if that is not the step of the run."""
    at = run.best_step if record.monitored else run.measured_step
    where = "" if at in (None, run.step) else f" (step {at:,})"
    return f"{record.name.removeprefix(VALIDATION).removeprefix(QUALITY)} {rounded(record)}{where}"


def _size(folder: Path) -> int:
    """Return the bytes of a folder; a file that a running training renames meanwhile does not count."""
    size = 0
    for file in folder.rglob("*"):
        with suppress(FileNotFoundError):
            size += file.stat().st_size if file.is_file() else 0
    return size


def _name(run: Run) -> str:
    """Return a name that finds the run: its path below ``outputs/``, or its whole path."""
    path = from_here(run.folder)
    return (path.relative_to(RUNS_ROOT) if path.is_relative_to(RUNS_ROOT) else path).as_posix()


def _to_remove(name: str) -> Path:
    """Return the folder of a run, also of one whose start failed, which no other command takes."""
    for place in (Path(expanded(name, "run")), Path(RUNS_ROOT, name)):
        if (place / STARTED_NAME).is_dir() and is_untouched(place):
            return place
    return find_run(name)


def _is_ours(folder: Path) -> bool:
    """Return True if genlab has made a folder; a project of another kind may hold a config.yaml too."""
    return (folder / STARTED_NAME).is_dir() or f"{FORMAT_KEY}:" in (folder / CONFIG_NAME).read_text(errors="replace")


def _remove(folders: Sequence[Path], *, is_confirmed: bool) -> None:
    for folder in folders:
        if is_pretrained(folder):
            raise ConfigurationError(f"rm must name runs of training, got {folder}, a pretrained model")
        if not _is_ours(folder):
            raise ConfigurationError(
                f"rm must name runs of genlab, got {folder}, whose {CONFIG_NAME} has no {FORMAT_KEY}; delete it by hand"
            )
        require_free(folder)
    if not is_confirmed:
        if not sys.stdin.isatty():
            raise ConfigurationError(
                "rm needs an answer before it deletes, and the standard input is no terminal; add --yes"
            )
        for folder in folders:
            print(folder)
        answer = input(f"delete {'this run' if len(folders) == 1 else f'these {len(folders)} runs'}? [y/N] ")
        if answer.strip().casefold() not in ("y", "yes"):
            print("nothing deleted")
            return
    for folder in folders:
        remove(folder)
        print(f"deleted {folder}")


def _time_of_change(run: Run) -> float:
    """Return the time of the run's last write to its records, in seconds since the epoch."""
    names = ("summary.json", "metrics.jsonl", CONFIG_NAME, "train.log")
    return max((path.stat().st_mtime for name in names if (path := run.folder / name).exists()), default=0.0)


def _bytes(num_bytes: int) -> str:
    size = float(num_bytes)
    for unit in ("B", "kB", "MB"):
        if size < _KILO:
            return f"{size:.0f} {unit}"
        size /= _KILO
    return f"{size:.0f} GB"
