"""The help of a command lists its settings, with the comments of its own file."""

from collections.abc import Callable
from pathlib import Path

import pytest
import yaml

from genlab.cli import COMMANDS
from genlab.config.location import config_directory
from tests.conftest import Outcome


@pytest.mark.parametrize("command", [name for name in COMMANDS if name != "train"])
def test_the_help_of_a_command_names_its_settings_and_no_others(
    genlab: Callable[..., Outcome], tmp_path: Path, command: str
) -> None:
    outcome = genlab(command, "--help")
    assert (outcome.code, outcome.errors) == (0, "")
    assert outcome.output.startswith(f"genlab {command}")
    assert "trainer" not in outcome.output
    own = yaml.safe_load((config_directory() / f"{command}.yaml").read_text())
    lines = outcome.output.splitlines()
    for key in own.keys() - {"defaults", "hydra"}:
        (line,) = [line for line in lines if line.startswith(f"{key}: ")]
        assert " # " in line, line
    assert list(tmp_path.iterdir()) == []
