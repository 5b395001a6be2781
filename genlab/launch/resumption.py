"""Resumption of a run in its own folder: its checkpoint, its origin, and its error messages."""

import logging
import shlex
from dataclasses import replace
from pathlib import Path

from genlab.config.schema import RunConfiguration
from genlab.errors import CheckpointError, ConfigurationError
from genlab.launch.contract import JobContext
from genlab.launch.worker import this_worker
from genlab.paths import from_here
from genlab.run.changes import LENGTHS
from genlab.run.environment import saved_commands
from genlab.run.folder import has_checkpoint, never_saved, read_summary, resume_command
from genlab.run.hyperparameters import Origin, read_origin

_OF_A_START = "logger"
"""The key whose value holds for one start, and not for later ones."""
_log = logging.getLogger(__name__)


def from_checkpoint(configuration: RunConfiguration, context: JobContext) -> RunConfiguration:
    """Return the configuration of a run that died: resumed from its checkpoint, or new if it never had one.

    Raises:
        ConfigurationError: It is asked to resume one folder in another.
        CheckpointError: It had a checkpoint.
    """
    folder, resume = context.run_folder, configuration.resume
    if resume is not None and not folder.samefile(resume):
        raise ConfigurationError(f"hydra.run.dir must be left out with resume={resume}, got {folder}")
    is_saved = has_checkpoint(folder)
    if context.is_restarted and (worker := this_worker()) is not None:
        place = "last checkpoint" if is_saved else "beginning"
        _log.warning("started again, from the %s: %s", place, worker.previous_failure())
    if is_saved:
        return configuration.changed(resume=str(folder))
    if not context.is_restarted:  # else the processes that died here have checked
        if not never_saved(folder):
            raise CheckpointError(
                f"no usable checkpoint: neither last.safetensors nor previous.safetensors is in "
                f"{folder / 'checkpoints'}, and nothing shows that there never was one; start a new run"
            )
        _log.warning("%s has no checkpoint yet: it begins anew, all but its logs replaced", from_here(folder))
    return configuration.changed(resume=None)


def origin_of(context: JobContext) -> Origin:
    """Return the choices and overrides of a run's first start, with the overrides of later ones and of this one."""
    here = Origin(choices=context.choices, overrides=context.overrides, folders=context.config_folders)
    if not any(argument.startswith("resume=") for argument in context.overrides) and not context.is_restarted:
        return here
    try:
        first = read_origin(context.run_folder)
        resumptions = [shlex.split(command) for command in saved_commands(context.run_folder)[1:]]
        later = [[argument for argument in arguments if "=" in argument] for arguments in resumptions]
    except (OSError, ValueError):  # a damaged record must not end a run
        return replace(here, choices={})
    newest: dict[str, str] = {}
    for overrides in (first.overrides, *later, here.overrides):
        given = {argument.partition("=")[0]: argument for argument in overrides}
        superseded = {_OF_A_START, *(LENGTHS if given.keys() & {*LENGTHS} else ())}
        newest = {key: argument for key, argument in newest.items() if key not in superseded} | given
    return replace(first, overrides=tuple(newest.values()))


def interruption(run_folder: Path) -> str:
    """Return the error message of a run that was interrupted before or after its steps."""
    if read_summary(run_folder).get("status") == "finished":
        return f"interrupted after the run had finished: {from_here(run_folder)}"
    if has_checkpoint(run_folder):
        return f"interrupted; to resume: {resume_command(run_folder)}"
    return "interrupted before anything was saved"
