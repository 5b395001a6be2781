"""What a configuration must not ask of Hydra: to run code, to write where it likes, or to copy the environment.

Nodes of our own groups are checked where they are built; this is about Hydra's node, of which Hydra builds callbacks,
logging handlers, a launcher and a sweeper by itself. What is looked at is what is written, not what it resolves to: an
interpolation can be one thing here and another in a job, so in the places that matter only those of our own files may
stand.
"""

import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from hydra._internal.core_plugins.basic_launcher import BasicLauncher
from hydra._internal.core_plugins.basic_sweeper import BasicSweeper
from hydra.core.override_parser.types import Override
from omegaconf import OmegaConf

from genlab.config.build import TARGET
from genlab.config.compose import Composed
from genlab.errors import ConfigurationError

BASIC_SWEEPER = f"{BasicSweeper.__module__}.{BasicSweeper.__name__}"
TPE_SWEEPER = "hydra_plugins.genlab_tpe.sweeper.TPESweeper"
_PLUGINS = {
    "launcher": (
        f"{BasicLauncher.__module__}.{BasicLauncher.__name__}",
        "hydra_plugins.hydra_joblib_launcher.joblib_launcher.JoblibLauncher",
        "hydra_plugins.hydra_submitit_launcher.submitit_launcher.LocalLauncher",
        "hydra_plugins.hydra_submitit_launcher.submitit_launcher.SlurmLauncher",
    ),
    "sweeper": (BASIC_SWEEPER, TPE_SWEEPER),
}
# submitit hands lines to a shell, and options that name programs to SLURM.
_SHELL_KEYS = ("setup", "srun_args", "additional_parameters", "python")
# submitit unpickles what it finds in its folder, which must be one that nobody can have prepared.
_SHIPPED = {
    "hydra.launcher.submitit_folder": "${hydra.sweep.dir}/.submitit/${genlab.nonce:}/%j",
    "hydra.launcher.name": "${hydra.job.name}",
    "hydra.output_subdir": "${genlab.output_subdir:${resume}}",
}
_SEARCH_SPACE = "hydra.sweeper.params"
# joblib evaluates this text as an expression.
_PRE_DISPATCH = re.compile(r"all|([1-9]\d* ?\* ?)?n_jobs|[1-9]\d*")
_PLAIN_NAME = re.compile(r"\w[\w.-]*|\.hydra", re.ASCII)
_LOG_FILE = re.compile(r"\$\{hydra\.runtime\.output_dir\}/(\$\{hydra\.job\.name\}|\w[\w.-]*)\.log", re.ASCII)
_LOGGING_CLASSES = {
    "logging.StreamHandler",
    "logging.FileHandler",
    "logging.NullHandler",
    "logging.handlers.RotatingFileHandler",
    "logging.Formatter",
    "colorlog.ColoredFormatter",
}
_STREAMS = ("ext://sys.stdout", "ext://sys.stderr")
_REFERENCE = re.compile(r"[a-z]+://")


def require_safe(configuration: Composed, words: Sequence[str]) -> None:
    """Check the ``hydra`` node of a composed configuration.

    Args:
        configuration: With its ``hydra`` node.
        words: The overrides that it was composed with.

    Raises:
        ConfigurationError: It would run code, write outside of the run folder or set environment variables.
    """
    hydra: Any = OmegaConf.to_container(configuration.hydra, resolve=False)
    _require_empty(hydra.get("callbacks"), "hydra.callbacks", "they run code")
    job = _mapping(hydra.get("job"), "hydra.job")
    _require_empty(job.get("env_set"), "hydra.job.env_set", "variables are set in the shell")
    _require_plain_name(job.get("name"), "hydra.job.name")
    if job.get("chdir") not in (False, None):
        raise ConfigurationError(
            f"hydra.job.chdir must be false, for paths are relative to the working directory, got {job['chdir']}; "
            "hydra.run.dir chooses the run folder"
        )
    if hydra.get("output_subdir") is not None:
        _require_plain_name(hydra["output_subdir"], "hydra.output_subdir")
    if "${" in str(hydra.get("mode")):
        raise ConfigurationError(f"hydra.mode must be RUN or MULTIRUN, got {hydra['mode']!r}")
    if unknown := set(_mapping(hydra.get("sweep"), "hydra.sweep")) - {"dir", "subdir"}:
        raise ConfigurationError(f"hydra.sweep has the keys dir and subdir, got {', '.join(map(repr, unknown))}")
    _require_overrides_of_line(_mapping(hydra.get("overrides"), "hydra.overrides"), words)
    for kind, targets in _PLUGINS.items():
        _require_plugin(_mapping(hydra.get(kind), f"hydra.{kind}"), f"hydra.{kind}", targets)
    for name in ("job_logging", "hydra_logging"):
        if hydra.get(name) is not None:
            _require_plain_logging(_mapping(hydra[name], f"hydra.{name}"), f"hydra.{name}")
    for name, value, key in _entries(hydra, "hydra"):
        if name == TARGET and key not in (f"hydra.{kind}.{TARGET}" for kind in _PLUGINS):
            raise ConfigurationError(f"{key} is refused, for it runs code, got {value!r}")


