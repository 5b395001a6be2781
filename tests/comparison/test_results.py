"""The table of published values beside those of runs."""

import json
import os
import re
from dataclasses import replace
from pathlib import Path

import pytest

from genlab.comparison.published import read_experiment
from genlab.comparison.results import (
    TABLE_MARKS,
    Rows,
    as_markdown,
    changes,
    replaced_between_markers,
    results_in,
    rows_of,
)
from genlab.comparison.runs import Run, read_run, read_runs
from genlab.comparison.summary import as_summary
from genlab.errors import ConfigurationError
from tests.comparison.conftest import HEADER, RunMaker, entry, written

BEGIN, END = TABLE_MARKS


def rows(table: str) -> list[list[str]]:
    return [[cell.strip() for cell in re.split(r"(?<!\\)\|", line)[1:-1]] for line in table.splitlines()[2:]]


def test_the_table_holds_published_ours_gap_and_cost(make_run: RunMaker, tmp_path: Path) -> None:
    experiment = read_experiment(written(tmp_path, HEADER))
    measures = [entry("nll_upper_bound_nats", 82.0, kind="upper bound", weights="averaged"), entry("nll_nats", 1.0)]
    make_run(
        "a",
        choices={"experiment": "x"},
        overrides=("experiment=x", "num_threads=1", "hydra.run.dir=a", "model.num_glimpses=2", "model.name='p|q'"),
        measures=measures,
        summary={"seconds": 1200.0},
    )
    make_run("b", choices={"experiment": "x"}, summary={"status": "interrupted", "step": 40, "test": {}})
    make_run("c", measures=measures)
    first, second, third, *others = rows(as_markdown(rows_of([experiment], read_runs([tmp_path]), {})))
    assert first == [
        "`x`",
        "`nll_upper_bound_nats`",
        "80.0 (arXiv:1502.04623, table 2, of another network)",
        "82.5 ± 0.6",
        "**82.00** ± 0.1",
        "+2 (+2.5%)",
        "upper bound, 10,000 test images, averaged weights",
        "100 steps, `model.num_glimpses=2`, `model.name='p\\|q'`",
        "20 min",
        "0123456, 0",
        "A Processor, 1 thread",
    ]
    assert second[:6] == [
        "",
        "`parzen_log_likelihood_nats`",
        "-132 ± 1.8 (somewhere)",
        "",
        "not measured",
        "",
    ]
    assert third[2] == "none"
    assert [row[4] for row in others] == ["interrupted after 40 of 100 steps"] * 3


def test_an_experiment_without_a_run_says_so(tmp_path: Path) -> None:
    experiment = read_experiment(written(tmp_path, HEADER))
    found = rows(as_markdown(rows_of([experiment], [], {})))
    assert [row[3] for row in found] == ["82.5 ± 0.6", "", ""]
    assert [row[4] for row in found] == ["not run"] * 3
    assert [row[8] for row in found] == ["20 minutes", "", ""]
    assert {len(row) for row in found} == {11}


@pytest.mark.parametrize(
    ("value", "overrides", "told"),
    [
        (83.0, ("experiment=x", "num_threads=1", "seed=2", "trainer.max_minutes=90"), ", as expected"),
        (83.2, ("experiment=x",), ", not as expected"),
        (81.8, ("experiment=x",), ", not as expected"),
        (83.0, ("experiment=x", "trainer.num_steps=9"), ""),
    ],
)
def test_a_run_of_the_very_experiment_is_held_against_what_is_expected(
    make_run: RunMaker, tmp_path: Path, value: float, overrides: tuple[str, ...], told: str
) -> None:
    experiment = read_experiment(written(tmp_path, HEADER))
    measures = [entry("nll_upper_bound_nats", value, kind="upper bound")]
    make_run("a", choices={"experiment": "x"}, overrides=overrides, measures=measures)
    assert rows(as_markdown(rows_of([experiment], read_runs([tmp_path]), {})))[0][4] == f"**{value:.2f}** ± 0.1{told}"


def test_the_value_of_a_run_that_ended_early_says_after_how_many_steps(make_run: RunMaker, tmp_path: Path) -> None:
    experiment = read_experiment(written(tmp_path, HEADER))
    measures = [entry("nll_upper_bound_nats", 83.0, kind="upper bound")]
    for step, told in ((95, ", interrupted after 95 of 100 steps"), (100, "")):
        summary = {"status": "interrupted", "step": step}
        folder = make_run(f"{step}", choices={"experiment": "x"}, measures=measures, summary=summary)
        found = rows_of([experiment], [read_run(folder, name="a")], {})
        assert found[0][0].ours == f"**83.00** ± 0.1{told}"
        kept = results_in(f"{BEGIN}\n{as_markdown(found)}\n{END}")
        assert rows_of([experiment], [], kept) == found, "no expected value takes its place"
        assert (f"**83.00** `nll_upper_bound_nats`{told} |") in as_summary([experiment], found)


