"""Ranking of the values of runs in comparable groups, with one line for each pair of groups that is not comparable."""

import math
import string
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from genlab.comparison.runs import Run
from genlab.config.suggestions import nearest
from genlab.errors import ConfigurationError
from genlab.measures import NOT_DECLARED
from genlab.run.hyperparameters import Scalar
from genlab.run.measured import Record, comparable_groups, refusals

_MAX_LISTED = 4  # quantities that a shared line lists by name
_UNDECLARED = "not declared: the `measures` of the model lack its unit, kind and direction"


@dataclass(frozen=True, kw_only=True)
class Cell:
    """A value of one run in a column."""

    record: Record
    group: str
    """The letter of the group of values that this one is ranked with; "" if it is not ranked."""
    rank: int | None
    """Rank in the group, from 1 for the best; None for a single value, or one that cannot be ranked."""

    @property
    def is_best(self) -> bool:
        """Return True if the value is the best, or one of the best, of at least two."""
        return self.rank == 1


@dataclass(frozen=True, kw_only=True)
class Column:
    """A quantity over the runs that have it."""

    quantity: str
    direction: str
    """Direction of better values; "neither" if it orders no models, NOT_DECLARED without a declaration."""
    cells: Mapping[int, Cell]
    """By position of the run."""
    refusals: tuple[str, ...]
    """Reasons why some values are not ranked with others, one line each; "#1" is the first run."""
    remarks: tuple[str, ...]
    """Caveats of the ranks."""

    @property
    def title(self) -> str:
        """Return the quantity and the direction of better values."""
        return f"{self.quantity} ({self.direction})"

    @property
    def orders_models(self) -> bool:
        """Return True if the quantity has a direction."""
        return self.direction in ("lower", "higher")

    @property
    def num_groups(self) -> int:
        """Return the number of groups of values that cannot be ranked with each other."""
        return len({cell.group for cell in self.cells.values() if cell.group})


def columns_of(runs: Sequence[Run]) -> list[Column]:
    """Return a column for every quantity: those that order models first, undeclared ones last."""
    quantities: dict[str, None] = {}
    for run in runs:
        quantities |= dict.fromkeys(record.quantity for record in run.records)
    columns = [_column(quantity, runs) for quantity in quantities]
    return sorted(columns, key=lambda column: (not column.orders_models, column.direction == "neither"))


def unique_remarks(columns: Sequence[Column]) -> list[str]:
    """Return the refusals, then the remarks, of all columns; a line that several share appears once."""
    lines: dict[str, list[str]] = {}
    for part in ([column.refusals for column in columns], [column.remarks for column in columns]):
        for column, texts in zip(columns, part, strict=True):
            for text in texts:
                lines.setdefault(text, []).append(column.quantity)
    return [f"{text} ({_listed(quantities)})" for text, quantities in lines.items()]


def sorted_runs(runs: Sequence[Run], by: str) -> list[Run]:
    """Return the runs sorted by a measure, best first within each comparable group, or ascending by another property.

    Args:
        runs: In any order.
        by: A measure as a column calls it, ``name``, ``status``, ``step``, ``seconds``, ``images_per_second``,
            ``num_parameters``, or a key of the configuration. Runs without it come last.

    Raises:
        ConfigurationError: No run has anything of this name.
    """
    columns = {column.quantity: column for column in columns_of(runs)}
    if by in columns:
        cells = columns[by].cells
        keys = {index: (0, cell.group or "~", _cost(cell.record)) for index, cell in cells.items()}
        return [runs[index] for index in sorted(range(len(runs)), key=lambda index: keys.get(index, (1, "", 0.0)))]
    properties = ("name", "status", "step", "seconds", "images_per_second", "num_parameters")
    parameters = {key for run in runs for key in run.configuration}
    if by in properties:
        values: list[Scalar] = [getattr(run, by) for run in runs]
    elif by in parameters:
        values = [run.configuration.get(by) for run in runs]
    else:
        listed = (*(column.quantity for column in columns.values() if column.orders_models), *properties)
        same_end = [key for key in sorted(parameters) if key.rpartition(".")[2] == by.rpartition(".")[2]]
        guess = same_end[0] if same_end else nearest(by, (*columns, *properties, *parameters))
        columns_told = f"columns: {', '.join(listed)}, and the keys of the configuration"
        told = f"did you mean '{guess}'? ({columns_told})" if guess else columns_told
        raise ConfigurationError(f"sort has no column '{by}'; {told}")
    order = sorted(range(len(runs)), key=lambda index: _ascending(values[index]))
    return [runs[index] for index in order]


