"""The settings that a resumption may change, and the length of a run, which has two keys."""

import os
from collections.abc import Mapping, Sequence
from typing import Any

from genlab.config.build import TARGET
from genlab.config.compose import parse_overrides
from genlab.config.schema import RunConfiguration, read_run_configuration
from genlab.config.suggestions import cannot_change
from genlab.errors import ConfigurationError
from genlab.parallel.place import LAUNCHER_VARIABLE, this_place
from genlab.run.names import is_export
from genlab.run.record import ROOT_KEY, SavedRun
from genlab.training import schedules

LENGTHS = ("trainer.num_steps", "trainer.num_epochs")


def with_one_length(values: Mapping[str, Any], overrides: Sequence[str]) -> Mapping[str, Any]:
    """Return a composed configuration without ``trainer.num_epochs`` if the command line gives the length in steps.

    Args:
        values: Plain data.
        overrides: The command line.

    Raises:
        ConfigurationError: The command line gives both.
    """
    given = {
        override.key_or_group: value
        for override in parse_overrides(overrides)
        if override.key_or_group in LENGTHS and (value := override.value()) is not None
    }
    if len(given) > 1:
        got = " and ".join(f"{key}={value}" for key, value in given.items())
        raise ConfigurationError(f"only one of {' and '.join(LENGTHS)} may be given, got {got}; the other is derived")
    node = values.get("trainer")
    if LENGTHS[0] in given and isinstance(node, Mapping):
        return {**values, "trainer": {**node, "num_epochs": None}}
    return values


def resumed(run: SavedRun, overrides: Sequence[str]) -> RunConfiguration:
    """Return a run's own configuration with the settings that a resumption may change.

    These are ``trainer.*``, ``quality.*``, ``device`` and ``num_threads``, the numbers of a schedule of ours, where the
    data lie, and which of the run's loggers this start opens.

    The number of processes belongs to a start and not to a run: with torchrun it is torchrun's, not that of an earlier
    command line.

    Args:
        run: The run to resume.
        overrides: The command line, without Hydra's own keys.

    Raises:
        ConfigurationError: An override is of something else, or does not fit.
    """
    if is_export(run.folder):
        raise ConfigurationError(f"resume must be a training run, got {run.folder}, an export, which cannot be resumed")
    saved = run.configuration
    names = ("dataset", "schedule", "trainer", *(("quality",) if saved.quality is not None else ()))
    nodes = {name: dict(getattr(saved, name)) for name in names}
    nodes["trainer"]["num_epochs"] = None  # derived; the steps count where the size of a batch changes
    values = {**saved.as_dict(), **nodes, "resume": str(run.folder)}
    if this_place() is not None and LAUNCHER_VARIABLE not in os.environ:
        values["trainer"]["devices"] = 1
    with_one_length(values, overrides)
    changed = set()
    for override in parse_overrides(overrides):
        key = override.key_or_group
        parent, _, name = key.rpartition(".")
        if key == "resume":
            continue
        if key == "logger":
            values[key] = _chosen_loggers(override.value(), saved.logger)
            continue
        if override.is_delete() or override.is_sweep_override() or not _may_change(key, saved):
            raise ConfigurationError(cannot_change(key))
        (values[parent] if parent else values)[name] = override.value()
        changed.add(key)
    if values["trainer"]["dry_run"] and not saved.trainer["dry_run"]:
        raise ConfigurationError("trainer.dry_run must be left out with resume: a resumed run keeps its checkpoints")
    was, wanted = saved.trainer["ema_decay"], values["trainer"]["ema_decay"]
    if (was is None) != (wanted is None):
        raise ConfigurationError(
            f"trainer.ema_decay cannot be switched {'on' if was is None else 'off'} on resume (this run has "
            f"{'null' if was is None else was}); leave it out, or begin a new run with init_from={run.folder}"
        )
    if values["trainer"].get("devices") == 1 and "trainer.max_restarts" not in changed:
        values["trainer"]["max_restarts"] = 0  # with one process there is no other to notice its death
    return read_run_configuration(values, is_trusted=False).changed(saved_run=run)


def _chosen_loggers(names: Any, saved: Mapping[str, Any]) -> dict[str, Any]:
    """Return the loggers of a run that a resumption opens.

    Raises:
        ConfigurationError: Others are named, whose settings the run does not hold.
    """
    chosen = names if isinstance(names, list) else [names]
    if not all(name in saved for name in chosen):
        own = ", ".join(saved) or "there are none"
        raise ConfigurationError(f"logger must name some of the run's own with resume: {own}, got {names}")
    return {name: saved[name] for name in chosen}


def _may_change(key: str, saved: RunConfiguration) -> bool:
    """Return True if a resumed run may change a setting. A schedule of torch keeps its numbers in its state."""
    parent, _, name = key.rpartition(".")
    if parent == "schedule":
        return name != TARGET and str(saved.schedule[TARGET]).startswith(f"{schedules.__name__}.")
    if parent == "quality":
        return saved.quality is not None
    return parent == "trainer" or key in ("device", "num_threads", "allow_other_data", ROOT_KEY)
