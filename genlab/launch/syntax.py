"""Syntax of a command besides ``key=value`` and the options of Hydra: positional arguments and flags of its own."""

import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import MappingProxyType
from typing import NamedTuple

from genlab.errors import ConfigurationError

# Options of Hydra whose value is the next argument.
_TAKE_A_VALUE = (
    *("--cfg", "-c", "--package", "-p", "--info", "-i"),
    *("--config-path", "-cp", "--config-name", "-cn", "--config-dir", "-cd"),
)
_OTHER_FILE = re.compile(r"[^-=][^=]*[.][a-z]+")

_PLAIN = re.compile(r"(?!(true|false|null|nan|inf)$)[a-z_][\w./-]*", re.ASCII | re.IGNORECASE)
"""A value that Hydra's grammar reads as a string without quotes."""


class Flag(NamedTuple):
    """Short for an override: ``--html page.html`` is ``html=page.html``."""

    key: str
    suffix: str | None = ""
    """The next argument is the value if it ends in this; "" takes any, None takes no argument."""
    default: str | None = None
    """The value without such an argument; None if it is required."""


class Syntax(NamedTuple):
    """The syntax of one command."""

    positional: str | None = None
    """Key of a positional argument, which has no ``=``."""
    takes_several: bool = False
    """True to collect all positional arguments in a list."""
    second: str | None = None
    """Key that is suggested for a second positional argument, if only one is allowed."""
    flags: Mapping[str, Flag] = MappingProxyType({})


def expanded(arguments: Sequence[str], syntax: Syntax) -> list[str]:
    """Return the arguments as key=value and options of Hydra, and a positional argument if the command takes one.

    Raises:
        ConfigurationError: There are several positional arguments, or a flag lacks its value.
    """
    given = _without_flags(arguments, syntax.flags)
    if syntax.positional is None:
        return given
    if syntax.takes_several:
        return _gathered(given, syntax.positional)
    free = [argument for argument, is_free in zip(given, _are_free(given), strict=True) if is_free]
    bare = [argument for argument in free if "=" not in argument]
    if not bare and not any(argument.startswith(f"{syntax.positional}=") for argument in free):
        # A folder whose name looks like a setting.
        found = next((argument for argument in free if Path(argument).exists()), None)
        return [_override(syntax.positional, argument) if argument is found else argument for argument in given]
    if len(bare) > 1:
        hint = f"; did you mean {syntax.second}={bare[1]}?" if syntax.second else ""
        raise ConfigurationError(f"one {syntax.positional} must be given, got {' and '.join(bare)}{hint}")
    return given


def _without_flags(arguments: Sequence[str], flags: Mapping[str, Flag]) -> list[str]:
    """Replace each flag by the override that it stands for; ``--flag=value`` works too.

    Raises:
        ConfigurationError: A flag lacks its value.
    """
    replaced: list[str] = []
    remaining = list(arguments)
    while remaining:
        argument = remaining.pop(0)
        name, has_value, value = argument.partition("=")
        flag = flags.get(name)
        if flag is None:
            replaced.append(argument)
        elif flag.suffix is None:
            replaced.append(f"{flag.key}={value if has_value else flag.default}")
        elif has_value:
            replaced.append(_override(flag.key, value))
        elif remaining and remaining[0].endswith(flag.suffix) and (flag.default is None or "=" not in remaining[0]):
            replaced.append(_override(flag.key, remaining.pop(0)))
        elif remaining and _OTHER_FILE.fullmatch(remaining[0]) and not Path(remaining[0]).is_dir():
            text = f"{name} takes the name of a {flag.suffix} file, got {remaining[0]}; {name}={remaining[0]} takes any"
            raise ConfigurationError(text)
        elif flag.default is None:
            raise ConfigurationError(f"{name} needs a value")
        else:
            replaced.append(_override(flag.key, flag.default))
    return replaced


def _gathered(arguments: Sequence[str], key: str) -> list[str]:
    """Collect the positional arguments (those without ``=``, and existing paths) in one list under a key, in front.

    A single value of the key is one of them: ``runs=outputs``.
    """
    bare: list[str] = []
    others: list[str] = []
    single = re.compile(rf"{key}=([^\[\]'\",]+)")
    for argument, is_free in zip(arguments, _are_free(arguments), strict=True):
        if is_free and (found := single.fullmatch(argument)):
            bare.append(found[1])
        else:
            (bare if is_free and ("=" not in argument or Path(argument).exists()) else others).append(argument)
    return [f"{key}=[{','.join(map(_quoted, bare))}]", *others] if bare else others


def _are_free(arguments: Sequence[str]) -> list[bool]:
    """Return for each argument True if it is neither an option nor the value of one."""
    return [
        not argument.startswith("-") and before not in _TAKE_A_VALUE
        for before, argument in zip(("", *arguments), arguments, strict=False)
    ]


def _override(key: str, value: str) -> str:
    return f"{key}={_quoted(value)}"


def _quoted(text: str) -> str:
    """Return a string of Hydra's grammar; a plain path stays as it was typed, for pages and logs show the command."""
    if _PLAIN.fullmatch(text):
        return text
    from genlab.config.compose import quoted  # it brings Hydra, which `genlab --help` does without

    return quoted(text)
