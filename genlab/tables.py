"""Tables for a terminal."""

import shutil
import sys
import textwrap
from collections.abc import Sequence

_MAX_NAME_WIDTH = 38


def aligned(*blocks: Sequence[Sequence[str]]) -> str:
    """Return blocks of rows as text in columns of equal width, with a rule between blocks."""
    widths = [max(map(len, column)) for column in zip(*(row for block in blocks for row in block), strict=True)]
    rule = "\n" + "  ".join("-" * width for width in widths) + "\n"

    def line(row: Sequence[str]) -> str:
        return "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip()

    return rule.join("\n".join(map(line, block)) for block in blocks)


def described(rows: Sequence[tuple[str, str]]) -> str:
    """Return rows of a name and words: in columns wrapped to the width of a terminal, one line each elsewhere."""
    width = min(max((len(name) for name, _ in rows), default=0), _MAX_NAME_WIDTH)
    room = max(shutil.get_terminal_size().columns - width - 4, 24)
    lines = []
    for name, words in rows:
        parts = [words]
        if sys.stdout.isatty():
            parts = textwrap.wrap(words, room, break_long_words=False, break_on_hyphens=False) or [""]
            if len(name) > width and words:
                parts.insert(0, "")
        for number, part in enumerate(parts):
            lines.append(f"  {'' if number else name:<{width}}  {part}".rstrip())
    return "\n".join(lines)
