"""Parsing of a command line into Hydra's options and overrides, completed with the parts that users leave out."""

import argparse
import re
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import NamedTuple

from hydra._internal.utils import get_args_parser

from genlab.config.compose import quoted
from genlab.errors import ConfigurationError
from genlab.launch.advice import UnknownFlagError
from genlab.launch.sweep_folder import last_sweep
from genlab.paths import absolute, expanded
from genlab.run.names import LAST, named_run

_PATH_NAMES = (
    *("resume", "init_from", "run", "folder", "out", "root", "cache", "path", "dir", "images"),
    *("samples", "reference", "against", "fill"),
    *("classifier", "watch_classifier", "inception_weights", "write", "csv", "json", "html"),
    "device",  # no path, but 0 is a text too, and answered with cuda:0
)
_PATH_KEY = re.compile(rf"(?P<key>[+]{{0,2}}([\w.]+\.)?({'|'.join(_PATH_NAMES)}))=(?P<value>.+)", re.DOTALL)
_HOME = re.compile(r"(?P<before>^|[,(\[]\s*)(?P<path>~[^,()\[\]]*)")  # at the head of a value, or of one of several
_PHASE_KEY = re.compile(r"optimizer\.(?!default\b)\w+(\.\w+=|=\{)")
_RUN_KEY = re.compile(r"(dataset|schedule)\.\w+=")
_KEPT_KEYS = r"init_from|dataset\.(root|cache)|trainer\.watch_classifier|quality\.inception_weights"
_KEPT_PATH = re.compile(rf"(?P<key>[+]{{0,2}}({_KEPT_KEYS}))=(?P<value>.+)", re.DOTALL)
_RUN_NAME = re.compile(r"(?P<key>run|resume|init_from)=(?P<value>[\w./:=,+-]+)")
_NUMBER = re.compile(r"[+-]?[\d._]*\d[\d._]*(e[+-]?\d+)?", re.ASCII | re.IGNORECASE)
_UNQUOTED = re.compile(r"[\w./:-]+", re.ASCII)


class CommandLine(NamedTuple):
    """The parsed arguments of a command."""

    options: argparse.Namespace
    """The options, as parsed by Hydra's own parser."""
    overrides: list[str]
    flags: list[str]
    """All other arguments, as typed."""


def parse_command_line(
    arguments: Sequence[str], *, positional: str | None, own_flags: Sequence[str] = ()
) -> CommandLine:
    """Parse the command line.

    Args:
        arguments: Arguments after the command.
        positional: Key of an argument without ``=``.
        own_flags: Options of the command itself, which are suggested for an unknown one.

    Raises:
        UnknownFlagError: There is an unknown option.
        ConfigurationError: An option has no effect, or the positional argument has two values.
    """
    arguments = [_with_home(argument) if argument.startswith("-") else argument for argument in arguments]
    options = _parse(arguments, own_flags)
    _refuse_without_effect(options)
    is_sweep = options.multirun or "hydra.mode=MULTIRUN" in options.overrides
    given = [_absolute(argument) for argument in options.overrides] if is_sweep else options.overrides
    overrides = [_rewritten(argument, positional) for argument in given]
    if any(override.startswith("resume=") for override in overrides):
        # The overrides are composed with the default data set and schedule, not with those of the run.
        overrides = [f"++{override}" if _RUN_KEY.match(override) else override for override in overrides]
    if positional is not None:
        _refuse_second_value(overrides, positional)
    return CommandLine(options, overrides, _flags(arguments, options.overrides))


def _parse(arguments: Sequence[str], own_flags: Sequence[str]) -> argparse.Namespace:
    parser = get_args_parser()
    flags = [flag for action in parser._actions for flag in action.option_strings]

    def refuse(message: str) -> None:
        for argument, next_argument in zip(arguments, [*arguments[1:], ""], strict=True):
            if argument.startswith("-") and argument.split("=")[0] not in flags:
                is_value = bool(next_argument) and "=" not in next_argument and not next_argument.startswith("--")
                raise UnknownFlagError(argument, next_argument if is_value else None, [*flags, *own_flags])
        raise ConfigurationError(message)

    parser.error = refuse  # type: ignore[method-assign, assignment]
    return parser.parse_intermixed_args(list(arguments))


