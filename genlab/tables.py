"""Tables for a terminal."""

import shutil
import sys
import textwrap
from collections.abc import Collection, Sequence

_MAX_NAME_WIDTH = 38
_GAP = 2


def aligned(*blocks: Sequence[Sequence[str]], width: int | None = None) -> str:
    """Return blocks of rows as text in columns of equal width, with a rule between blocks.

    In a table that is too wide, columns with one value in all rows become a line below it, and those that still do not
    fit follow in further parts that repeat the first column.

    Args:
        blocks: The header, then the rows.
        width: Columns of the terminal; 0 is no limit; None is those of the standard output, without a limit elsewhere.
    """
    columns = list(zip(*(row for block in blocks for row in block), strict=True))
    widths = [max(map(len, column)) for column in columns]
    if width is None:
        width = shutil.get_terminal_size().columns if sys.stdout.isatty() else 0
    shown, shared = list(range(len(columns))), ""
    if width and sum(widths) + _GAP * (len(widths) - 1) > width:
        head = len(blocks[0])
        alike = [column for column in shown[1:] if len(columns[0]) > head + 1 and len(set(columns[column][head:])) == 1]
        shown = [column for column in shown if column not in alike]
        facts = [
            " ".join((*filter(None, columns[column][:head]), columns[column][-1]))
            for column in alike
            if columns[column][-1]
        ]
        shared = f"\nall rows: {', '.join(facts)}" if facts else ""

    def drawn(part: Sequence[int]) -> str:
        rule = "\n" + (" " * _GAP).join("-" * widths[column] for column in part) + "\n"
        return rule.join("\n".join(line(row, part) for row in block) for block in blocks)

    def line(row: Sequence[str], part: Sequence[int]) -> str:
        return (" " * _GAP).join(row[column].ljust(widths[column]) for column in part).rstrip()

    return "\n\n".join(map(drawn, parts_within(widths, shown, width=width or sys.maxsize))) + shared


def parts_within(widths: Sequence[int], shown: Sequence[int], *, width: int) -> list[list[int]]:
    """Return the columns of each part of a table that is split to fit a width; each part begins with the first column.

    Args:
        widths: Of all columns.
        shown: The columns to split.
        width: Most characters of a line.
    """
    first, *others = shown
    parts, used = [[first]], widths[first]
    for column in others:
        needed = _GAP + widths[column]
        if len(parts[-1]) > 1 and used + needed > width:
            parts.append([first])
            used = widths[first]
        parts[-1].append(column)
        used += needed
    return parts


def described(rows: Collection[tuple[str, str]], *, indent: str = "  ") -> str:
    """Return rows of a name and words: in columns wrapped to the width of a terminal, one line each elsewhere."""
    width = min(max((len(name) for name, _ in rows), default=0), _MAX_NAME_WIDTH)
    room = max(shutil.get_terminal_size().columns - len(indent) - width - 2, 24)
    lines = []
    for name, words in rows:
        parts = [words]
        if sys.stdout.isatty():
            parts = textwrap.wrap(words, room, break_long_words=False, break_on_hyphens=False) or [""]
            if len(name) > width and words:
                parts.insert(0, "")
        for number, part in enumerate(parts):
            lines.append(f"{indent}{'' if number else name:<{width}}  {part}".rstrip())
    return "\n".join(lines)
