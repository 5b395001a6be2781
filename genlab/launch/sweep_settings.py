"""The `sweep` node of configs/train.yaml: settings of the comparison of runs, not part of a run's configuration."""

from dataclasses import dataclass
from typing import Any

from omegaconf import OmegaConf

from genlab.config.compose import SWEEP_NODE
from genlab.config.fields import check_fields


@dataclass(frozen=True, kw_only=True)
class SweepSettings:
    """Settings of the comparison of a sweep's runs.

    Raises:
        ValueError: The measure is not named like a tag.
    """

    measure: str | None
    """Tag of the number that chooses the best run, as ``test/nll_nats``; None takes what each run selects its best
    checkpoint by."""
    minimize: bool | None
    """True if lower values are better; None takes the direction that the measure declares."""
    resume: str | None
    """Folder of a sweep to resume."""

    def __post_init__(self) -> None:
        if self.measure is not None and "/" not in self.measure:
            raise ValueError(f"sweep.measure must be a tag such as validation/nll_nats, got {self.measure}")


def settings_of(configuration: Any) -> SweepSettings | None:
    """Return the checked `sweep` node of a composed configuration; None for a command without one.

    Raises:
        ConfigurationError: A key or a value does not fit.
    """
    node = configuration.get(SWEEP_NODE)
    if node is None:
        return None
    values: Any = OmegaConf.to_container(node, resolve=True)
    return check_fields(SweepSettings, values, SWEEP_NODE)