def differing(runs: Sequence[Run]) -> dict[str, tuple[Scalar, ...]]:
    """Return the keys of the configuration whose values differ between runs; None stands for a missing key.

    Runs whose configuration cannot be read are ignored. Beside an export, which keeps no options, classes are compared.
    """
    readable = [run for run in runs if run.configuration]
    has_options = all(run.classes for run in readable)
    settings = [run.configuration if has_options else {**run.configuration, **run.classes} for run in runs]
    told = [values for values in settings if values]
    absent = object()
    return {
        key: tuple(values.get(key) for values in settings)
        for key in sorted({key for values in told for key in values})
        if len({repr(values.get(key, absent)) for values in told}) > 1
    }


def _column(quantity: str, runs: Sequence[Run]) -> Column:
    records = {index: record for index, run in enumerate(runs) for record in run.records if record.quantity == quantity}
    direction = next((record.direction for record in records.values() if record.is_declared), NOT_DECLARED)
    known: dict[int, Mapping[str, str]] = {}
    unknown, undeclared = [], []
    for index, record in records.items():
        conditions = record.conditions
        if not record.is_declared:
            undeclared.append(index)
        elif conditions is None:
            unknown.append(index)
        else:
            known[index] = conditions
    # The letter a goes to the largest group, and refusals name the other groups relative to it.
    groups = comparable_groups(known)
    cells = {index: Cell(record=records[index], group="", rank=None) for index in (*unknown, *undeclared)}
    for number, (_, members) in enumerate(groups):
        for index in members:
            rank = _rank(index, members, records)
            cells[index] = Cell(record=records[index], group=_letter(number), rank=rank)
    reasons = [] if direction == "neither" else refusals(groups, _numbered)
    if unknown and direction != "neither" and len(unknown) + len(groups) > 1:
        way = f"genlab evaluate run={runs[unknown[0]].folder}" if len(unknown) == 1 else "genlab evaluate run=RUN"
        reasons.append(f"{_numbered(unknown)} not ranked: no evaluation.json has the images and the protocol; {way}")
    if undeclared:
        reasons.append(f"{_numbered(undeclared)} not ranked: {_UNDECLARED}")
    return Column(
        quantity=quantity,
        direction=direction,
        cells=cells,
        refusals=tuple(reasons),
        remarks=() if direction == "neither" else tuple(_remarks([members for _, members in groups], records)),
    )


def _rank(index: int, members: Sequence[int], records: Mapping[int, Record]) -> int | None:
    if records[index].direction == "neither" or len(members) < 2:
        return None
    return 1 + sum(_cost(records[other]) < _cost(records[index]) for other in members)


def _cost(record: Record) -> float:
    """Return the value with the sign for which lower is better."""
    return -record.value if record.direction == "higher" else record.value


def _remarks(groups: Sequence[Sequence[int]], records: Mapping[int, Record]) -> list[str]:
    lines = []
    for members in groups:
        if len(members) < 2:
            continue
        best = min((_cost(records[index]) for index in members if not records[index].is_bound), default=math.inf)
        bounds = [index for index in members if records[index].is_bound and _cost(records[index]) > best]
        if bounds:
            lines.append(
                f"{_numbered(bounds)} {'is a bound' if len(bounds) == 1 else 'are bounds'}, whose true "
                f"value may be {records[members[0]].direction} than the best exact one"
            )
        seeds = Counter(records[index].seed for index in members if not records[index].monitored)
        if len(seeds) > 1:
            lines.append(
                f"measured with the seeds {', '.join(map(str, seeds))}, which differ in noise, samples "
                "and stochastic binarisation"
            )
    return lines


def _listed(quantities: Sequence[str]) -> str:
    names = ", ".join(quantities[:_MAX_LISTED])
    return names if len(quantities) <= _MAX_LISTED else f"{names} and {len(quantities) - _MAX_LISTED} more"


def _ascending(value: Scalar) -> tuple[int, float, str]:
    """Return a sort key: numbers by size, then texts, then missing values."""
    if value is None:
        return (2, 0.0, "")
    return (1, 0.0, value) if isinstance(value, str) else (0, float(value), "")


def _letter(number: int) -> str:
    return string.ascii_lowercase[number] if number < len(string.ascii_lowercase) else f"z{number}"


def _numbered(members: Sequence[int]) -> str:
    return ", ".join(f"#{index + 1}" for index in members)
