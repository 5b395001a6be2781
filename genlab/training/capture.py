"""The updates of a step as CUDA graphs: a few eager steps, then one recording of each phase, then replays.

A replay repeats the update with the same random numbers: the same step bit by bit if its kernels are deterministic.
"""

import logging
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Literal

import torch
from torch import Tensor

from genlab.errors import ConfigurationError
from genlab.graphs import CudaGraphs
from genlab.types import Batch

_log = logging.getLogger(__name__)

CudaGraph = Literal["auto"] | bool

Work = Callable[[Batch, Sequence[object]], tuple[dict[str, Tensor], list[object]]]
"""A function from a batch and the objects of the previous phase to the metrics and the objects for the next phase."""

WARM_UP_STEPS = 3
"""Training steps before the recording: the optimisers make their state, libraries their workspaces, compilers their
kernels."""


class StepCapture:
    """The state that the phases of one run share when they are recorded.

    Args:
        graphs: The recorder.
        is_required: True if a phase that cannot be recorded is an error.
    """

    def __init__(self, graphs: CudaGraphs, *, is_required: bool) -> None:
        self.graphs = graphs
        self._is_required = is_required
        self._num_steps = 0

    @property
    def is_warming_up(self) -> bool:
        return self._num_steps <= WARM_UP_STEPS

    @property
    def is_last_warm_up(self) -> bool:
        return self._num_steps == WARM_UP_STEPS

    def begin_step(self) -> None:
        """Count a training step; all phases are recorded in the same one, in their order."""
        self._num_steps += 1

    def refuse(self, what: str, reason: str) -> None:
        """Log once the reason for which updates are not captured.

        Raises:
            ConfigurationError: The user asked for the recording.
        """
        if self._is_required:
            raise ConfigurationError(
                f"trainer.cuda_graph must be auto or false here, got true: {what} cannot be captured: {reason}"
            )
        _log.info("trainer.cuda_graph: %s is not captured, %s", what, reason)


def step_capture(setting: CudaGraph, device: torch.device, *, obstacle: str | None) -> StepCapture | None:
    """Return the capture of ``trainer.cuda_graph`` on this device; None without one.

    Args:
        setting: Of the user; ``auto`` captures wherever it is possible.
        device: Of the run.
        obstacle: Reason against any capture of this run.

    Raises:
        ConfigurationError: The user asked for what is not possible.
    """
    if setting is True and device.type != "cuda":
        raise ConfigurationError(f"trainer.cuda_graph must be auto or false on device {device.type}, got true")
    if setting is False or device.type != "cuda":
        return None
    capture = StepCapture(CudaGraphs(device), is_required=setting is True)
    if obstacle is not None:
        capture.refuse("the step", obstacle)
        return None
    return capture


class CapturedWork:
    """The work of one phase, recorded after the warm-up and replayed from then on.

    Args:
        work: Neither reads a value on the host nor depends on one that changes.
        name: Of the phase.
        capture: Shared with the other phases.
        receives: True if it takes the objects that the previous phase hands on.
        source: The phase before, if there is one and it may be recorded.
    """

    def __init__(
        self, work: Work, *, name: str, capture: StepCapture, receives: bool, source: "CapturedWork | None"
    ) -> None:
        self._work = work
        self._name = name
        self._capture = capture
        self._receives = receives
        self._source = source
        self._receiver: CapturedWork | None = None
        if receives and source is not None:
            source._receiver = self
        self._is_refused = False
        self._replay: Callable[[], None] | None = None
        self._batch: Batch
        self._metric_names: list[str] = []
        self._metrics: Tensor
        self._handed_on: list[object] = []

    @property
    def is_captured(self) -> bool:
        return self._replay is not None

    def __call__(self, batch: Batch, received: Sequence[object]) -> tuple[dict[str, Tensor], list[object]]:
        if self._replay is not None:
            self._batch.images.copy_(batch.images)
            self._batch.labels.copy_(batch.labels)
        elif self._capture.is_warming_up and not self._is_refused:
            return self._warm_up(batch, received)
        elif self._is_refused or not self._record(batch, received):
            return self._work(batch, received)
        assert self._replay is not None
        self._replay()
        # One copy for all: the next replay overwrites them.
        return dict(zip(self._metric_names, self._metrics.clone().unbind(), strict=True)), self._handed_on

    def _warm_up(self, batch: Batch, received: Sequence[object]) -> tuple[dict[str, Tensor], list[object]]:
        graphs = self._capture.graphs
        if not self._capture.is_last_warm_up:
            return graphs.warm_up(lambda: self._work(batch, received))
        result, wait = graphs.find_wait(lambda: self._work(batch, received))
        if wait is not None:
            self.refuse(wait)
        return result

    def _record(self, batch: Batch, received: Sequence[object]) -> bool:
        if self._receives and not (self._source is not None and self._source.is_captured):
            self.refuse("the phase before, whose graph it continues, is not")
            return False
        if self._receiver is not None and self._receiver._is_refused:
            self.refuse("the phase after, which continues its graph, is not")
            return False
        self._batch = replace(batch, images=batch.images.clone(), labels=batch.labels.clone())

        def work() -> tuple[Mapping[str, Tensor], Tensor, list[object]]:
            metrics, handed_on = self._work(self._batch, received)
            return metrics, torch.stack(list(metrics.values())), handed_on

        try:
            (metrics, self._metrics, self._handed_on), replay = self._capture.graphs.record(work)
        except RuntimeError as error:
            reason = str(error).partition("\n")[0]
            if self._receives:  # a graph that is recorded cannot be continued by a step that is not
                raise ConfigurationError(
                    f"trainer.cuda_graph must be false here: phase {self._name} continues a captured graph, and cannot "
                    f"be captured itself: {reason}"
                ) from error
            self.refuse(reason)
            return False
        self._metric_names = list(metrics)
        self._replay = replay
        return True

    def refuse(self, reason: str) -> None:
        """Run the work as written from now on.

        Raises:
            ConfigurationError: The user asked for its capture.
        """
        self._is_refused = True
        self._capture.refuse(f"phase {self._name}", reason)
