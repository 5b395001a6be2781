"""Reading of untrusted YAML: plain keys and values only."""

import re
from pathlib import Path
from typing import Any

import yaml  # type: ignore[import-untyped]

from genlab.printing import one_line
from genlab.storage import read_within

MAX_DEPTH = 32
MAX_DIGITS = 200
"""Maximum number of digits of a whole number in any base; Python refuses to print thousands of digits."""
_WHOLE = re.compile(r"[-+]?[0-9][0-9a-fA-FxX_:]*")
# The one in C reads a folder of runs ten times as fast; both know plain data only.
_Loader = getattr(yaml, "CSafeLoader", yaml.SafeLoader)


def load_plain(text: str) -> Any:
    """Return the content of a plain text.

    Raises:
        ValueError: It is no YAML, or not plain.
    """
    try:
        _require_plain(text)
        return yaml.load(text, Loader=_Loader)  # noqa: S506 - a safe one
    except yaml.YAMLError as error:
        raise ValueError(f"it is no YAML: {one_line(str(error))}") from error


def read_plain(folder: Path, name: str) -> dict[str, Any]:
    """Return the mapping in a YAML file of a folder.

    Raises:
        OSError: It cannot be read.
        ValueError: It lies outside the folder, is not an ordinary file, or holds no plain YAML mapping.
    """
    content = load_plain(read_within(folder, name).decode())
    if not isinstance(content, dict):
        raise ValueError("it holds no keys and values")
    return {str(key): value for key, value in content.items()}


def _require_plain(text: str) -> None:
    """Refuse a text that would crash the process or its parser.

    Brackets ten thousand deep overflow the stack of the parser in C, a node inside itself has no end, and a tag asks
    for an object.

    Raises:
        ValueError: There is an anchor, an alias or a tag, a number is too long, or it is nested too deeply.
    """
    depth = 0
    for event in yaml.parse(text, Loader=_Loader):
        if getattr(event, "anchor", None) is not None or getattr(event, "tag", None) is not None:
            raise ValueError("it must be plain YAML, without anchors, aliases and tags")
        is_plain_scalar = isinstance(event, yaml.ScalarEvent) and event.implicit[0]  # not in quotes
        if is_plain_scalar and len(event.value) > MAX_DIGITS and _WHOLE.fullmatch(event.value):
            raise ValueError(f"it must hold no number of more than {MAX_DIGITS} digits")
        depth += isinstance(event, yaml.CollectionStartEvent) - isinstance(event, yaml.CollectionEndEvent)
        if depth > MAX_DEPTH:
            raise ValueError(f"it must be nested at most {MAX_DEPTH} deep")
