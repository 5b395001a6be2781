"""The summary of results: seeds averaged, one published value for a task."""

from dataclasses import replace
from pathlib import Path

import pytest

from genlab.comparison.published import Experiment, read_experiment, read_experiments
from genlab.comparison.results import SUMMARY_MARKS, TABLE_MARKS, Row, Rows, as_markdown, results_in, rows_of
from genlab.comparison.summary import as_summary
from genlab.config.location import config_directory
from tests.comparison.conftest import HEADER

PAGE = config_directory().parent / "docs" / "results.md"


@pytest.fixture
def experiments(tmp_path: Path) -> list[Experiment]:
    """An experiment with a published value, its twin without one, and one of another task that was never run."""
    twin = HEADER.replace("80.0 (", "none; (").split("# published")[0] + "# published:  none\n# ours: x\n"
    twin += "# differs:    in length\n# result:     DRAW: digits\n"
    other = HEADER.replace("DRAW: digits", "PixelCNN: letters")
    for name, text in (("x", HEADER), ("x_quick", twin), ("y", other)):
        (tmp_path / f"{name}.yaml").write_text(text)
    return [read_experiment(tmp_path / f"{name}.yaml") for name in ("x", "x_quick", "y")]


def ran(experiment: str, value: str, *, seed: int = 0, settings: str = "9 steps", cost: str = "2 min") -> Rows:
    """Return the rows of a run with a value of the first measure, and one of the error."""
    first = Row(
        *(f"`{experiment}`", "`nll_upper_bound_nats`", "none", "", value, "", "10,000 test images"),
        *(settings, cost, f"0123456, {seed}", "A Processor"),
    )
    return first, replace(Row("", *[""] * 10), measure="`error`", ours="**0.5000** ± 0.1†")


def lines(summary: str) -> list[list[str]]:
    return [[cell.strip() for cell in line.strip("|").split("|")] for line in summary.splitlines() if "`" in line][1:]


def test_seeds_are_averaged_beside_the_value_published_for_the_task(experiments: list[Experiment]) -> None:
    results = [
        ran("x_quick", "**82.00** ± 0.1, as expected", seed=0, cost="99 s"),
        ran("x_quick", "**84.00** ± 0.1", seed=1, cost="1.2 h"),
        ran("x_quick", "**86.00** ± 0.1", seed=2, cost="3 min"),
        ran("x", "not measured: `genlab evaluate`"),
    ]
    found = as_summary(experiments, results)
    quick, full = sorted(lines(found), key=lambda cells: "quick" not in cells[-1])
    assert quick[1:] == [
        "80.0 (arXiv:1502.04623, table 2, of another network)",
        "**84.00 ± 2 (3 seeds)** `nll_upper_bound_nats`",
        "+4",
        "0.5000 ± 0 (3 seeds)† `error`",
        "3 min, A Processor",
        "`experiment=x_quick`",
    ]
    assert full[:3] == ["digits", "", "**0.5000†** `error`"]  # the first measure that was measured
    assert found.endswith("Not measured: 1 of 3 experiments.")


def test_a_mean_has_the_decimals_and_the_mark_that_any_of_its_values_has(experiments: list[Experiment]) -> None:
    results = [ran("x", "**82.25**†"), ran("x", "**84.5** ± 0.1", seed=1)]
    ((_, _, ours, *_),) = lines(as_summary(experiments, results))
    assert ours == "**83.38 ± 1.6 (2 seeds)†** `nll_upper_bound_nats`"


def test_seeds_that_were_measured_on_other_images_are_not_averaged(experiments: list[Experiment]) -> None:
    few, *_ = ran("x", "**70.00**", seed=0)
    results = [(replace(few, protocol="16 test images"),), *(ran("x", "**82.00**", seed=seed) for seed in (1, 2))]
    ((_, _, ours, gap, others, *_),) = lines(as_summary(experiments, results))
    assert (ours, gap) == ("**82.00 ± 0 (2 seeds)** `nll_upper_bound_nats` (10,000 test images)", "+2")
    assert others == "70.00 `nll_upper_bound_nats` (16 test images); 0.5000 ± 0 (2 seeds)† `error`"


def test_other_settings_are_a_line_of_their_own_and_other_data_have_no_published_value(
    experiments: list[Experiment],
) -> None:
    results = [
        ran("x", "**82.00** ± 0.1"),
        ran("x", "**81.00** ± 0.1", settings="9 steps, `model.num_units=512`"),
        ran("x", "**70.00** ± 0.1", settings="9 steps, `dataset.num_training=5`"),
    ]
    own, wider, fewer = lines(as_summary(experiments, results))
    assert [own[1], own[3], own[6]] == ["80.0 (arXiv:1502.04623, table 2, of another network)", "+2", "`experiment=x`"]
    assert [wider[1], wider[3], wider[6]] == ["80.0", "+1", "`experiment=x model.num_units=512`"]
    assert [fewer[1], fewer[3]] == ["", ""]


def test_the_page_of_results_is_what_the_report_writes() -> None:
    text = PAGE.read_text(encoding="utf-8")
    experiments = read_experiments([config_directory()])
    results = rows_of(experiments, [], results_in(text))
    for marks, content in ((SUMMARY_MARKS, as_summary(experiments, results)), (TABLE_MARKS, as_markdown(results))):
        inside = text.partition(marks[0])[2].partition(marks[1])[0].strip()
        assert inside.partition("\n\n†")[0] == content
