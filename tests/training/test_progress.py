"""The progress display: two lines that fit any terminal, and each number once, under its own step, everywhere."""

import fcntl
import logging
import os
import re
import struct
import sys
import termios
from collections.abc import Callable, Iterator
from typing import TextIO

import pytest

from genlab.training.progress import Progress, short_texts, texts_that_fit

GAN = {
    **{"train/discriminator/adversarial_nats": 0.5565, "train/discriminator/score_real": 4.511},
    **{"train/discriminator/score_fake": -0.3264, "train/discriminator/accuracy_real": 1.0},
    **{"train/discriminator/accuracy_fake": 0.1625, "train/generator/adversarial_nats": 0.9165},
    **{"train/generator/learning_rate": 1e-3, "speed/images_per_second": 1234.5},
}
GAN_LINE = "D loss 0.5565  G loss 0.9165  score real/fake 4.511/-0.3264  acc real/fake 1/0.1625"
DRAW = {"train/model/nll_upper_bound_nats": 81.234, "train/model/kl_nats": 20.0, "speed/images_per_second": 1234.5}
VALIDATION = {"validation/score_real": 4.636, "validation/score_fake": -0.3239}


def test_plain_lines_have_each_number_once_under_its_own_step(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.INFO), Progress(total=100, start=0, steps_per_epoch=40.0) as shown:
        shown.show(50, DRAW | {"train/model/learning_rate": 1e-3})
        shown.show(60, DRAW | {"train/model/kl_nats": 21.0})  # too soon for another line
        shown.show(70, DRAW | {"train/model/kl_nats": 22.0})
        shown.show(70, {"validation/nll_upper_bound_nats": 79.0, "validation/bits_per_dim": 0.15})
        shown.show(90, {"validation/nll_upper_bound_nats": 78.0})
        shown.show(100, DRAW | {"train/model/kl_nats": 23.0})  # the last numbers are always logged
    logged = [re.sub(r"\S+ left", "TIME left", line) for line in caplog.messages]
    assert logged == [
        "step 50 of 100 (epoch 1.2), TIME left, 1,234 images/s: nll bound 81.23, kl 20",
        "step 70 of 100 (epoch 1.8), TIME left, 1,234 images/s: nll bound 81.23, kl 22",
        "step 70, validation: nll bound 79, bits/dim 0.15",
        "step 90, validation: nll bound 78",
        "step 100 of 100 (epoch 2.5), TIME left, 1,234 images/s: nll bound 81.23, kl 23",
    ]


def test_short_names_begin_with_the_losses_and_name_the_phase_where_it_is_needed() -> None:
    shown = {tag: value for tag, value in GAN.items() if tag.startswith("train") and "rate" not in tag}
    assert "  ".join(short_texts(shown)) == GAN_LINE
    shared = {f"train/{phase}/{name}": 1.0 for phase in ("encoder", "decoder") for name in ("nll_nats", "error")}
    assert short_texts(shared) == ["E nll 1", "D nll 1", "E error 1", "D error 1"]
    assert short_texts({"validation/score_real": 2.0}) == ["score real 2"]


def test_a_measure_of_samples_has_that_of_real_images_beside_it() -> None:
    values = {"quality/frechet_distance_random_network": 12.34, "quality/recall_random_network": 0.5}
    real = {"quality/baseline_real_frechet_distance_random_network": 1.2}
    assert short_texts(values | real) == ["frechet 12.34 (real 1.2)", "recall 0.5"]


@pytest.mark.parametrize("width", [0, 3, 12, 40, 200])
def test_a_line_takes_what_fits(width: int) -> None:
    texts = GAN_LINE.split("  ")
    line = texts_that_fit(texts, width)
    assert len(line) <= width
    assert GAN_LINE.startswith(line)
    assert line or width == 0


class Screen:
    """The contents of a terminal after writes with cursor movements; a minimal emulation."""

    def __init__(self, width: int) -> None:
        self.width = width
        self.rows = [""]
        self.num_wraps = 0
        self._row = self._column = 0

    def write(self, text: str) -> None:
        for up, character in re.findall(r"\x1b\[(\d*)A|([^\x1b])", text):
            if not character:
                self._row -= int(up or 1)
            elif character == "\r":
                self._column = 0
            elif character == "\n":
                self._row += 1
            else:
                if self._column == self.width:
                    self.num_wraps += 1
                    self._row, self._column = self._row + 1, 0
                self._put(character)

    def _put(self, character: str) -> None:
        self.rows += [""] * (self._row + 1 - len(self.rows))
        row = self.rows[self._row].ljust(self._column)
        self.rows[self._row] = row[: self._column] + character + row[self._column + 1 :]
        self._column += 1

    @property
    def lines(self) -> list[str]:
        self.rows += [""] * (self._row + 1 - len(self.rows))
        return [row.rstrip() for row in self.rows]


