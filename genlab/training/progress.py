"""What a person sees while a run goes on: a bar on a terminal, plain lines elsewhere."""

import logging
import sys
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from types import TracebackType

from tqdm import tqdm

from genlab.collectives import is_first

_log = logging.getLogger(__name__)

# Between plain lines; a log file should tell the story of a night in pages, not in megabytes.
SECONDS_BETWEEN_LINES = 15.0


class Progress:
    """Step, epoch, time left, images per second and the main measures.

    Args:
        total: Steps of the run.
        start: The step it goes on from.
        steps_per_epoch: Steps in which every training image comes once.
    """

    def __init__(self, *, total: int, start: int, steps_per_epoch: float) -> None:
        self._on_terminal = sys.stderr.isatty() and is_first()
        self._bar = tqdm(total=total, initial=start, disable=not self._on_terminal, unit="step", dynamic_ncols=True)
        self._total = total
        self._steps_per_epoch = steps_per_epoch
        self._start = start
        self._started = time.monotonic()
        self._last_line = -float("inf")
        self._shown: dict[str, str] = {}
        self._unsaid = ""  # the newest line that came too soon after another; the last one is told at the end

    def advance(self) -> None:
        self._bar.update()

    def show(self, step: int, values: Mapping[str, float]) -> None:
        """Take over the newest values by tag; tell them now on a terminal, at most every few seconds elsewhere."""
        for tag, value in values.items():
            kind, _, name = tag.partition("/")
            if tag == "speed/images_per_second":
                self._shown["images/s"] = f"{value:,.0f}"
            elif kind == "validation" or (kind == "train" and not name.endswith(("learning_rate", "gradient_norm"))):
                short = name.rpartition("/")[2]
                self._shown[f"{kind} {short}" if kind == "validation" else name.replace("model/", "")] = f"{value:.4g}"
        epoch = f"{step / self._steps_per_epoch:.1f}"
        if self._on_terminal:
            self._bar.set_postfix({"epoch": epoch} | self._shown, refresh=False)
            return
        numbers = ", ".join(f"{name} {text}" for name, text in self._shown.items())
        line = f"step {step} of {self._total} (epoch {epoch}), {self._time_left(step)} left, {numbers}"
        now = time.monotonic()
        if now - self._last_line < SECONDS_BETWEEN_LINES:
            self._unsaid = line
            return
        self._last_line = now
        self._unsaid = ""
        _log.info("%s", line)

    def _time_left(self, step: int) -> str:
        done = max(step - self._start, 1)
        seconds = (time.monotonic() - self._started) / done * (self._total - step)
        return tqdm.format_interval(seconds)

    def __enter__(self) -> "Progress":
        return self

    def __exit__(self, *_: type[BaseException] | BaseException | TracebackType | None) -> None:
        self._bar.close()
        if self._unsaid:
            _log.info("%s", self._unsaid)


class Speedometer:
    """Steps per second of training alone, since the last restart.

    Args:
        step: Where it starts.
    """

    def __init__(self, step: int) -> None:
        self.restart(step)

    def restart(self, step: int) -> None:
        """Count from this step on."""
        self._start, self._step = time.monotonic(), step

    def read(self, step: int) -> float:
        """Steps per second up to this step."""
        return (step - self._step) / max(time.monotonic() - self._start, 1e-9)

    @contextmanager
    def paused(self) -> Iterator[None]:
        """Leave out what happens meanwhile."""
        pause = time.monotonic()
        yield
        self._start += time.monotonic() - pause
