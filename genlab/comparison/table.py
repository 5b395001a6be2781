"""A comparison as text for a terminal, as CSV and as JSON."""

import csv
import io
import json
import re
import textwrap
from collections.abc import Sequence
from typing import Any

from genlab.comparison.ranking import Cell, Column, columns_of, differing, unique_remarks
from genlab.comparison.runs import Run
from genlab.printing import describe_seconds, printable
from genlab.run.hyperparameters import Scalar
from genlab.run.measured import Record
from genlab.tables import parts_within

WIDTH = 120
MAX_REASON = 300
_GAP = "  "
_ABSENT = "-"
_FORMULA = ("=", "+", "-", "@", "\t", "\r")
_TARGET = re.compile(r"[a-z_]\w*(\.\w+)+", re.ASCII)
_PLAIN = (
    *("name", "status", "reason", "model", "dataset", "experiment", "commit", "hardware", "seed"),
    *("step", "num_steps", "seconds", "images_per_second", "num_parameters"),
)

Rows = list[tuple[str, ...]]


def as_text(runs: Sequence[Run], *, width: int = WIDTH) -> str:
    """Return blocks of aligned columns that fit the terminal: runs, differing settings, measures, remarks."""
    columns = columns_of(runs)
    shown_columns = [column for column in columns if column.direction != "neither"]
    blocks = [
        _aligned(_names_last_if_long(_overview(runs), width), width=width),
        *_titled("what differs", _aligned(_upright(_differing_rows(runs)), width=width)),
        *_titled("measures", _aligned(_upright(_measure_rows(runs, shown_columns)), width=width)),
        "\n".join([*legend(shown_columns), *remarks(runs, columns)]),
    ]
    return "\n\n".join(block for block in blocks if block)


def _overview(runs: Sequence[Run]) -> Rows:
    """Return one row per run: name, status and cost."""
    rows: Rows = [("#", "run", "model", "data", "status", "step", "time", "images/s", "parameters")]
    for number, run in enumerate(runs, start=1):
        rows.append(
            (
                f"{number}",
                shown(run.name),
                shown(run.model),
                shown(run.dataset),
                shown(run.status),
                "" if run.step is None else f"{run.step:,}",
                "" if run.seconds is None else describe_seconds(run.seconds),
                "" if run.images_per_second is None else f"{run.images_per_second:,.0f}",
                "" if run.num_parameters is None else f"{run.num_parameters:,}",
            )
        )
    return rows


def legend(columns: Sequence[Column]) -> list[str]:
    """Return the meaning of the marks that occur in the columns."""
    cells = [cell for column in columns for cell in column.cells.values()]
    words = {word for cell in cells for word in cell.record.words}
    lines = []
    if any(cell.is_best for cell in cells):
        lines.append("*: the best of its group; the direction of better values is beside the name")
    if any(column.num_groups > 1 for column in columns):
        lines.append("a, b, ...: only values with the same letter in a column are ranked with each other")
    if "bound" in words:
        lines.append("bound: the true value is at least as good")
    if "EMA" in words:
        lines.append("EMA: of the exponential average of the weights")
    return lines


def remarks(runs: Sequence[Run], columns: Sequence[Column]) -> list[str]:
    """Return the remarks: refusals to rank, caveats of ranks, columns left out, and problems with runs."""
    lines = unique_remarks(columns)
    left_out = [column.quantity for column in columns if column.direction == "neither"]
    if left_out:
        lines.append(f"left out, because they do not order models (--csv and --json have them): {', '.join(left_out)}")
    for number, run in enumerate(runs, start=1):
        if run.reason is not None:
            lines.append(
                f"#{number} {run.status}: {textwrap.shorten(shown(run.reason), MAX_REASON, placeholder=' ...')}"
            )
        lines += [f"#{number}: {problem}" for problem in run.problems]
    return [shown(line) for line in lines]


def cell_text(cell: Cell | None, column: Column) -> str:
    """Return a value with its qualifiers and marks; "" if the run has no value."""
    if cell is None:
        return ""
    letter = cell.group if column.num_groups > 1 and column.orders_models else ""
    mark = f"{letter}{'*' if cell.is_best else ''}"
    return " ".join(part for part in (rounded(cell.record), *cell.record.words, mark) if part)


def rounded(record: Record) -> str:
    """Return a number as text: two decimals above ten, four otherwise; counts have no decimals."""
    value = record.value
    if record.unit == "modes":
        return f"{value:,.0f}"
    if abs(value) >= 10:
        return f"{value:,.2f}"
    return f"{value:.4f}" if abs(value) >= 1e-4 or value == 0 else f"{value:.2e}"


def shown(value: Scalar) -> str:
    """Return a value as printable text."""
    return "" if value is None else printable(str(value))


