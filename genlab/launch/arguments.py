"""A command's line as Hydra takes it: its options, and its overrides with what people leave out of them."""

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
from genlab.paths import absolute, expanded
from genlab.run.names import named_run

_PATH_NAMES = (
    *("resume", "init_from", "run", "folder", "out", "root", "cache", "path", "dir", "images"),
    *("classifier", "watch_classifier", "inception_weights", "write", "csv", "json", "html"),
)
_PATH_KEY = re.compile(rf"(?P<key>[+]{{0,2}}([\w.]+\.)?({'|'.join(_PATH_NAMES)}))=(?P<value>.+)", re.DOTALL)
_HOME = re.compile(r"(?P<before>^|[,(\[]\s*)(?P<path>~[^,()\[\]]*)")  # at the head of a value, or of one of several
_PHASE_KEY = re.compile(r"optimizer\.(?!default\b)\w+\.\w+=")
_RUN_KEY = re.compile(r"(dataset|schedule)\.\w+=")
_KEPT_KEYS = r"init_from|dataset\.(root|cache)|trainer\.watch_classifier|quality\.inception_weights"
_KEPT_PATH = re.compile(rf"(?P<key>[+]{{0,2}}({_KEPT_KEYS}))=(?P<value>.+)", re.DOTALL)
_RUN_NAME = re.compile(r"(?P<key>run|resume|init_from)=(?P<value>[\w./:=,+-]+)")
_UNQUOTED = re.compile(r"[\w./:-]+", re.ASCII)


class Line(NamedTuple):
    """The words after a command."""

    options: argparse.Namespace
    """As Hydra's own parser understands them."""
    overrides: list[str]
    flags: list[str]
    """Everything else, as it was typed."""


def read_line(words: Sequence[str], *, bare_word: str | None, own_flags: Sequence[str] = ()) -> Line:
    """Take a line apart.

    Args:
        words: The line after the command.
        bare_word: Key that a word without ``=`` stands for.
        own_flags: Options of the command itself, for the nearest to an unknown one.

    Raises:
        UnknownFlagError: It has an option that there is not.
        ConfigurationError: It has an option that Hydra cannot use so, or two values for what the command
            is about.
    """
    words = [_with_home(word) if word.startswith("-") else word for word in words]
    options = _parse(words, own_flags)
    _refuse_without_effect(options)
    given = [_absolute(word) for word in options.overrides] if options.multirun else options.overrides
    overrides = [_rewritten(word, bare_word) for word in given]
    if any(override.startswith("resume=") for override in overrides):
        # The line is composed with the data set and the schedule that are the default, not with those of the run.
        overrides = [f"++{override}" if _RUN_KEY.match(override) else override for override in overrides]
    if bare_word is not None:
        _refuse_second_value(overrides, bare_word)
    return Line(options, overrides, _flags(words, options.overrides))


def _parse(words: Sequence[str], own_flags: Sequence[str]) -> argparse.Namespace:
    parser = get_args_parser()
    flags = [flag for action in parser._actions for flag in action.option_strings]

    def refuse(message: str) -> None:
        for word, following in zip(words, [*words[1:], ""], strict=True):
            if word.startswith("-") and word.split("=")[0] not in flags:
                is_value = bool(following) and "=" not in following and not following.startswith("--")
                raise UnknownFlagError(word, following if is_value else None, [*flags, *own_flags])
        raise ConfigurationError(message)

    parser.error = refuse  # type: ignore[method-assign, assignment]
    return parser.parse_intermixed_args(list(words))


def _refuse_without_effect(options: argparse.Namespace) -> None:
    if getattr(options, "experimental_rerun", None) is not None:
        raise ConfigurationError("--experimental-rerun would train in the old run's folder; use train resume=RUN")
    if options.resolve and not (options.cfg or options.help):
        raise ConfigurationError("--resolve goes with --cfg and --help")
    if options.run and options.multirun:
        raise ConfigurationError("one of --run and --multirun must be given, got both")
    if options.config_path is not None:
        raise ConfigurationError("--config-path would hide genlab's own configuration; use --config-dir to add yours")


def _refuse_second_value(overrides: Sequence[str], key: str) -> None:
    """Of two values Hydra takes the last, which is what scripts that add settings count on, but hardly of two runs."""
    values = [override.partition("=")[2] for override in overrides if override.startswith(f"{key}=")]
    if len(set(values)) > 1:
        raise ConfigurationError(f"{key} is given twice on the line: {' and '.join(values)}")


def _flags(words: Sequence[str], overrides: Sequence[str]) -> list[str]:
    """The line without its overrides: they come first, for --info would swallow one that follows it."""
    remaining = list(words)
    for override in overrides:
        remaining.remove(override)
    return remaining


def _with_home(word: str) -> str:
    """A word with ``~`` at the head of its value expanded, which Hydra has another use for and shells leave alone."""
    key, _, value = word.partition("=")
    if not _HOME.search(value):
        return word
    name = key.lstrip("+~-")
    with suppress(ConfigurationError):  # one path, with commas or brackets in it
        if Path(whole := expanded(value, name)).exists():
            return f"{key}={whole}"
    if key.startswith("-"):
        return f"{key}={expanded(value, name)}"
    return f"{key}={_HOME.sub(lambda found: found['before'] + quoted(expanded(found['path'], name)), value)}"


def _absolute(word: str) -> str:
    """A word of a sweep, which may go on from another folder with jobs that have not begun, with absolute paths."""
    kept = _KEPT_PATH.fullmatch(word)
    if kept is None:
        return word
    paths = [kept["value"]] if Path(kept["value"]).exists() else kept["value"].split(",")
    if not all(Path(path).exists() for path in paths):
        return word
    return f"{kept['key']}={','.join(str(absolute(path)) for path in paths)}"


def _rewritten(word: str, bare_word: str | None) -> str:
    """An override as Hydra needs it.

    A bare word gets its key; ``~`` is expanded; the name of a run becomes its folder; an existing path is quoted,
    whatever is in its name; and a phase's optimiser, which is a node only once somebody sets it, is added:
    ``optimizer.discriminator.lr=4e-4``.
    """
    if bare_word is not None and "=" not in word:
        word = f"{bare_word}={word}"
    word = _with_home(word)
    run = _RUN_NAME.fullmatch(word)
    if run and (found := named_run(run["value"])) is not None:
        return f"{run['key']}={quoted(str(found))}"
    path = _PATH_KEY.fullmatch(word)
    if path and not _UNQUOTED.fullmatch(path["value"]) and Path(path["value"]).exists():
        return f"{path['key']}={quoted(path['value'])}"
    return f"++{word}" if _PHASE_KEY.match(word) else word
