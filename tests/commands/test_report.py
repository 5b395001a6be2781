"""`genlab report` on a really trained run of an experiment."""

from pathlib import Path

import pytest

from genlab.comparison.results import SUMMARY_MARKS, TABLE_MARKS
from tests.commands.conftest import TINY
from tests.conftest import Genlab

BEGIN, END = TABLE_MARKS


@pytest.fixture
def run_of_an_experiment(genlab: Genlab, tmp_path: Path) -> Path:
    folder = tmp_path / "outputs" / "run"
    experiment = ["experiment=draw_document", "dataset=digits"]
    genlab("train", *experiment, *TINY, f"hydra.run.dir={folder}").checked()
    return folder


@pytest.mark.slow
def test_the_table_is_printed_or_written_between_the_markers(
    genlab: Genlab, run_of_an_experiment: Path, tmp_path: Path
) -> None:
    outcome = genlab("report").checked()
    (line,) = [line for line in outcome.output.splitlines() if line.startswith("| `draw_document` |")]
    assert "`experiment=draw_document dataset=digits" in outcome.output
    assert "3 steps, `dataset=digits`" in line
    assert "**" in line  # the test that ended training
    results = tmp_path / "results.md"
    summary = "\n".join(SUMMARY_MARKS)
    results.write_text(f"above\n{summary}\n{BEGIN}\nold\n{END}\nbelow\n")
    genlab("report", str(run_of_an_experiment), "--write", "results.md").checked()
    written = results.read_text().splitlines()
    assert (written[0], written[-1]) == ("above", "below")
    assert line in written
    assert written[2].startswith("| result |")
    assert "old" not in written


def test_what_would_lose_results_is_refused(genlab: Genlab, trained_run: Path, tmp_path: Path) -> None:
    (tmp_path / "results.md").write_text(f"{BEGIN}\nold\n{END}\n")
    outcome = genlab("report", str(trained_run), "--write", "results.md")
    assert (outcome.code, "no run of an experiment" in outcome.errors) == (2, True)
    assert "old" in (tmp_path / "results.md").read_text()
    outcome = genlab("report", str(trained_run), "--write", "result.md")
    assert (outcome.code, "write must be an existing file" in outcome.errors) == (2, True)
    outcome = genlab("report", "runs=[]")
    assert (outcome.code, "runs must name at least one run" in outcome.errors) == (2, True)


def test_what_is_of_no_published_experiment_is_named_and_left_out(
    genlab: Genlab, trained_run: Path, tmp_path: Path
) -> None:
    own = tmp_path / "own" / "experiment" / "mine.yaml"
    own.parent.mkdir(parents=True)
    own.write_text("# @package _global_\nseed: 1\n")
    outcome = genlab("report", str(trained_run), "--config-dir", str(tmp_path / "own")).checked()
    assert "| `draw_mnist` |" in outcome.output
    header, run = outcome.errors.splitlines()
    assert header.startswith(f"genlab: left out: {own}: the header lacks")
    assert run.endswith(f"left out: {trained_run.name}")
