"""Lines that another process is writing are seen once each, whole, in order."""

import json
import os
from pathlib import Path

import pytest

from genlab.launch import metrics_follower as module
from genlab.launch.metrics_follower import MetricsFollower


def line(step: int) -> str:
    return json.dumps({"step": step, "validation/x": step / 2}) + "\n"


def steps(follower: MetricsFollower) -> list[int]:
    return [record["step"] for record in follower.new_records()]


def test_a_growing_file_is_read_once_and_only_to_its_last_whole_line(tmp_path: Path) -> None:
    path = tmp_path / "metrics.jsonl"
    follower = MetricsFollower(tmp_path)
    assert steps(follower) == []
    path.write_text(line(1) + line(2) + line(3)[:7])
    assert steps(follower) == [1, 2]
    path.write_text(line(1) + line(2) + line(3))
    assert steps(follower) == [3]
    assert steps(follower) == []


def test_a_file_cut_back_by_a_resumption_tells_no_step_twice(tmp_path: Path) -> None:
    path = tmp_path / "metrics.jsonl"
    path.write_text(line(1) + line(2) + line(3) + line(3))
    follower = MetricsFollower(tmp_path)
    assert steps(follower) == [1, 2, 3, 3]
    path.write_text(line(1) + line(2))
    assert steps(follower) == []
    path.write_text(line(1) + line(2) + line(3) + line(4))
    assert steps(follower) == [4]


def test_a_damaged_line_is_passed_over(tmp_path: Path) -> None:
    path = tmp_path / "metrics.jsonl"
    path.write_text("{half\n[]\n" + line(5))
    assert steps(MetricsFollower(tmp_path)) == [5]


@pytest.mark.parametrize("kind", ["pipe", "link", "folder"])
def test_what_is_no_file_of_the_run_is_not_read(tmp_path: Path, kind: str) -> None:
    run = tmp_path / "run"
    run.mkdir()
    path = run / "metrics.jsonl"
    if kind == "pipe":
        os.mkfifo(path)
    elif kind == "link":
        (tmp_path / "theirs").write_text(line(1))
        path.symlink_to(tmp_path / "theirs")
    else:
        path.mkdir()
    assert steps(MetricsFollower(run)) == []


def test_a_long_file_is_read_in_parts_and_nonsense_is_passed_over(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "_MAX_BYTES", 100)
    nonsense = ['{"step": Infinity}', "[" * 90, f'{{"step": "{"9" * 70}x"}}']
    (tmp_path / "metrics.jsonl").write_text("".join([*map(line, range(50)), "\n".join([*nonsense, ""]), line(50)]))
    assert steps(MetricsFollower(tmp_path)) == list(range(51))
