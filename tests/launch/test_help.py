"""The help of a command lists its settings, with the comments of its own file."""

from pathlib import Path

import pytest
import yaml

from genlab.cli import COMMANDS
from genlab.config.location import config_directory
from genlab.tables import described
from tests.conftest import Genlab
from tests.thinning import thinned


@pytest.mark.parametrize("command", thinned([name for name in COMMANDS if name != "train"], 15))
def test_the_help_of_a_command_names_its_settings_and_no_others(genlab: Genlab, tmp_path: Path, command: str) -> None:
    outcome = genlab(command, "--help")
    assert (outcome.code, outcome.errors) == (0, "")
    assert outcome.output.startswith(f"genlab {command}")
    assert "trainer" not in outcome.output
    own = yaml.safe_load((config_directory() / f"{command}.yaml").read_text())
    lines = outcome.output.splitlines()
    for key in own.keys() - {"defaults", "hydra"}:
        (line,) = [line for line in lines if line.startswith(f"{key}=")]
        assert "  " in line, f"{line} has no comment"
    head = outcome.output.partition("\n\n")[0].splitlines()
    assert max(map(len, [*head, lines[-1]])) <= 80
    assert list(tmp_path.iterdir()) == []


def test_the_help_of_train_has_the_common_keys_first_and_a_comment_for_each(genlab: Genlab) -> None:
    outcome = genlab(
        *("train", "model=dcgan", "trainer=smoke", "technique=[gradient_penalty]", "trainer.num_steps=7", "--help")
    )
    assert (outcome.code, outcome.errors) == (0, "")
    blocks = {lines[0]: lines[1:] for lines in map(str.splitlines, outcome.output.split("\n\n"))}
    common = blocks["The common ones"]
    assert len(common) == 10
    assert common[0].split()[:2] == ["model=dcgan", "the"]
    assert common[4].split()[:2] == ["trainer.num_steps=7", "training"]
    choices = dict(line.split(maxsplit=1) for line in blocks["Choices: group=choice"])
    assert choices["model/objective"].startswith("hinge, least_squares")
    titles = ("The run", "The model", "The data", "The training", "The optimiser", "The learning-rate schedule")
    rows = [line.split(maxsplit=1) for title in titles for line in blocks[title]]
    assert {"seed=0", "model.techniques.gradient_penalty.weight=10.0", "optimizer.default.lr=0.0002"} < {
        row[0] for row in rows
    }
    assert "yaml-language-server" not in outcome.output  # the head of a file is not the comment of its first key
    assert [row for row in rows if len(row) < 2 and not row[0].startswith("optimizer.")] == []


def test_names_and_words_are_wrapped_on_a_terminal_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    rows = [("seed=0", "one two " * 20), (f"a.{'b' * 60}=1", "words"), ("c.d=" + "e" * 50, "")]
    assert len(described(rows).splitlines()) == len(rows)
    monkeypatch.setattr("sys.stdout.isatty", lambda: True)
    monkeypatch.setenv("COLUMNS", "80")
    lines = described(rows).splitlines()
    assert max(len(line) for line in lines if "bbb" not in line) <= 80
    assert len(lines) == 5 + 2 + 1
