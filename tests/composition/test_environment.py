"""What a run keeps of the machine, and of the lines that made it."""

import json
from pathlib import Path

import pytest
import torch

from genlab.composition.environment import save_environment

CPU = torch.device("cpu")


def commands_after(folder: Path, command: str) -> list[str]:
    save_environment(folder, command=command, device=CPU, seed=3)
    environment = json.loads((folder / "environment.json").read_text())
    assert (environment["command"], environment["seed"], environment["num_processes"]) == (command, 3, 1)
    return list(environment["commands"])


def test_the_lines_of_all_starts_are_kept(tmp_path: Path) -> None:
    lines = ["genlab train", "genlab train resume=run device=cpu", "genlab train resume=run"]
    for number, line in enumerate(lines):
        assert commands_after(tmp_path, line) == lines[: number + 1]
    assert commands_after(tmp_path, lines[-1]) == lines  # started again after a death


@pytest.mark.parametrize("content", ["", "[" * 100_000, '{"command": "x"}', '{"commands": 3}', "[]"])
def test_a_damaged_file_ends_no_run(tmp_path: Path, content: str) -> None:
    (tmp_path / "environment.json").write_text(content)
    assert commands_after(tmp_path, "genlab train") == ["genlab train"]
