"""Warning of a run that has become far slower, for example beside another program on the same cores."""

import logging

import torch

from genlab.training.observer import Observer
from genlab.training.run import TrainingRun

_log = logging.getLogger(__name__)

_FIRST_SECONDS = 120.0
"""Length of the beginning, whose fastest window is the reference; compilation makes the first window slow."""
_WINDOW_SECONDS = 20.0
_FACTOR = 3.0


def hint_for(device: torch.device) -> str:
    """Return the hint for a device: on a CPU, a smaller number of threads."""
    if device.type != "cpu" or torch.get_num_threads() == 1:
        return ""
    return "; num_threads=1 is less affected: stop, then genlab train resume=RUN num_threads=1"


class SlowdownWatch(Observer):
    """Observer that compares the speed of training with that of its first minutes, and warns once."""

    def __init__(self, run: TrainingRun, *, interval: int) -> None:
        super().__init__(run, interval=interval)
        self._fastest = 0.0  # steps a second
        self._seconds = 0.0
        self._window_steps = 0
        self._window_seconds = 0.0
        self._has_warned = False

    def observe(self, step: int) -> None:
        self.add(*self.run.speedometer.read(step))

    def add(self, steps: int, seconds: float) -> None:
        """Count steps and their time, without pauses."""
        self._window_steps += steps
        self._window_seconds += seconds
        if self._window_seconds < _WINDOW_SECONDS:
            return
        speed = self._window_steps / self._window_seconds
        if self._seconds < _FIRST_SECONDS:
            self._fastest = max(self._fastest, speed)
        self._seconds += self._window_seconds
        self._window_steps, self._window_seconds = 0, 0.0
        if speed * _FACTOR < self._fastest and not self._has_warned:
            self._has_warned = True
            _log.warning(
                "a step takes %.1f times as long as in the first minutes: other programs may be using its cores%s",
                self._fastest / speed,
                hint_for(self.run.device),
            )