def test_a_run_that_was_changed_when_it_was_resumed_is_no_run_of_the_very_experiment(make_run: RunMaker) -> None:
    folder = make_run("a", choices={"experiment": "x"}, overrides=("experiment=x",))
    environment = json.loads((folder / "environment.json").read_text())
    for words, changed in (("device=cpu", []), ("-q 'trainer.num_steps=9'", ["trainer.num_steps=9"])):
        commands = ["genlab train experiment=x", f"genlab train resume=a {words}"]
        (folder / "environment.json").write_text(json.dumps(environment | {"commands": commands}))
        assert changes(read_run(folder, name="a")) == changed


def test_a_run_on_other_data_has_no_gap_to_what_was_published(make_run: RunMaker, tmp_path: Path) -> None:
    experiment = read_experiment(written(tmp_path, HEADER))
    measures = [entry("nll_upper_bound_nats", 83.0, kind="upper bound")]
    for override, has_gap in (("trainer.precision=float32", True), ("dataset.num_training=9", False)):
        place = tmp_path / override
        folder = make_run("a", choices={"experiment": "x"}, overrides=("experiment=x", override), measures=measures)
        folder.rename(place)
        assert bool(rows(as_markdown(rows_of([experiment], read_runs([place]), {})))[0][5]) == has_gap


def test_the_value_of_weights_that_were_trained_on_since_is_none_of_the_run(make_run: RunMaker, tmp_path: Path) -> None:
    experiment = read_experiment(written(tmp_path, HEADER))
    measures = [entry("nll_upper_bound_nats", 83.0)]  # of step 90
    for status, told in (("interrupted", "interrupted after 100 of 100 steps"), ("finished", "not measured")):
        summary = {"status": status, "best": {"step": 95}}
        choices = {"experiment": "x"}
        folder = make_run(status, choices=choices, overrides=("experiment=x",), measures=measures, summary=summary)
        assert rows(as_markdown(rows_of([experiment], [read_run(folder, name="a")], {})))[0][4] == told


def test_only_what_stands_between_the_markers_is_replaced() -> None:
    text = f"# Results\n{BEGIN}\nold | table\n{END}\nand more\n"
    once = replaced_between_markers(text, TABLE_MARKS, "| new |", where="x.md")
    assert once == f"# Results\n{BEGIN}\n| new |\n{END}\nand more\n"
    assert replaced_between_markers(once, TABLE_MARKS, "| new |", where="x.md") == once


def test_results_stay_until_a_run_of_the_same_settings_seed_and_hardware_replaces_them(
    make_run: RunMaker, tmp_path: Path
) -> None:
    experiment = read_experiment(written(tmp_path, HEADER))

    def ran(name: str, value: float, *overrides: str) -> Run:
        measures = [entry("nll_upper_bound_nats", value)]
        words = ("experiment=x", *overrides)
        return read_run(make_run(name, choices={"experiment": "x"}, overrides=words, measures=measures), name=name)

    def values(results: list[Rows]) -> list[str]:
        return [results_of_a_run[0].ours for results_of_a_run in results]

    first = rows_of([experiment], [ran("a", 82.0)], {})
    kept = results_in(f"{BEGIN}\n{as_markdown(first)}\n{END}")
    assert kept == {"x": first}
    assert rows_of([experiment], [], kept) == first
    wider = rows_of([experiment], [ran("b", 81.0, "model.num_units=512")], kept)
    assert values(wider) == ["**82.00** ± 0.1, as expected", "**81.00** ± 0.1"]
    again = rows_of([experiment], [ran("c", 82.2)], kept)
    assert values(again) == ["**82.20** ± 0.1, as expected"]
    elsewhere = replace(ran("d", 82.3), hardware="Another Processor")
    assert values(rows_of([experiment], [elsewhere], kept)) == [
        "**82.00** ± 0.1, as expected",
        "**82.30** ± 0.1, as expected",
    ]


