"""What a configuration must not ask of Hydra: to run code, or to copy the environment into files.

Nodes of our own groups are checked where they are built; this is about Hydra's node, of which Hydra builds
callbacks and logging handlers by itself before the job starts.
"""

from collections.abc import Iterator
from typing import Any

from omegaconf import OmegaConf

from genlab.composition.composer import Composed
from genlab.errors import ConfigurationError

_LOGGING_CLASSES = {
    "logging.StreamHandler",
    "logging.FileHandler",
    "logging.NullHandler",
    "logging.handlers.RotatingFileHandler",
    "logging.Formatter",
    "colorlog.ColoredFormatter",
}


def require_safe(configuration: Composed) -> None:
    """Check the ``hydra`` node of a composed configuration.

    Raises:
        ConfigurationError: It would run code or set environment variables.
    """
    hydra = configuration.hydra
    if hydra.get("callbacks"):
        names = ", ".join(map(str, hydra.callbacks))
        raise ConfigurationError(f"hydra.callbacks must be empty, for they run code, got {names}")
    if hydra.job.get("env_set"):
        names = ", ".join(map(str, hydra.job.env_set))
        raise ConfigurationError(f"hydra.job.env_set must be empty, got {names}; set variables in the shell")
    for name in ("job_logging", "hydra_logging"):
        node = hydra.get(name)
        if node is not None:
            _require_plain_logging(OmegaConf.to_container(node, resolve=False), f"hydra.{name}")


def _require_plain_logging(node: Any, key: str) -> None:
    for name, value, full_key in _entries(node, key):
        if name in ("class", "()") and value not in _LOGGING_CLASSES:
            raise ConfigurationError(f"{full_key} must be one of {', '.join(sorted(_LOGGING_CLASSES))}, got {value}")
        if (
            isinstance(value, str)
            and value.startswith("ext://")
            and value
            not in (
                "ext://sys.stdout",
                "ext://sys.stderr",
            )
        ):
            raise ConfigurationError(f"{full_key} must be ext://sys.stdout or ext://sys.stderr, got {value}")


def _entries(node: Any, key: str) -> Iterator[tuple[str, Any, str]]:
    if isinstance(node, dict):
        for name, value in node.items():
            yield str(name), value, f"{key}.{name}"
            yield from _entries(value, f"{key}.{name}")
    elif isinstance(node, list):
        for index, value in enumerate(node):
            yield from _entries(value, f"{key}[{index}]")