def as_csv(runs: Sequence[Run]) -> str:
    """Return CSV with one row per run: overview, differing keys, and four columns for each measure."""
    columns, keys = columns_of(runs), differing(runs)
    header = ["run", "folder", "model", "dataset", "status", "step", "seconds", "images_per_second", "num_parameters"]
    keys = {key: values for key, values in keys.items() if key not in header}  # model and dataset
    header += ["commit", "hardware", "command", *keys]
    for column in columns:
        header += [column.quantity] + [f"{column.quantity}:{part}" for part in ("kind", "weights", "group", "rank")]
    buffer = io.StringIO()
    writer = csv.writer(buffer, lineterminator="\n")
    writer.writerow(header)
    for index, run in enumerate(runs):
        row: list[Scalar] = [run.name, str(run.folder), run.model, run.dataset, run.status, run.step, run.seconds]
        row += [run.images_per_second, run.num_parameters, run.commit, run.hardware, "; ".join(run.commands)]
        row += [values[index] for values in keys.values()]
        for column in columns:
            cell = column.cells.get(index)
            row += [None] * 5 if cell is None else _in_csv(cell)
        writer.writerow([_harmless(value) for value in row])
    return buffer.getvalue()


def as_json(runs: Sequence[Run]) -> str:
    """Return the whole comparison as JSON."""
    columns, keys = columns_of(runs), differing(runs)
    content = {
        "runs": [_run_as_json(run, index, columns) for index, run in enumerate(runs)],
        "differing": {key: list(values) for key, values in keys.items()},
        "remarks": unique_remarks(columns),
    }
    return json.dumps(content, indent=1)


def _run_as_json(run: Run, index: int, columns: Sequence[Column]) -> dict[str, Any]:
    measures = {
        column.quantity: {
            **{name: value for name, value in vars(cell.record).items() if name != "monitored"},
            "group": cell.group or None,
            "rank": cell.rank,
        }
        for column in columns
        if (cell := column.cells.get(index)) is not None
    }
    return {
        "number": index + 1,
        "folder": str(run.folder),
        **{name: getattr(run, name) for name in _PLAIN},
        "commands": list(run.commands),
        "problems": list(run.problems),
        "measures": measures,
    }


def parameter_text(run: Run, key: str) -> str:
    """Return a value of the configuration as text, the last part of a target; "-" if the run has no such key."""
    if key not in run.configuration:
        return _ABSENT
    value = run.configuration[key]
    if isinstance(value, str) and _TARGET.fullmatch(value):
        return value.rpartition(".")[2]
    if isinstance(value, float):
        return f"{value:.10g}"
    return "null" if value is None else shown(value)


def _differing_rows(runs: Sequence[Run]) -> Rows:
    """Return the rows of keys whose values differ among the runs that have them."""
    keys = [key for key in differing(runs) if len({parameter_text(run, key) for run in runs} - {_ABSENT}) > 1]
    if not keys:
        return []
    rows: Rows = [("#", *keys)]
    rows += [(f"{index + 1}", *(parameter_text(run, key) for key in keys)) for index, run in enumerate(runs)]
    return rows


def _measure_rows(runs: Sequence[Run], columns: Sequence[Column]) -> Rows:
    if not columns:
        return []
    rows: Rows = [("#", *(column.title for column in columns))]
    for index in range(len(runs)):
        rows.append((f"{index + 1}", *(cell_text(column.cells.get(index), column) for column in columns)))
    return rows


def _upright(rows: Rows) -> Rows:
    """Transpose a table that is wider than high."""
    return list(zip(*rows, strict=True)) if rows and len(rows[0]) > len(rows) else rows


def _names_last_if_long(rows: Rows, width: int) -> Rows:
    """Move the names of the runs to the last column if they are too long for the first."""
    needed = sum(len(_GAP) + max(map(len, column)) for column in zip(*rows, strict=True))
    return rows if needed <= width else [(row[0], *row[2:], row[1]) for row in rows]


def _aligned(rows: Rows, *, width: int) -> str:
    """Return rows below their header; columns that do not fit follow in further parts that repeat the first column."""
    if not rows:
        return ""
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
    parts = parts_within(widths, range(len(widths)), width=width)
    return "\n\n".join("\n".join(_lines(rows, part, widths)) for part in parts)


def _lines(rows: Rows, columns: Sequence[int], widths: Sequence[int]) -> list[str]:
    """Return the lines of some columns, without rows that have nothing in them."""
    told = [row for row in rows if len(columns) == 1 or any(row[column] not in ("", _ABSENT) for column in columns[1:])]
    lines = [_GAP.join(row[column].ljust(widths[column]) for column in columns).rstrip() for row in told]
    lines.insert(1, _GAP.join("-" * widths[column] for column in columns))
    return lines


def _titled(title: str, block: str) -> list[str]:
    return [f"{title}\n{block}"] if block else []


def _in_csv(cell: Cell) -> list[Scalar]:
    record = cell.record
    return [record.value, record.kind, record.weights, cell.group or None, cell.rank]


def _harmless(value: Scalar) -> Scalar:
    """Mark a text that a spreadsheet would read as a formula."""
    return f"'{value}" if isinstance(value, str) and value.startswith(_FORMULA) else value