def test_of_two_runs_with_equal_settings_the_one_that_was_started_later_counts(
    make_run: RunMaker, tmp_path: Path
) -> None:
    experiment = read_experiment(written(tmp_path, HEADER))

    def counted(dates: dict[str, object], times: dict[str, int]) -> list[str]:
        for name in ("a", "b"):
            folder = tmp_path / "outputs" / name
            environment = json.loads((folder / "environment.json").read_text())
            (folder / "environment.json").write_text(json.dumps(environment | {"date": dates.get(name)}))
            os.utime(folder / "config.yaml", (times[name], times[name]))
        return [found[0].value_text for found in rows_of([experiment], read_runs([tmp_path]), {})]

    for name, value in (("a", 81.0), ("b", 82.0)):
        make_run(name, choices={"experiment": "x"}, measures=[entry("nll_upper_bound_nats", value)])
    later, earlier = "2026-03-01T10:00:00+00:00", "2026-03-01T11:30:00+02:00"
    assert counted({"a": later, "b": earlier}, {"a": 1000, "b": 2000}) == ["81.00"]
    assert counted({"a": earlier, "b": later}, {"a": 2000, "b": 1000}) == ["82.00"]
    for unknown in (None, 5, "yesterday"):
        assert counted({"a": unknown, "b": unknown}, {"a": 2000, "b": 1000}) == ["81.00"]


def test_what_is_kept_follows_the_header_and_is_lost_to_no_unmeasured_run(make_run: RunMaker, tmp_path: Path) -> None:
    experiment = read_experiment(written(tmp_path, HEADER))
    choices, words = {"experiment": "x"}, ("experiment=x", "trainer.compile=false", "trainer.ema_decay=null")
    measures = [entry("nll_upper_bound_nats", 83.0)]
    unchanged = {"choices": choices, "overrides": ("experiment=x",)}
    kept = {"x": rows_of([experiment], [read_run(make_run("a", measures=measures, **unchanged), name="a")], {})}
    other = replace(experiment, expected={}, published={}, remark="none; more", name="x")
    (renewed,) = rows_of([other], [], kept)
    assert [renewed[0].published, renewed[0].expected] == ["none; more", ""]
    strict = {"nll_upper_bound_nats": replace(experiment.expected["nll_upper_bound_nats"], value=80.0)}
    (renewed,) = rows_of([replace(experiment, expected=strict)], [], kept)
    assert renewed[0].ours == "**83.00** ± 0.1, not as expected"
    older = {"x": [tuple(replace(row, ours=f"{row.ours}†") for row in kept["x"][0][:1]) + kept["x"][0][1:]]}
    (renewed,) = rows_of([replace(experiment, expected=strict)], [], older)
    assert renewed[0].ours == "**83.00** ± 0.1, not as expected†", "the mark of older numerics stays"
    assert rows_of([experiment], [read_run(make_run("b", **unchanged), name="b")], kept) == kept["x"]
    assert rows_of([], [], kept) == kept["x"], "of an experiment that is not known here"
    swept = tuple(word.replace("false", "False").replace("null", "None") for word in reversed(words))
    twice = [
        read_run(make_run(name, choices=choices, overrides=overrides, measures=measures), name=name)
        for name, overrides in (("c", words), ("d", swept))
    ]
    assert len(rows_of([experiment], twice, {})) == 1


@pytest.mark.parametrize(("cell", "other"), [("**83.00**", "**83 nats**"), ("20 min", "about 20 min")])
def test_a_row_that_was_edited_is_refused_by_its_line(
    make_run: RunMaker, tmp_path: Path, cell: str, other: str
) -> None:
    experiment = read_experiment(written(tmp_path, HEADER))
    measures = [entry("nll_upper_bound_nats", 83.0)]
    folder = make_run("a", choices={"experiment": "x"}, measures=measures, summary={"seconds": 1200.0})
    table = as_markdown(rows_of([experiment], [read_run(folder, name="a")], {}))
    assert cell in table
    with pytest.raises(ConfigurationError, match=r"has a row that cannot be read: .*83"):
        results_in(f"{BEGIN}\n{table.replace(cell, other)}\n{END}")


def test_an_experiment_that_was_not_run_keeps_no_rows(tmp_path: Path) -> None:
    experiment = read_experiment(written(tmp_path, HEADER))
    assert results_in(f"{BEGIN}\n{as_markdown(rows_of([experiment], [], {}))}\n{END}") == {}


@pytest.mark.parametrize("text", ["", BEGIN, END, f"{END}{BEGIN}", f"{BEGIN}{END}{END}", f"{BEGIN}{BEGIN}{END}"])
def test_a_file_without_its_markers_is_refused(text: str) -> None:
    with pytest.raises(ConfigurationError, match=r"x\.md must hold the lines"):
        replaced_between_markers(text, TABLE_MARKS, "| new |", where="x.md")
