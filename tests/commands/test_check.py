"""`genlab check`: the table, the exit code, a user's own model, settings that make no sense."""

from collections.abc import Callable
from pathlib import Path

import pytest

from genlab.checks.invariants import INVARIANTS

TINY = (
    "model=draw",
    "num_threads=1",
    "model.num_units=4",
    "model.latent_size=2",
    "model.num_glimpses=2",
    "model.read_size=3",
    "model.write_size=3",
)
LEAKY = """
from genlab.models.pixelcnn.pixelcnn import PixelCNN


class Mine(PixelCNN):
    def __init__(self, **kwargs):
        super().__init__(**kwargs)
        self.network.input.mask[:, :, 3, 3] = True
"""
MINE = """# my own model, with mask B in its first layer
defaults:
  - pixelcnn
  - _self_
_target_: my_checked_models.Mine
num_blocks: 1
stream_channels: 8
block_channels: 8
head_channels: [8]
"""


def rows(output: str) -> dict[str, str]:
    """Invariant to the rest of its line."""
    return {
        name: line[len(name) :].strip() for line in output.splitlines() for name in INVARIANTS if line.startswith(name)
    }


def test_a_sound_model_holds_and_the_command_returns_0(genlab: Callable, tmp_path: Path) -> None:
    outcome = genlab("check", *TINY).checked()
    found = rows(outcome.output)
    assert list(found) == list(INVARIANTS)
    assert found["KL is zero at the prior"].startswith("held")
    assert found["scores are unbounded"] == "does not apply  it has no score_layers, score_measure (HasScores)"
    assert outcome.output.splitlines()[0] == "DRAW on 4x4 images, channels 1, levels 2, classes 2"
    assert outcome.output.splitlines()[-1] == "19 held, 0 failed, 8 do not apply"
    assert list(tmp_path.iterdir()) == []


def test_a_users_own_broken_model_fails_with_2(
    genlab: Callable, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "my_checked_models.py").write_text(LEAKY)
    group = tmp_path / "my" / "model"
    group.mkdir(parents=True)
    (group / "mine.yaml").write_text(MINE)
    genlab("check", "--config-dir", "my", "model=mine").assert_error(2, "there is no module my_checked_models")
    monkeypatch.syspath_prepend(tmp_path)
    outcome = genlab("check", "--config-dir", "my", "model=mine", "num_threads=1")
    assert outcome.code == 2
    assert rows(outcome.output)["no prediction sees its own symbol"].startswith("FAILED")
    assert rows(outcome.output)["resume is bitwise"].startswith("held")
    assert "the model fails: no prediction sees its own symbol, probabilities sum to one" in outcome.errors


@pytest.mark.slow
def test_the_hint_of_a_technique_that_changes_colours_works(genlab: Callable) -> None:
    command = ("check", "model=gan", "technique=[diff_augment]", "num_threads=1")
    genlab(*command).assert_error(2, "in genlab check num_levels=256), or")
    assert genlab(*command, "num_levels=256").code == 0


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("dataset=mnist",), "dataset has no effect here"),
        (("height=8",), "height and width must be given together"),
        (("num_levels=1",), "num_levels must be at least 2, got 1"),
        (("model.num_unit=4",), "model.num_units"),
        (("height=2", "width=2"), "model.read_size must be between 1 and 2"),
    ],
)
def test_a_mistake_is_reported_in_one_line(genlab: Callable, arguments: tuple[str, ...], message: str) -> None:
    genlab("check", "model=draw", *arguments).assert_error(2, message)
