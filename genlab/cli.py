"""``genlab <command> [key=value ...]``: finds the command and passes the remaining arguments to Hydra.

Nothing heavy is imported before a command is chosen, so that ``genlab --help`` and shell completion answer at once.
"""

import os
import shlex
import sys
import traceback
from collections.abc import Callable, Sequence
from contextlib import suppress
from importlib import import_module
from typing import Any

import genlab
from genlab.errors import ConfigurationError, StorageError
from genlab.launch.runtimes import keep_freed_memory, shorten_spin
from genlab.launch.streams import guarded_streams, outlive_readers
from genlab.launch.syntax import Flag, Syntax, expanded

DEBUG_VARIABLE = "GENLAB_DEBUG"
COMMANDS: dict[str, tuple[str, Syntax]] = {
    "train": (
        "train a model, or resume=RUN; -m sweeps, -v prints more, -q less",
        Syntax(
            flags={
                **dict.fromkeys(("-v", "--verbose"), Flag("hydra.verbose", suffix=None, default="genlab")),
                **dict.fromkeys(("-q", "--quiet"), Flag("hydra/job_logging", suffix=None, default="quiet")),
            }
        ),
    ),
    "sample": (
        "draw pictures from a trained run: run=RUN; format=png or npz",
        Syntax("run", second="out"),
    ),
    "evaluate": ("measure a trained run on test data: run=RUN", Syntax("run", second="out")),
    "compare": (
        "compare runs side by side: RUN...; --sort, --csv, --json, --html",
        Syntax(
            "runs",
            takes_several=True,
            flags={
                "--sort": Flag("sort"),
                "--csv": Flag("csv", suffix=".csv", default="-"),
                "--json": Flag("json", suffix=".json", default="-"),
                "--html": Flag("html", suffix=".html", default="comparison.html"),
            },
        ),
    ),
    "report": (
        "compare runs with published values: RUN...; --write FILE",
        Syntax("runs", takes_several=True, flags={"--write": Flag("write")}),
    ),
    "export": (
        "export a trained model with a model card: run=RUN",
        Syntax("run", second="out"),
    ),
    "pretrained": (
        "list the pretrained models, or make some: pretrained NAME...",
        Syntax("names", takes_several=True, flags={"--all": Flag("all", suffix=None, default="true")}),
    ),
    "schema": ("write JSON schemas, with which editors complete YAML: out=FOLDER", Syntax()),
    "runs": (
        "list the runs, newest first; runs rm RUN... deletes them",
        Syntax("runs", takes_several=True, flags={"--yes": Flag("sure", suffix=None, default="true")}),
    ),
    "models": ("list the models, or describe one: models NAME", Syntax("name")),
    "experiments": ("list the published results, or describe one: experiments NAME", Syntax("name")),
    "datasets": ("list the data sets, or inspect one: dataset=NAME", Syntax("dataset")),
    "check": ("test the invariants of a model, ours or yours: model=NAME", Syntax()),
    "doctor": ("show versions, devices, data found, disk; test the numerics", Syntax()),
    "board": ("start TensorBoard on a folder of runs, with all pictures", Syntax("folder")),
}
"""Command name to its description and the syntax of its arguments."""
_COMMANDS_ELSEWHERE = {
    **dict.fromkeys(("fit", "run", "start"), "train"),
    **dict.fromkeys(("resume", "continue", "restart"), "train resume=RUN"),
    **dict.fromkeys(("generate", "gen", "infer", "predict", "inference"), "sample run=RUN"),
    **dict.fromkeys(("eval", "test", "val", "validate"), "evaluate run=RUN"),
    **dict.fromkeys(("tensorboard", "tb"), "board"),
    "sweep": "train -m",
}
_HELP = ("-h", "--help", "help")
_VERSION = ("-V", "--version")
_COMPLETION_FLAGS = ("-sc", "--shell-completion")
_FLAGS = ("--help", "--multirun", "--config-dir", "--cfg")
_NAMED_GROUPS = {"models": "model", "experiments": "experiment", "datasets": "dataset"}
"""Command to the config group whose options it takes without a key."""
_RUN_KEYS = ("run", "runs", "resume", "init_from")


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command.

    Args:
        arguments: The command line without the program's name; ``sys.argv`` when None.

    Returns:
        The exit code: 0 done, 1 a bug, 2 configuration, 3 data, 4 checkpoint, 5 non-finite, 6 memory, 7 disk or
        permission, 8 folder in use, 9 a sweep had failures, 128 + n stopped by signal n.
    """
    given = list(sys.argv[1:] if arguments is None else arguments)
    shorten_spin()
    keep_freed_memory()
    with guarded_streams():
        try:
            code = _dispatch(given)
            sys.stdout.flush()
            return code
        except SystemExit as stop:
            return stop.code if isinstance(stop.code, int) else int(stop.code is not None)
        except BaseException as error:
            return _report(error)


class Job:
    """The callable that Hydra runs for every job of a command; it can be pickled for the workers of a launcher."""

    def __init__(self, command: str) -> None:
        self.command = command

    def __call__(self, configuration: Any) -> None:
        """Run the command on a composed configuration."""
        from genlab.launch.command import run_job

        run_job(self.module, configuration)

    def module(self) -> Any:
        """Return the module of the command, with its ``read`` and ``run``; importing it may import torch."""
        return import_module("genlab.train" if self.command == "train" else f"genlab.commands.{self.command}")

    def __reduce__(self) -> tuple[Callable[[str], "Job"], tuple[str]]:
        return _job_in_worker, (self.command,)


def _job_in_worker(command: str) -> Job:
    """Unpickle a job in another process, and register the resolvers that its configuration needs."""
    from genlab.config.naming import register_resolvers

    register_resolvers()
    outlive_readers()
    return Job(command)


def _dispatch(arguments: list[str]) -> int:
    if not arguments or arguments[0] in _HELP:
        if arguments[1:] and arguments[1] in COMMANDS:
            return _dispatch([arguments[1], "--help"])
        print(_usage())
        return 0
    if arguments[0] == "version" or any(argument in _VERSION for argument in arguments):
        print(f"genlab {genlab.__version__}")
        return 0
    if sys.platform == "win32":
        raise ConfigurationError("genlab needs Linux, macOS or WSL 2 (it locks files by fcntl), got Windows")
    if arguments[0] in _COMPLETION_FLAGS:
        return _complete(arguments)
    command, *rest = arguments
    if command not in COMMANDS:
        raise ConfigurationError(f"there is no command '{command}'; {_suggestion(arguments)}")
    from genlab.launch.command import launch

    syntax = COMMANDS[command][1]
    line = expanded(rest, syntax)
    launch(command, line, job=Job(command), positional=syntax.positional, own_flags=tuple(syntax.flags))
    return 0


def _suggestion(arguments: Sequence[str]) -> str:
    """Return the command that was probably meant by arguments without a valid one."""
    from genlab.config.location import config_directory
    from genlab.config.suggestions import suggestion

    first = arguments[0]
    if first.casefold() in (path.stem for path in (config_directory() / "model").glob("*.yaml")):
        return f"did you mean 'genlab train model={first.casefold()}'?"
    if first in _COMMANDS_ELSEWHERE:
        return f"did you mean 'genlab {_COMMANDS_ELSEWHERE[first]}'?"
    if "=" in first or first.startswith("-"):
        return f"did you mean '{shlex.join(['genlab', 'train', *arguments])}'?"
    return suggestion(first, COMMANDS, kind="commands")


def _usage() -> str:
    width = max(map(len, COMMANDS))
    commands = "\n".join(f"  {name:<{width}}  {text}" for name, (text, _) in COMMANDS.items())
    return f"""genlab {genlab.__version__}: classic image generative models

