"""The files of a sweep suffice to resume it."""

import json
import os
import shutil
from dataclasses import replace
from pathlib import Path

import pytest

from genlab.config.compose import parse_overrides
from genlab.errors import ConfigurationError
from genlab.launch.arguments import parse_command_line
from genlab.launch.sweep_folder import JobRecord, SweepFolder, SweepPlan

PLAN = SweepPlan(overrides=("model.name='a b'", "seed=0,1"), config_dir="my", jobs=(("seed=0",), ("seed=1",)))


def test_plan_and_records_come_back_as_they_were(tmp_path: Path) -> None:
    sweep = SweepFolder(tmp_path / "ünï")
    (tmp_path / "ünï").mkdir()
    sweep.write_plan(PLAN, command="genlab train -m")
    plan = sweep.read_plan()
    assert plan.began is not None
    assert replace(plan, began=None) == PLAN
    sweep.write_plan(PLAN, command="genlab train -m")
    assert sweep.read_plan() == plan, "with the time of its first start"
    record = JobRecord(number=1, overrides=("seed=1",), folder="1_seed-1", status="failed", reason="x", exit_code=3)
    sweep.write_record(record)
    waiting = JobRecord(number=0, overrides=("seed=0",), folder=None, status="waiting")
    (tmp_path / "ünï" / "jobs" / "².json").write_text("{}")  # a digit that is no number
    assert sweep.records() == [waiting, record]
    (tmp_path / "ünï" / "jobs" / "1.json").write_text("{")
    assert [found.status for found in sweep.records()] == ["waiting", "waiting"]


@pytest.mark.parametrize(
    "change",
    [
        {"folder": "../theirs"},
        {"folder": "/etc"},
        {"folder": "."},
        {"folder": 5},
        {"status": "well"},
        {"status": []},
        {"reason": {"a": 1}},
        {"exit_code": "0"},
        {"number": 7},
    ],
)
def test_a_record_that_no_job_can_have_written_is_none(tmp_path: Path, change: dict[str, object]) -> None:
    sweep = SweepFolder(tmp_path / "sweep")
    sweep.path.mkdir()
    sweep.write_plan(PLAN, command="")
    record = JobRecord(number=1, overrides=("seed=1",), folder="1_x", status="failed", reason="x", exit_code=3)
    sweep.write_record(record)
    assert sweep.record(1) == record
    path = sweep.path / "jobs" / "1.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | change))
    assert sweep.record(1) is None


def test_a_job_left_running_is_finalised_from_its_run_folder(tmp_path: Path) -> None:
    sweep = SweepFolder(tmp_path)
    sweep.write_plan(PLAN, command="")
    record = JobRecord(number=0, overrides=("seed=0",), folder="0_x", status="running")
    assert sweep.finalise(record).status == "interrupted"
    (tmp_path / "0_x").mkdir()
    (tmp_path / "0_x" / "summary.json").write_text(json.dumps({"status": "finished"}))
    assert sweep.finalise(record).status == "finished"
    finalised = sweep.record(0)
    assert finalised is not None
    assert finalised.exit_code == 0
    shutil.rmtree(tmp_path / "0_x")
    (tmp_path / "0_x" / ".hydra").mkdir(parents=True)  # as a resumption does before it looks at the job
    (tmp_path / "0_x" / "train.log").touch()
    removed = sweep.finalise(finalised)
    assert (removed.status, removed.reason) == ("interrupted", "its run folder was removed")
    assert sweep.record(0) == removed


@pytest.mark.parametrize("content", [None, "words: 3", "{", "[]", "words: [a]"])
def test_a_folder_of_no_sweep_is_refused(tmp_path: Path, content: str | None) -> None:
    if content is not None:
        (tmp_path / "sweep.yaml").write_text(content)
    with pytest.raises(ConfigurationError, match=r"sweep\.yaml"):
        SweepFolder(tmp_path).read_plan()


def test_the_last_sweep_is_the_one_that_was_started_or_resumed_last(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(ConfigurationError, match=r"sweep\.resume=last needs a sweep below outputs/"):
        parse_command_line(["-m", "sweep.resume=last"], positional=None)
    for age, name in ((10, "outputs/sweeps/0002-b"), (5, "outputs/sweeps/0001-a"), (20, "outputs/elsewhere")):
        plan = SweepFolder(tmp_path / name)
        plan.write_plan(SweepPlan(overrides=(), config_dir=None, jobs=None), command="genlab train -m")
        os.utime(plan.path / "sweep.yaml", (1e9 - age, 1e9 - age))
    (override,) = parse_command_line(["-m", "sweep.resume=last"], positional=None).overrides
    assert parse_overrides([override])[0].value() == "outputs/sweeps/0001-a"
    Path("last").mkdir()
    assert parse_command_line(["-m", "sweep.resume=last"], positional=None).overrides == ["sweep.resume=last"]
