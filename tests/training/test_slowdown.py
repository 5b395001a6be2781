"""A run that has become far slower than it was says so, once."""

import types
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from genlab.training import progress, slowdown
from genlab.training.slowdown import SlowdownWatch, hint_for
from genlab.types import Batch, Loss
from tests.training.conftest import TinyGAN, make_trainer


def warnings_of(caplog: pytest.LogCaptureFixture) -> list[str]:
    return [record.message for record in caplog.records if record.name == slowdown.__name__]


def feed(watch: SlowdownWatch, *, steps: int, seconds_per_step: float) -> None:
    for _ in range(steps):
        watch.add(1, seconds_per_step)


def test_the_fastest_of_the_first_minutes_is_what_counts(caplog: pytest.LogCaptureFixture) -> None:
    watch = SlowdownWatch(make_trainer(Path()), interval=1)
    watch.add(1, 100.0)  # compilation
    feed(watch, steps=100, seconds_per_step=1.0)
    feed(watch, steps=100, seconds_per_step=2.0)  # twice as slow is no news
    assert warnings_of(caplog) == []
    feed(watch, steps=40, seconds_per_step=5.0)
    assert warnings_of(caplog) == [
        "a step takes 5.0 times as long as in the first minutes: other programs may be using its cores"
        f"{hint_for(torch.device('cpu'))}"
    ]
    feed(watch, steps=100, seconds_per_step=1.0)
    feed(watch, steps=100, seconds_per_step=9.0)
    assert len(warnings_of(caplog)) == 1


def test_a_hiccup_and_a_faster_end_are_none(caplog: pytest.LogCaptureFixture) -> None:
    watch = SlowdownWatch(make_trainer(Path()), interval=1)
    for _ in range(200):
        feed(watch, steps=19, seconds_per_step=1.0)
        watch.add(1, 11.0)
    feed(watch, steps=3000, seconds_per_step=0.1)  # later than the first minutes: not the measure of what follows
    feed(watch, steps=300, seconds_per_step=1.0)
    assert warnings_of(caplog) == []


def test_the_hint_is_for_threads_that_wait_for_one_another(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch, "get_num_threads", lambda: 2)
    assert "resume=RUN num_threads=1" in hint_for(torch.device("cpu"))
    assert hint_for(torch.device("cuda")) == ""
    monkeypatch.setattr(torch, "get_num_threads", lambda: 1)
    assert hint_for(torch.device("cpu")) == ""


def test_a_run_that_collapses_says_so_once(
    run_folder: Callable[[str], Path], monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    now = 0.0
    num_steps = 0

    class Timed(TinyGAN):
        def generator_loss(self, batch: Batch) -> Loss:
            nonlocal now, num_steps
            num_steps += 1
            now += 4.0 if num_steps <= 42 else 40.0
            return super().generator_loss(batch)

        def evaluate(self, batch: Batch) -> dict[str, torch.Tensor]:
            nonlocal now
            now += 100.0  # pauses do not count
            return super().evaluate(batch)

    monkeypatch.setattr(progress, "time", types.SimpleNamespace(monotonic=lambda: now))
    monkeypatch.setattr(torch, "get_num_threads", lambda: 2)
    make_trainer(run_folder("a"), Timed(), num_steps=60, log_interval=3, validation_interval=10).fit(resume=False)
    warned = warnings_of(caplog)
    assert len(warned) == 1
    assert warned[0].startswith("a step takes 10.0 times as long")
    assert warned[0].endswith("genlab train resume=RUN num_threads=1")
