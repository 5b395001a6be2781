"""The progress display of a run: two live lines on a terminal, plain lines elsewhere, one line per validation."""

import logging
import math
import os
import shutil
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from types import TracebackType

from tqdm import tqdm

from genlab.measures import OF_REAL_IMAGES
from genlab.parallel.collectives import is_first
from genlab.terminal import shows_progress

_log = logging.getLogger(__name__)

# Between plain lines; a log file should tell the story of a night in pages, not in megabytes.
SECONDS_BETWEEN_LINES = 15.0
_MIN_COLUMNS = 12
_SPEED = "speed/images_per_second"
_HIDDEN = ("learning_rate", "gradient_norm")
_REAL, _FAKE = "_real", "_fake"
_QUALITY = "quality/"
_SHORT = {
    "adversarial": "loss",
    "accuracy": "acc",
    "reconstruction": "rec",
    "information": "info",
    "categorical": "cat",
    "continuous": "cont",
    "upper": "",
    "nats": "",
    "per": "/",
    **dict.fromkeys(("distance", "classifier", "random", "network", "inception"), ""),
}


class Progress:
    """The step, the time left, images per second and the main measures of a run.

    Args:
        total: Steps of the run.
        start: The step from which the run resumes.
        steps_per_epoch: Steps in which every training image comes once.
        epochs_before: To be added where earlier steps had batches of another size.
    """

    def __init__(self, *, total: int, start: int, steps_per_epoch: float, epochs_before: float = 0.0) -> None:
        self._total = total
        self._start = start
        self._steps_per_epoch = steps_per_epoch
        self._epochs_before = epochs_before
        self._started = time.monotonic()
        self._last_line = -float("inf")
        self._pending: tuple[int, str, list[str]] | None = None  # came too soon after another
        self._quality: list[str] = []  # the newest, beside the measures of training
        self._is_live = is_first() and shows_progress() and _is_terminal()
        bar = "step {n_fmt}/{total_fmt} |{bar}| {remaining} left{postfix}"
        self._bar = tqdm(
            total=total, initial=start, bar_format=bar, leave=False, dynamic_ncols=True, disable=not self._is_live
        )
        self._measures = tqdm(position=1, bar_format="{desc}", leave=False, disable=not self._is_live)
        self._exits = ExitStack()

    def advance(self) -> None:
        """Count a step."""
        self._bar.update()

    def show(self, step: int, values: Mapping[str, float]) -> None:
        """Show the newest values by tag: measures of held-out images in a lasting line, others at a readable rate.

        Args:
            step: Of the values.
            values: All of training, or all of one look at held-out images.
        """
        speed = values.get(_SPEED)
        texts = short_texts({tag: values[tag] for tag in values if tag != _SPEED and not tag.endswith(_HIDDEN)})
        if speed is None:
            if not self._is_live and self._pending is not None and self._pending[0] == step:
                self._log_pending()
            first_tag = next(iter(values), "")
            if first_tag.startswith(_QUALITY):
                self._quality = texts[:1]
            _log.info("step %d, %s: %s", step, first_tag.partition("/")[0], ", ".join(texts))
            return
        epoch = f"epoch {self._epochs_before + step / self._steps_per_epoch:.1f}"
        self._bar.set_postfix_str(f"{epoch}, {speed:,.0f} images/s")
        self._measures.set_description_str(
            texts_that_fit([*self._quality, *texts], shutil.get_terminal_size().columns - 1)
        )
        line = f"step {step} of {self._total} ({epoch}), {self._time_left(step)} left, {speed:,.0f} images/s"
        self._pending = (step, line, texts)
        if not self._is_live and time.monotonic() - self._last_line >= SECONDS_BETWEEN_LINES:
            self._log_pending()

    def _log_pending(self) -> None:
        if self._pending is not None:
            _, line, texts = self._pending
            _log.info("%s: %s", line, ", ".join([*self._quality, *texts]))
            self._pending = None
            self._last_line = time.monotonic()

    def _time_left(self, step: int) -> str:
        done = max(step - self._start, 1)
        seconds = (time.monotonic() - self._started) / done * (self._total - step)
        return tqdm.format_interval(seconds)

    def __enter__(self) -> "Progress":
        if self._is_live:
            # In a notebook, where this is not reached, the import warns of missing widgets.
            from tqdm.contrib.logging import logging_redirect_tqdm

            self._exits.enter_context(logging_redirect_tqdm())  # lines of the log are written above the display
        return self

    def __exit__(self, *_: type[BaseException] | BaseException | TracebackType | None) -> None:
        self._measures.close()
        self._bar.close()
        self._exits.close()
        self._log_pending()