usage: genlab <command> [group=choice ...] [key=value ...] [options of Hydra]

{commands}

first steps:
  genlab sample run=digits_draw            seconds: an included model
  genlab train model=draw                  minutes on two CPU cores, no download
  genlab train model=draw trainer=smoke    seconds
  genlab train --help                      every key with its meaning
  genlab train -m model=draw seed=0,1,2    a sweep
  eval "$(genlab -sc install=bash)"        completion (docs/platforms.md)

Exit codes: 2 configuration, 3 data, 4 checkpoint, 5 non-finite, 6 memory,
7 disk, 8 folder in use, 9 sweep had failures.
{DEBUG_VARIABLE}=1 shows tracebacks."""


def _complete(arguments: list[str]) -> int:
    """Complete commands, flags and names of models and runs; Hydra, which takes longer, groups, keys and values.

    The shell calls ``genlab -sc query=bash`` with the command line typed so far in COMP_LINE.
    """
    from genlab.config.catalogue import files_of
    from genlab.config.location import config_directory

    if not any(argument.startswith("query=") for argument in arguments):
        _complete_by_hydra("train", arguments)
        return 0
    line = os.environ.get("COMP_LINE", "")
    typed = line.split()[1:]
    last = "" if line.endswith(" ") or not typed else typed.pop()
    if not typed or typed[0] not in COMMANDS:
        own = [] if typed else [name for name in COMMANDS if name.startswith(last)]
        print("\n".join(own))
        return 0
    command, *words = typed
    if last.startswith("-"):
        print("\n".join(flag for flag in (*COMMANDS[command][1].flags, *_FLAGS) if flag.startswith(last)))
        return 0
    options = files_of(_NAMED_GROUPS[command], [config_directory()]) if last and command in _NAMED_GROUPS else ()
    if names := [name for name in options if name.startswith(last)] or _completed_runs(command, last):
        print("\n".join(names))
        return 0
    # Hydra completes the line of a program without commands, positional arguments and flags of their own.
    settings = [word for word in words if word.startswith("~") or ("=" in word and not word.startswith("-"))]
    os.environ["COMP_LINE"] = " ".join(("genlab", *settings, last))
    try:
        with suppress(Exception):  # what is typed so far need not be valid
            _complete_by_hydra(command, arguments)
    finally:
        os.environ["COMP_LINE"] = line
    return 0


def _complete_by_hydra(command: str, arguments: list[str]) -> None:
    from genlab.launch.command import run_hydra

    run_hydra(command, arguments, job=Job(command))


def _completed_runs(command: str, last: str) -> list[str]:
    """Return the runs for ``run=BEGINNING``, or for the beginning of a positional argument that names a run."""
    key, equals, beginning = last.rpartition("=")
    positional = COMMANDS[command][1].positional
    if not last or (key not in _RUN_KEYS if equals else positional not in _RUN_KEYS):
        return []
    from genlab.run.names import names_beginning_with

    names: list[str] = []
    with suppress(Exception):  # a folder that cannot be read
        names = names_beginning_with(beginning)
    return [key + equals + name for name in names]


def _report(error: BaseException) -> int:
    from genlab.launch.failures import ERROR_PREFIX, explain, prefix_of
    from genlab.launch.worker import this_worker
    from genlab.terminal import painted

    message, code = explain(error)
    worker = this_worker()
    if os.environ.get(DEBUG_VARIABLE) == "1":
        traceback.print_exception(error)
    with suppress(SystemExit, StorageError):  # nobody reads it
        sys.stdout.flush()
    if worker is None or worker.reports(error):
        prefix = prefix_of(error)
        shown = painted(prefix, "red", is_terminal=sys.stderr.isatty()) if prefix == ERROR_PREFIX else prefix
        print(f"{shown}{message}", file=sys.stderr)
    if worker is not None:
        worker.write_report(error, message, code)
    return code
