"""Tables for a terminal."""

from collections.abc import Sequence


def aligned(*blocks: Sequence[Sequence[str]]) -> str:
    """Return blocks of rows as text in columns of equal width, with a rule between blocks."""
    widths = [max(map(len, column)) for column in zip(*(row for block in blocks for row in block), strict=True)]
    rule = "\n" + "  ".join("-" * width for width in widths) + "\n"

    def line(row: Sequence[str]) -> str:
        return "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip()

    return rule.join("\n".join(map(line, block)) for block in blocks)
