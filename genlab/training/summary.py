"""The status of a run, kept in summary.json."""

from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Literal

from genlab.measures import Measure
from genlab.storage import json_bytes, replace_atomically

Status = Literal["running", "finished", "interrupted", "failed", "diverged"]


@dataclass(kw_only=True)
class Summary:
    """The status of a run; written to summary.json at its start, at each checkpoint and at its end."""

    status: Status = "running"
    reason: str | None = None
    step: int = 0
    saved_step: int = 0
    """Step of the newest checkpoint; 0 before the first."""
    images_seen: int = 0
    epochs: float = 0.0
    seconds: float = 0.0
    """Time of training over all starts of the run, validation and pictures included."""
    num_parameters: int = 0
    selected_by: str | None = None
    """Tag of the measure that chooses the best checkpoint, of the model or of an observer; null if none does."""
    measures: dict[str, Measure] = field(default_factory=dict)
    """Declarations of measures, those of the model by name, others by tag; a missing one is not declared."""
    final: dict[str, float] = field(default_factory=dict)
    best: dict[str, float] = field(default_factory=dict)
    test: dict[str, float] = field(default_factory=dict)
    num_skipped_steps: int = 0
    collapse: dict[str, Any] | None = None
    """Report of the watch for collapse (:meth:`genlab.training.collapse.CollapseWatch.report`); null if it is off."""

    def write(self, path: Path) -> None:
        """Write atomically; a value that is not finite becomes null, as JSON has no NaN."""
        replace_atomically(path, json_bytes(asdict(self)))


@dataclass(frozen=True)
class StopReason:
    """The reason for the end of training before ``num_steps``."""

    text: str
    is_final: bool = False
    """True if the run should not be resumed, as after early stopping."""

    def __str__(self) -> str:
        return self.text