def require_unswept(overrides: Sequence[Override]) -> None:
    """Refuse to sweep over Hydra's own settings, which are checked once and hold for all jobs.

    Raises:
        ConfigurationError: One would differ between jobs.
    """
    for override in overrides:
        places = (override.key_or_group, override.package or "")
        if override.is_sweep_override() and any(re.match(r"hydra\b", place) for place in places):
            raise ConfigurationError(f"{override.input_line}: settings of hydra cannot be swept")


def parameters_of(configuration: Composed) -> list[str]:
    """The sweeper's own part of the search space, as overrides.

    Raises:
        ConfigurationError: It is about Hydra.
    """
    words = []
    for key, value in (configuration.hydra.sweeper.get("params") or {}).items():
        if not re.fullmatch(r"\+{0,2}(?!hydra\b)\w[\w./-]*", str(key)):
            raise ConfigurationError(f"{_SEARCH_SPACE} must name settings of a run, got {key!r}")
        words.append(f"{key}={value}")
    return words


def _require_overrides_of_line(overrides: Mapping[str, Any], words: Sequence[str]) -> None:
    """What stands there is taken by Hydra as if it had been typed, unseen by the checks of what was."""
    noted = [*overrides.get("hydra", ()), *overrides.get("task", ())]
    if sorted(noted) != sorted(words):
        added = next((word for word in noted if word not in words), noted)
        raise ConfigurationError(f"hydra.overrides cannot be set by a configuration, got {added!r}")


def _require_plugin(node: Mapping[str, Any], key: str, targets: Sequence[str]) -> None:
    target = node.get(TARGET)
    if target not in targets:
        raise ConfigurationError(f"{key}.{TARGET} must be one of {', '.join(targets)}, got {target!r}")
    for name in _SHELL_KEYS:
        _require_empty(node.get(name), f"{key}.{name}", "it runs programs; modules and SBATCH_... belong in the shell")
    for name, value, full_key in _entries(node, key):
        if full_key == f"{key}.{TARGET}" or (full_key in _SHIPPED and value == _SHIPPED[full_key]):
            continue
        is_of_search = full_key.startswith(_SEARCH_SPACE)
        if not is_of_search and (not re.fullmatch(r"[a-z]\w*", name, re.ASCII) or (value and _is_nested(value))):
            raise ConfigurationError(f"{full_key} is refused: settings of hydra are plain values, got {value!r}")
        if full_key == "hydra.launcher.submitit_folder":
            raise ConfigurationError(f"{full_key} must be {_SHIPPED[full_key]}, got {value!r}")
        if isinstance(value, str) and ("${" in value or not value.isprintable()):
            raise ConfigurationError(f"{full_key} must be a plain text, without ${{...}}, got {value!r}")
        if name == "pre_dispatch" and not _PRE_DISPATCH.fullmatch(str(value)):
            raise ConfigurationError(f"{full_key} must be a positive number, n_jobs, 2*n_jobs or all, got {value!r}")


def _require_plain_logging(node: Mapping[str, Any], key: str) -> None:
    for name, value, full_key in _entries(node, key):
        if name in ("class", "()") and not (isinstance(value, str) and value in _LOGGING_CLASSES):
            raise ConfigurationError(f"{full_key} must be one of {', '.join(sorted(_LOGGING_CLASSES))}, got {value!r}")
        if name == ".":
            raise ConfigurationError(f"{full_key} is refused, for it changes what was built, got {value!r}")
        if name == "filename" and not (isinstance(value, str) and _LOG_FILE.fullmatch(value)):
            raise ConfigurationError(f"{full_key} must be ${{hydra.runtime.output_dir}}/NAME.log, got {value!r}")
        if isinstance(value, str) and name != "filename" and "${" in value:
            raise ConfigurationError(f"{full_key} must be written out, without ${{...}}, got {value!r}")
        if isinstance(value, str) and _REFERENCE.match(value) and value not in _STREAMS:
            raise ConfigurationError(f"{full_key} must be {' or '.join(_STREAMS)}, got {value!r}")


def _require_empty(node: Any, key: str, reason: str) -> None:
    if node:
        named = ", ".join(map(str, node)) if isinstance(node, dict) else repr(node)
        raise ConfigurationError(f"{key} must be empty, for {reason}; got {named}")


def _require_plain_name(value: Any, key: str) -> None:
    if value != _SHIPPED.get(key) and not (isinstance(value, str) and _PLAIN_NAME.fullmatch(value)):
        raise ConfigurationError(f"{key} must be a plain name, got {value!r}")


def _mapping(node: Any, key: str) -> Mapping[str, Any]:
    """A node as written, which must not stand for another by an interpolation."""
    if not isinstance(node, dict):
        raise ConfigurationError(f"{key} must be written out as a mapping, got {node!r}")
    return node


def _is_nested(value: Any) -> bool:
    return isinstance(value, dict | list)


def _entries(node: Any, key: str) -> Iterator[tuple[str, Any, str]]:
    """Every value at any depth with its own name and its full key; members of a list go by the name of the list."""
    if isinstance(node, dict):
        for name, value in node.items():
            yield str(name), value, f"{key}.{name}"
            yield from _entries(value, f"{key}.{name}")
    elif isinstance(node, list):
        for index, value in enumerate(node):
            yield key.rpartition(".")[2], value, f"{key}[{index}]"
            yield from _entries(value, f"{key}[{index}]")
