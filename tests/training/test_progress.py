import logging

import pytest

from genlab.training import progress
from genlab.training.progress import Progress


def test_plain_lines_tell_step_epoch_and_measures(caplog: pytest.LogCaptureFixture) -> None:
    values = {"train/model/nll_nats": 81.234, "train/model/learning_rate": 1e-3, "speed/images_per_second": 1234.5}
    with caplog.at_level(logging.INFO), Progress(total=100, start=0, steps_per_epoch=40.0) as shown:
        shown.show(50, values)
        shown.show(51, {"train/model/nll_nats": 80.0})  # too soon for another line
        shown.show(100, {"validation/nll_nats": 79.0})  # too, but the last numbers are always told
    first, last = caplog.messages
    assert first.startswith("step 50 of 100 (epoch 1.2), ")
    assert "nll_nats 81.23, images/s 1,234" in first
    assert "learning_rate" not in first
    assert last.startswith("step 100 of 100 (epoch 2.5), 00:00 left, nll_nats 80, ")
    assert "validation nll_nats 79" in last


def test_a_terminal_gets_a_bar(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setattr(progress.sys.stderr, "isatty", lambda: True, raising=False)
    with Progress(total=10, start=4, steps_per_epoch=5.0) as shown:
        shown.show(5, {"train/model/nll_nats": 81.0})
        shown.advance()
    assert "5/10" in capsys.readouterr().err