def short_texts(values: Mapping[str, float]) -> list[str]:
    """Return values under short names, the losses of all phases first: ``D loss 0.7``, ``score real/fake 1.3/-0.6``.

    Args:
        values: By tag: ``train/<phase>/<quantity>`` of all phases, or ``validation/<measure>``.
    """
    phases = list(dict.fromkeys(map(_phase, values)))
    losses = [next(tag for tag in values if _phase(tag) == phase) for phase in phases] if len(phases) > 1 else []
    texts = []
    for tag in [*losses, *(tag for tag in values if tag not in losses)]:
        quantity = tag.rpartition("/")[2]
        # A mean over batches without a label is no divergence, which would have ended the run.
        name, text = quantity, "unknown" if math.isnan(values[tag]) else f"{values[tag]:.4g}"
        if quantity.startswith(OF_REAL_IMAGES):
            continue
        if (real := tag.replace(_QUALITY, f"{_QUALITY}{OF_REAL_IMAGES}")) != tag and real in values:
            text = f"{text} (real {values[real]:.4g})"
        if quantity.endswith(_REAL) and (fake := tag.removesuffix(_REAL) + _FAKE) in values:
            name, text = f"{quantity}/fake", f"{text}/{values[fake]:.4g}"
        elif quantity.endswith(_FAKE) and tag.removesuffix(_FAKE) + _REAL in values:
            continue
        is_of_several = sum(other.endswith(f"/{quantity}") for other in values) > 1
        letter = _phase(tag)[:1].upper() if tag in losses or is_of_several else ""
        texts.append(" ".join(word for word in (letter, _short(name), text) if word))
    return texts


def _short(quantity: str) -> str:
    words = [_SHORT.get(word, word) for word in quantity.split("_")]
    return " ".join(word for word in words if word).replace(" / ", "/")


def _phase(tag: str) -> str:
    return tag.rpartition("/")[0].rpartition("/")[2]


def texts_that_fit(texts: Sequence[str], width: int) -> str:
    """Return as many texts as fit into a line, from the first on; a first text that is too long is cut."""
    line = ""
    for text in texts:
        longer = f"{line}  {text}" if line else text
        if len(longer) > width:
            break
        line = longer
    return line or "".join(texts[:1])[: max(width, 0)]


def _is_terminal() -> bool:
    """Return True if two lines can be shown; some terminals, such as those of editors, say that they have no width."""
    if not (sys.stderr.isatty() and sys.stdout.isatty()) or os.environ.get("TERM") == "dumb":
        return False
    try:
        return os.get_terminal_size(sys.stderr.fileno()).columns >= _MIN_COLUMNS
    except OSError:  # it has vanished
        return False


class Speedometer:
    """Counter of steps and seconds of training since the last restart."""

    def __init__(self) -> None:
        self.restart(0)

    def restart(self, step: int) -> None:
        """Count from this step on."""
        self._start, self._step = time.monotonic(), step

    def read(self, step: int) -> tuple[int, float]:
        """Return the steps up to this one, and their seconds."""
        return step - self._step, max(time.monotonic() - self._start, 1e-9)

    @contextmanager
    def paused(self) -> Iterator[None]:
        """Exclude the time of the block."""
        pause = time.monotonic()
        yield
        self._start += time.monotonic() - max(pause, self._start)  # it may have been restarted meanwhile
