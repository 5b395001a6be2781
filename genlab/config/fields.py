"""Validation of plain values against type annotations by pydantic, with genlab's error messages."""

import json
import math
from collections import abc
from collections.abc import Callable, Mapping, Sequence
from dataclasses import fields
from functools import cache
from types import UnionType
from typing import Any, Literal, TypeVar, Union, get_args, get_origin

from pydantic import ConfigDict, PydanticUserError, TypeAdapter, ValidationError

from genlab.config.suggestions import suggestion
from genlab.errors import ConfigurationError
from genlab.paths import expanded_inside
from genlab.printing import shown

_T = TypeVar("_T")
_WORDS = {"none": None, "nil": None, "yes": True, "on": True, "no": False, "off": False}


@cache
def adapter(hint: Any) -> Any:  # a TypeAdapter, whose class the type checks of the tests cannot read
    """Return the strict validator of an annotation: ``true`` is not a number and ``"3"`` not a count."""
    try:
        return TypeAdapter(hint, config=ConfigDict(strict=True, arbitrary_types_allowed=True))
    except PydanticUserError:  # a dataclass has a configuration of its own
        return TypeAdapter(hint)


def fit(value: Any, hint: Any, key: str) -> Any:
    """Return a value converted to an annotation: lists to tuples and whole numbers to floats if required.

    Args:
        value: Plain data: scalars, lists, dicts.
        hint: The annotation.
        key: Full key of the value, for the message.

    Raises:
        ConfigurationError: The value does not fit, or is a number that is not finite.
    """
    _require_finite(value, key)
    if hint is Any or hint is object:
        return value
    try:
        # As JSON, whose arrays are any kind of sequence.
        return adapter(hint).validate_json(json.dumps(value))
    except (ValidationError, TypeError):
        pass
    choices, written = _literal_choices(hint), _as_written(value, hint)
    # A number in place of a name, as precision=16, is answered with the names; num_threads takes other values, too.
    is_name = all(isinstance(choice, str) for choice in choices) and not {int, float, str} & set(get_args(hint))
    if choices and is_name and not written and isinstance(value, str | int):
        raise ConfigurationError(f"{key} has no choice '{value}'; {suggestion(str(value), choices, kind='choices')}")
    raise ConfigurationError(f"{key} must be {describe(hint)}, got {shown(value, in_quotes=True)}{written}")


def _as_written(value: Any, hint: Any) -> str:
    """Return a hint with the value in a form that the annotation accepts; "" if absent."""
    meant: Any = _WORDS.get(value.casefold(), value) if isinstance(value, str) else value
    if isinstance(meant, float) and meant.is_integer():
        meant = int(meant)
    if meant is value:
        return ""
    try:
        adapter(hint).validate_python(meant)
    except ValidationError:
        return ""
    return f"; write {json.dumps(meant)}"


def check_fields(schema: type[_T], values: Mapping[str, Any], key: str) -> _T:
    """Return an instance of a dataclass made from plain values, each of them checked, with ``~`` in paths expanded.

    Args:
        schema: A dataclass; fields that are not compared are no keys, and its ``__post_init__`` may check ranges by
            raising ValueError.
        values: One value for each field.
        key: Key of the node ("trainer"), or "" at the top level.

    Raises:
        ConfigurationError: A key is unknown or missing, a value has the wrong type or is out of its range.
    """
    if not isinstance(values, Mapping):
        raise ConfigurationError(f"{key} must hold keys and values, got {shown(values, in_quotes=True)}")
    hints = {field.name: field.type for field in fields(schema) if field.compare}  # type: ignore[arg-type]
    for name in values:
        if name not in hints:
            raise ConfigurationError(
                f"{join(key, str(name))} is not a key; {suggestion(str(name), hints, kind='keys')}"
            )
    missing = [name for name in hints if name not in values]
    if missing:
        raise ConfigurationError(f"{join(key, missing[0])} is missing")
    checked = {
        name: fit(expanded_inside(values[name], join(key, name)), hint, join(key, name)) for name, hint in hints.items()
    }
    try:
        return schema(**checked)
    except ConfigurationError:
        raise
    except ValueError as error:
        raise ConfigurationError(str(error)) from error


def reader_of(settings: type[_T]) -> Callable[[Mapping[str, Any], Sequence[str]], _T]:
    """Return the ``read`` of a command whose settings need no check but their own."""

    def read(values: Mapping[str, Any], overrides: Sequence[str]) -> _T:
        del overrides
        return check_fields(settings, values, "")

    read.__annotations__["return"] = settings  # as the schemas of the commands are made from it
    return read


def join(parent: str, name: str) -> str:
    """Return ``parent.name``, or the name alone at the top level."""
    return f"{parent}.{name}" if parent else name


def describe(hint: Any) -> str:
    """Return an annotation as shown to users: ``float | None`` is "a number or null"."""
    plain = {int: "a whole number", float: "a number", bool: "true or false", str: "a text", type(None): "null"}
    if isinstance(hint, type) and hint in plain:
        return plain[hint]
    origin, arguments = get_origin(hint), get_args(hint)
    if origin in (abc.Callable, abc.Mapping, dict):
        return "a node of keys and values"
    if origin in (Union, UnionType):
        # No file holds a tensor, which a learning rate may be. Last, a list takes no alternative for one of its items.
        named = [text for text in map(describe, arguments) if text != "Tensor"]
        return " or ".join(sorted(named, key=lambda text: text.startswith("a list")))
    if origin is Literal:
        return " or ".join(str(argument) for argument in arguments)
    if origin in (tuple, list) or getattr(origin, "__name__", "") in ("Sequence", "Iterable", "Collection"):
        if origin is tuple and Ellipsis not in arguments:
            named = [describe(argument) for argument in arguments]
            same = f"each {named[0]}" if len(set(named)) == 1 else ", then ".join(named)
            return f"a list of {len(arguments)}, {same}"
        return f"a list, each {describe(arguments[0])}" if arguments else "a list"
    return getattr(hint, "__name__", str(hint))


def _require_finite(value: Any, key: str) -> None:
    if isinstance(value, float) and not math.isfinite(value):
        raise ConfigurationError(f"{key} must be finite, got {value}")
    if isinstance(value, list):
        for index, item in enumerate(value):
            _require_finite(item, f"{key}[{index}]")


def _literal_choices(hint: Any) -> tuple[Any, ...]:
    if get_origin(hint) in (Union, UnionType):
        names = tuple(choice for part in get_args(hint) for choice in _literal_choices(part))
        return (*names, "true", "false") if names and bool in get_args(hint) else names
    return get_args(hint) if get_origin(hint) is Literal else ()
