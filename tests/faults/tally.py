"""Counts of the faults that were tried and survived, across tests and their processes."""

from collections import defaultdict
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

PROPERTY = "fault"


@dataclass
class Tally:
    """Counts of one test, carried by its report."""

    properties: list[tuple[str, object]]

    @contextmanager
    def trying(self, fault: str, what: str, *, count: int = 1) -> Iterator[None]:
        """Count something tried, and as survived when nothing is raised inside.

        Args:
            fault: Row of the table: number and name, as in ``2 kill -9``.
            what: Name of the trials, in the plural: ``kills inside a save``.
            count: Number of trials at once.
        """
        entry = [fault, what, count, 0]
        self.properties.append((PROPERTY, entry))
        yield
        entry[3] = count

    def wrong_variant_noticed(self, fault: str, variant: str) -> None:
        """Note that the test fails, as it must, on the wrong variant that it names."""
        self.properties.append((PROPERTY, [fault, f"wrong variant: {variant}", 1, 1]))


@dataclass
class _Row:
    tried: dict[str, int] = field(default_factory=lambda: defaultdict(int))
    survived: dict[str, int] = field(default_factory=lambda: defaultdict(int))


def table(properties: Iterable[tuple[str, object]]) -> list[str]:
    """The lines of a Markdown table, a line per fault and thing tried; empty when nothing was tried."""
    rows: dict[str, _Row] = defaultdict(_Row)
    for name, entry in properties:
        if name == PROPERTY and isinstance(entry, list):
            fault, what, tried, survived = entry
            rows[fault].tried[what] += tried
            rows[fault].survived[what] += survived
    if not rows:
        return []
    lines = ["| fault | tried | number | survived |", "|---|---|---|---|"]
    for fault in sorted(rows, key=lambda name: (int(name.split()[0]), name)):
        row = rows[fault]
        lines += [f"| {fault} | {what} | {row.tried[what]} | {row.survived[what]} |" for what in row.tried]
    return lines
