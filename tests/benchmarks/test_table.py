"""The table of `make bench` from the rows that its programs keep."""

import json
from pathlib import Path

import pytest

from benchmarks.__main__ import HEAD, PROGRAMS, line_of
from benchmarks.rows import VARIABLE, keep_row


def test_a_program_keeps_rows_where_the_table_asks_for_them(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    keep_row("nobody asked", 2.0, 1.0, must=1.5)
    monkeypatch.setenv(VARIABLE, str(tmp_path / "rows"))
    keep_row("sampling", 3.0, 0.002, must=1000, aim=2000)
    keep_row("loop", 0.001, 0.0012, must=1.1, lower_is_better=True)
    rows = [json.loads(line) for line in (tmp_path / "rows").read_text().splitlines()]
    lines = [line_of(row, 512.0) for row in rows]
    assert lines == [
        "| sampling | 3.00 s | 2.00 ms | 1500.00 | 1000 | 2000 |  | 512 MiB |",
        "| loop | 1.00 ms | 1.20 ms | 1.200 | at most 1.1 |  | missed | 512 MiB |",
    ]
    assert all(line.count("|") == HEAD.count("|") for line in lines)


def test_every_program_of_the_table_exists() -> None:
    folder = Path(__file__).resolve().parents[2] / "benchmarks"
    assert all((folder / f"{program[0]}.py").is_file() for programs in PROGRAMS.values() for program in programs)
