"""Text for a terminal and a log: untrusted text escaped, values as in YAML, durations in words."""

import json
from typing import Any


def printable(text: str) -> str:
    """Return the text on one line, with unprintable characters escaped, since they could move the cursor."""
    return "".join(character if character.isprintable() else ascii(character)[1:-1] for character in text)


def one_line(text: str) -> str:
    """Return the printable text with every run of white space made one space."""
    return printable(" ".join(text.split()))


def shown(value: Any, *, in_quotes: bool = False) -> str:
    """Return a value as users write it, such as null for None; a text may be put in quotes."""
    if isinstance(value, str | float):  # JSON has another name for nan
        return repr(value) if in_quotes else str(value)
    return json.dumps(value, default=repr, ensure_ascii=False, skipkeys=True)


def describe_seconds(seconds: float) -> str:
    """Return a duration in seconds, minutes or hours."""
    if seconds < 120:
        return f"{seconds:.0f} s"
    if seconds < 7200:
        return f"{seconds / 60:.0f} min"
    return f"{seconds / 3600:.1f} h" if seconds < 48 * 3600 else f"{seconds / 86400:.0f} days"