@pytest.fixture(name="terminal")
def terminal_of_any_width(monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[[int], Callable[[], Screen]]]:
    """Puts standard output, standard error and the log on a terminal; the result reads what stands on it."""
    controller, side = os.openpty()
    handlers = logging.getLogger().handlers
    files: list[TextIO] = []

    def of_width(width: int) -> Callable[[], Screen]:
        fcntl.ioctl(side, termios.TIOCSWINSZ, struct.pack("HHHH", 24, width, 0, 0))
        monkeypatch.setenv("TERM", "xterm")
        monkeypatch.setenv("COLUMNS", str(width))
        for name in ("stdout", "stderr"):
            files.append(os.fdopen(os.dup(side), "w"))
            monkeypatch.setattr(sys, name, files[-1])
        logging.getLogger().handlers = [logging.StreamHandler(sys.stdout)]
        logging.getLogger().setLevel(logging.INFO)
        screen = Screen(width)

        def read() -> Screen:
            for file in files:
                file.flush()
            os.set_blocking(controller, False)
            try:
                while chunk := os.read(controller, 65536):
                    screen.write(chunk.decode())
            except BlockingIOError:
                pass
            return screen

        return read

    yield of_width
    logging.getLogger().handlers = handlers
    for file in files:
        file.close()
    os.close(side)
    os.close(controller)


@pytest.mark.parametrize("width", [12, 40, 80, 200])
def test_a_terminal_of_any_width_has_two_lines_and_keeps_one_for_each_validation(
    terminal: Callable[[int], Callable[[], Screen]], width: int
) -> None:
    read = terminal(width)
    with Progress(total=10, start=4, steps_per_epoch=5.0) as progress:
        for step in (5, 6):
            progress.advance()
            progress.show(step, GAN)
            first, second, *below = read().lines
            assert f"step {step}/10"[:width] in first
            assert second
            assert GAN_LINE.startswith(second)
            assert not any(below)
        assert read().num_wraps == 0
        if width >= 80:
            assert "epoch 1.2, 1,234 images/s" in first
            assert second.startswith("D loss 0.5565  G loss 0.9165  score real/fake 4.511/-0.3264")
            progress.show(6, VALIDATION)
            progress.advance()
            progress.show(7, VALIDATION)
            kept = [f"step {step}, validation: score real/fake 4.636/-0.3239" for step in (6, 7)]
            assert read().lines[:2] == kept
            assert read().lines[2].startswith("step 7/10")
    logged = "".join(read().lines)
    assert logged.count("step 6 of 10 (epoch 1.2)") == 1
    assert "step 7/10" not in logged


def test_the_last_line_has_the_newest_quality_of_samples(terminal: Callable[[int], Callable[[], Screen]]) -> None:
    read = terminal(200)
    tag = "quality/frechet_distance_random_network"
    with Progress(total=20, start=0, steps_per_epoch=5.0) as progress:
        for step, distance in ((10, 23.2), (20, 10.76)):
            progress.show(step, GAN)
            progress.show(step, {tag: distance})
    kept = [line for line in read().lines if line.startswith("step 20 of 20")]
    assert ["frechet 10.76" in line for line in kept] == [True]


@pytest.mark.parametrize("width", [0, 1, 5, 11])
def test_a_terminal_without_room_for_the_step_gets_plain_lines(
    terminal: Callable[[int], Callable[[], Screen]], width: int
) -> None:
    """0 is what terminals of editors say, and the library would then show nothing at all."""
    terminal(width)
    with Progress(total=10, start=0, steps_per_epoch=5.0) as progress:
        assert not progress._is_live
    terminal(80)
    with Progress(total=10, start=0, steps_per_epoch=5.0) as progress:
        assert progress._is_live


def test_a_terminal_that_has_vanished_is_none(
    terminal: Callable[[int], Callable[[], Screen]], monkeypatch: pytest.MonkeyPatch
) -> None:
    terminal(80)

    def vanished(descriptor: int) -> os.terminal_size:
        raise OSError(5, "Input/output error")

    monkeypatch.setattr(os, "get_terminal_size", vanished)
    assert not Progress(total=10, start=0, steps_per_epoch=5.0)._is_live


def test_what_is_read_by_another_program_gets_no_cursor_movements(
    terminal: Callable[[int], Callable[[], Screen]], monkeypatch: pytest.MonkeyPatch
) -> None:
    read = terminal(80)
    monkeypatch.setenv("TERM", "dumb")
    with Progress(total=10, start=0, steps_per_epoch=5.0) as progress:
        progress.show(5, GAN)
        assert read().lines[0].startswith("step 5 of 10")
