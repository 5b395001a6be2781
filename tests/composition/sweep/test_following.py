"""Lines that another process is writing are seen once each, whole, in order."""

import json
from pathlib import Path

from genlab.composition.sweep.following import MetricsFollower


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
