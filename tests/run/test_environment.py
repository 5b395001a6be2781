"""Records of a run about the machine and its command lines."""

import json
from datetime import datetime
from pathlib import Path

import pytest
import torch

from genlab.run.environment import save_environment, saved_class_names

CPU = torch.device("cpu")


def commands_after(folder: Path, command: str) -> list[str]:
    save_environment(folder, command=command, device=CPU, precision="float32", seed=3, class_names=["cats", "dogs"])
    environment = json.loads((folder / "environment.json").read_text())
    assert (environment["command"], environment["seed"], environment["num_processes"]) == (command, 3, 1)
    assert saved_class_names(folder) == ["cats", "dogs"]
    assert datetime.fromisoformat(environment["started"]) <= datetime.fromisoformat(environment["date"])
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


def test_the_date_of_the_first_start_stays(tmp_path: Path) -> None:
    commands_after(tmp_path, "genlab train")
    path = tmp_path / "environment.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), "started": "2020-01-02T03:04:05+00:00"}))
    commands_after(tmp_path, "genlab train resume=run")
    environment = json.loads(path.read_text())
    assert environment["started"] == "2020-01-02T03:04:05+00:00" < environment["date"]
