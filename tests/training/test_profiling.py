"""``trainer.profile`` says where the time of a few early steps goes."""

import json
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.training.conftest import make_trainer

RunFolder = Callable[[str], Path]


def test_the_steps_after_the_first_eight_are_profiled(run_folder: RunFolder) -> None:
    folder = run_folder("a")
    make_trainer(folder, num_steps=12, profile=True, test_at_end=False).fit(resume=False)
    (trace,) = (folder / "profile").glob("*.pt.trace.json")
    names = {str(event.get("name")) for event in json.loads(trace.read_text())["traceEvents"]}
    assert {name for name in names if name.startswith("ProfilerStep")} == {f"ProfilerStep#{n}" for n in range(8, 12)}
    assert "aten::addmm" in (folder / "profile" / "operators.txt").read_text()


@pytest.mark.parametrize("num_steps", [5, 10, 11])
def test_a_start_that_is_too_short_to_be_profiled_says_so(
    run_folder: RunFolder, caplog: pytest.LogCaptureFixture, num_steps: int
) -> None:
    folder = run_folder("a")
    make_trainer(folder, num_steps=num_steps, profile=True, test_at_end=False).fit(resume=False)
    assert "trainer.profile traces steps 9 to 12 of a start, and this one made fewer" in caplog.text
    assert not (folder / "profile").exists()