def _refuse_without_effect(options: argparse.Namespace) -> None:
    if getattr(options, "experimental_rerun", None) is not None:
        raise ConfigurationError("--experimental-rerun would train in the old run's folder; use train resume=RUN")
    if options.resolve and not (options.cfg or options.help):
        raise ConfigurationError("--resolve goes with --cfg and --help")
    if options.run and options.multirun:
        raise ConfigurationError("only one of --run and --multirun may be given, got both")
    if options.config_path is not None:
        raise ConfigurationError("--config-path would hide genlab's own configuration; use --config-dir to add yours")


def _refuse_second_value(overrides: Sequence[str], key: str) -> None:
    """Refuse two values of the positional argument; for other keys Hydra takes the last one, which scripts rely on."""
    values = [override.partition("=")[2] for override in overrides if override.startswith(f"{key}=")]
    if len(set(values)) > 1:
        raise ConfigurationError(f"{key} is given twice on the command line: {' and '.join(values)}")


def _flags(arguments: Sequence[str], overrides: Sequence[str]) -> list[str]:
    """Return the arguments without the overrides, which must come first because --info would consume the next one."""
    remaining = list(arguments)
    for override in overrides:
        remaining.remove(override)
    return remaining


def _with_home(argument: str) -> str:
    """Return an argument with ``~`` at the head of its value expanded, which shells do not do and Hydra misreads."""
    key, _, value = argument.partition("=")
    if not _HOME.search(value):
        return argument
    name = key.lstrip("+~-")
    with suppress(ConfigurationError):  # one path, with commas or brackets in it
        if Path(whole := expanded(value, name)).exists():
            return f"{key}={whole}"
    if key.startswith("-"):
        return f"{key}={expanded(value, name)}"
    return f"{key}={_HOME.sub(lambda found: found['before'] + quoted(expanded(found['path'], name)), value)}"


def _absolute(argument: str) -> str:
    """Return an argument of a sweep with absolute paths, since the sweep may be resumed from another folder."""
    kept = _KEPT_PATH.fullmatch(argument)
    if kept is None:
        return argument
    paths = [kept["value"]] if Path(kept["value"]).exists() else kept["value"].split(",")
    if not all(Path(path).exists() for path in paths):
        return argument
    return f"{kept['key']}={','.join(str(absolute(path)) for path in paths)}"


def _rewritten(argument: str, positional: str | None) -> str:
    """Return an argument as the override that Hydra needs.

    A positional argument gets its key; ``~`` is expanded; the name of a run or a sweep becomes its folder; an existing
    path, or one that is a number, is quoted; and the node of a phase's optimiser is added if need be:
    ``optimizer.discriminator.lr=4e-4``.
    """
    if positional is not None and "=" not in argument:
        argument = f"{positional}={argument}"
    if argument == f"sweep.resume={LAST}" and not Path(LAST).exists():
        argument = f"sweep.resume={quoted(str(last_sweep()))}"
    argument = _with_home(argument)
    run = _RUN_NAME.fullmatch(argument)
    if run and (found := named_run(run["value"])) is not None:
        text = str(found)  # a text with a slash is no number and no null
        return f"{run['key']}={text if '/' in text and _UNQUOTED.fullmatch(text) else quoted(text)}"
    path = _PATH_KEY.fullmatch(argument)
    if path is not None:
        value = path["value"]
        if _NUMBER.fullmatch(value) or (not _UNQUOTED.fullmatch(value) and Path(value).exists()):
            return f"{path['key']}={quoted(value)}"
    return f"++{argument}" if _PHASE_KEY.match(argument) else argument
