"""A rehearsal of ``make gpu`` on the CPU: the same code at sizes of seconds, with a stand-in for the graphs."""

import dataclasses
import json
import sys
from pathlib import Path

import pytest
import torch

from benchmarks.gpu.__main__ import CaseProcess, main
from benchmarks.gpu.cases import CASES, FULL, TINY
from benchmarks.gpu.report import markdown
from benchmarks.gpu.subjects import configuration_of

CPU = torch.device("cpu")
QUICK = ("machine", "draw_10", "resume")
EVERY = [name if name in QUICK else pytest.param(name, marks=pytest.mark.slow) for name in CASES]


@pytest.mark.parametrize("name", EVERY)
def test_every_case_runs_and_agrees(name: str) -> None:
    rows = list(CASES[name].run(TINY, CPU))
    assert rows
    assert all(row.get("holds") is not False for row in rows), rows
    json.dumps(rows)


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")  # of a compiler that reads on while types are checked
def test_compiled_steps_run_and_agree() -> None:
    rows = list(CASES["draw_10"].run(dataclasses.replace(TINY, compiled=("draw_10",)), CPU))
    assert [row["variant"] for row in rows if row["table"] == "training"][-1] == "captured compiled bfloat16"
    assert all(row.get("holds") is not False for row in rows), rows


def test_the_sizes_of_the_gpu_are_configurations_of_ours() -> None:
    """Configurations that are first built on the GPU must at least be composed here."""
    assert FULL.networks.keys() == TINY.networks.keys()
    for subject in FULL.networks.values():
        configuration_of(*subject.overrides)


def process(tmp_path: Path, program: str) -> CaseProcess:
    with (tmp_path / "log").open("wb") as log:
        return CaseProcess(
            "case", [sys.executable, "-c", f"import json, sys, time; sys.stdin.readline(); {program}"], log
        )


ROW = {"table": "machine", "what": "speed", "value": 1}


def test_a_case_that_fails_keeps_its_rows_and_says_why(tmp_path: Path) -> None:
    program = f"print('a library speaks'); print({json.dumps(ROW)!r}); print('{{\"error\": \"bad\"}}'); sys.exit(1)"
    rows, outcome = process(tmp_path, program).finish(limit=60)
    assert rows == [ROW | {"case": "case"}]
    assert outcome["error"] == "bad"


def test_a_case_that_does_not_end_is_stopped(tmp_path: Path) -> None:
    rows, outcome = process(tmp_path, f"print({json.dumps(ROW)!r}, flush=True); time.sleep(600)").finish(limit=1)
    assert rows == [ROW | {"case": "case"}]
    assert outcome["error"] == "no end after 1 s"


def test_a_case_that_dies_is_reported(tmp_path: Path) -> None:
    assert process(tmp_path, "sys.exit(3)").finish(limit=60)[1]["error"] == "exit code 3"


def test_the_page_names_what_failed_and_what_does_not_hold() -> None:
    record = {
        "title": "GPU report",
        "machine": {"device": "cpu"},
        "cases": {"fine": {"seconds": 1.0, "error": None}, "lost": {"seconds": 2.0, "error": "RuntimeError: a | b"}},
        "rows": [{"table": "agreement", "what": "weights", "value": 1.0, "rule": "at most 0", "holds": False}],
    }
    page = markdown(record)
    assert "**lost failed after 2.0 s**" in page
    assert "**does not hold**: weights" in page
    assert "| weights | 1.0 | at most 0 | **no** |  |" in page
    assert "everything agrees" not in page


def test_an_unknown_case_is_refused(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--only", "drwa_10"]) == 2
    assert "got drwa_10" in capsys.readouterr().err


@pytest.mark.slow
def test_the_program_writes_its_report(tmp_path: Path) -> None:
    assert main(["--device", "cpu", "--tiny", "--only", "machine", "sample_gated", "--out", str(tmp_path)]) == 0
    (page,) = tmp_path.glob("*_gpu.md")
    record = json.loads(page.with_suffix(".json").read_text())
    assert {row["case"] for row in record["rows"]} == {"machine", "sample_gated"}
