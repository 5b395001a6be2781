"""Headers of experiments, and the table of them beside runs."""

import json
import re
from pathlib import Path

import pytest

from genlab.comparison.older import declared_before
from genlab.comparison.published import (
    BEGIN,
    END,
    Experiment,
    as_markdown,
    changes,
    read_experiment,
    read_experiments,
    replaced_between_markers,
    results_between_markers,
)
from genlab.comparison.runs import read_run, read_runs
from genlab.config.location import config_directory
from genlab.errors import ConfigurationError
from tests.comparison.conftest import RunMaker, entry

HEADER = """# @package _global_
# A model (Somebody 2015, arXiv:1502.04623).
# command:    genlab train experiment=x num_threads=1,
#             then genlab evaluate run=RUN
# cost:       20 minutes
# measures:   nll_upper_bound_nats,
#             parzen_log_likelihood_nats, error
# published:  nll_upper_bound_nats = 80.0 (arXiv:1502.04623, table 2,
#             of another network)
#             parzen_log_likelihood_nats = -132 +- 1.8 (somewhere)
# ours:       docs/results.md
# differs:    in its size
# expected:   nll_upper_bound_nats = 82.5 +- 0.6 (one run)
# twin:       x_quick
defaults:
  - override /model: draw
# cost:       no longer the header
"""


def written(folder: Path, text: str) -> Path:
    path = folder / "x.yaml"
    path.write_text(text)
    return path


def test_every_experiment_has_a_complete_header() -> None:
    experiments = read_experiments([config_directory()])
    assert len(experiments) == len(list((config_directory() / "experiment").glob("*.yaml"))) >= 16
    for experiment in experiments:
        assert f"experiment={experiment.name}" in experiment.command
        assert experiment.title
        assert experiment.cost
        assert experiment.ours
        assert experiment.differs
        assert bool(experiment.published) != experiment.remark.startswith("none")
        for measure in experiment.measures:
            assert declared_before(measure, ())["direction"] in ("lower", "higher"), f"{experiment.name}: {measure}"
        for published in experiment.published.values():
            assert re.search(r"arXiv:\d{4}\.\d{4,5}|https://github\.com/", published.text), experiment.name
        for expected in experiment.expected.values():
            assert "docs/results.md" in expected.text, experiment.name


def test_every_published_experiment_has_a_quick_twin() -> None:
    experiments = {experiment.name: experiment for experiment in read_experiments([config_directory()])}
    for experiment in experiments.values():
        if experiment.name.endswith("_quick"):
            assert experiment.twin is None, experiment.name
            assert "expected" in (config_directory() / "experiment" / f"{experiment.name}.yaml").read_text()
        elif experiment.twin is not None:
            assert experiment.twin.endswith("_quick"), experiment.name
            assert experiment.twin in experiments, experiment.name
        else:
            assert not experiment.published, f"{experiment.name}: no '# twin:'"


def page_row(experiment: Experiment) -> str:
    """Return the row of docs/experiments.md for an experiment."""
    published = "; ".join(f"`{name}` {value.text}" for name, value in experiment.published.items())
    expected = ", ".join(
        f"`{name}` {value.value:g} ± {value.deviation:g}" for name, value in experiment.expected.items()
    )
    cells = (
        f"`{experiment.name}`",
        experiment.title,
        (published or experiment.remark).replace("+-", "±"),
        expected or experiment.ours,
        "" if experiment.twin is None else f"`{experiment.twin}`",
    )
    return f"| {' | '.join(cells)} |"


def test_the_page_of_experiments_says_what_their_headers_say() -> None:
    page = (config_directory().parent / "docs" / "experiments.md").read_text(encoding="utf-8")
    told = [line for line in page.splitlines() if line.startswith("| `")]
    wanted = [page_row(experiment) for experiment in read_experiments([config_directory()])]
    assert told == wanted, "the table must be:\n" + "\n".join(wanted)


def test_a_header_is_read_with_its_continuations(tmp_path: Path) -> None:
    experiment = read_experiment(written(tmp_path, HEADER))
    assert experiment.command == "genlab train experiment=x num_threads=1, then genlab evaluate run=RUN"
    assert experiment.measures == ("nll_upper_bound_nats", "parzen_log_likelihood_nats", "error")
    assert experiment.published["nll_upper_bound_nats"].value == 80.0
    assert experiment.published["nll_upper_bound_nats"].text == ("80.0 (arXiv:1502.04623, table 2, of another network)")
    assert experiment.published["parzen_log_likelihood_nats"].value == -132.0
    assert (experiment.cost, experiment.remark) == ("20 minutes", "")
    assert experiment.title == "A model (Somebody 2015, arXiv:1502.04623)."
    assert (experiment.published["parzen_log_likelihood_nats"].deviation, experiment.differs) == (1.8, "in its size")
    (expected,) = experiment.expected.items()
    assert (expected[0], expected[1].value, expected[1].deviation) == ("nll_upper_bound_nats", 82.5, 0.6)
    assert experiment.twin == "x_quick"


def test_expectation_and_twin_may_be_missing(tmp_path: Path) -> None:
    text = re.sub(r"# expected:.*?(?=defaults)", "", HEADER, flags=re.S)
    experiment = read_experiment(written(tmp_path, text))
    assert (experiment.expected, experiment.twin, experiment.differs) == ({}, None, "in its size")


def test_nothing_published_keeps_its_remark(tmp_path: Path) -> None:
    text = re.sub(
        r"# published:.*?# ours", "# published:  none; but much\n#             expected\n# ours", HEADER, flags=re.S
    )
    experiment = read_experiment(written(tmp_path, text))
    assert (experiment.published, experiment.remark) == ({}, "none; but much expected")


@pytest.mark.parametrize(
    ("change", "told"),
    [
        (("# cost:       20 minutes\n", ""), "lacks '# cost:'"),
        (("nll_upper_bound_nats = 80.0 (", "about 80 ("), "published must be 'none'"),
        (("80.0 (arXiv:1502.04623, table 2,\n#             of another network)", "80.0"), "published must be"),
        (("parzen_log_likelihood_nats, error", "error"), "parzen_log_likelihood_nats is published and not among"),
        (("# differs:    in its size\n", ""), "lacks '# differs:'"),
        (("82.5 +- 0.6 (one run)", "82.5 (one run)"), "nll_upper_bound_nats is expected without a tolerance"),
        (("nll_upper_bound_nats = 82.5", "nll_nats = 82.5"), "nll_nats is expected and not among"),
        (("nll_upper_bound_nats = 82.5 ", "soon "), "expected must be 'none'"),
    ],
)
def test_an_incomplete_header_is_refused(tmp_path: Path, change: tuple[str, str], told: str) -> None:
    assert change[0] in HEADER
    with pytest.raises(ConfigurationError, match=re.escape(told)):
        read_experiment(written(tmp_path, HEADER.replace(*change)))


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
    first, second, third, *others = rows(as_markdown([experiment], read_runs([tmp_path]), {}))
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
        "not measured: `genlab evaluate`",
        "",
    ]
    assert third[2] == "none"
    assert [row[4] for row in others] == ["interrupted after 40 of 100 steps"] * 3


def test_an_experiment_without_a_run_says_so(tmp_path: Path) -> None:
    experiment = read_experiment(written(tmp_path, HEADER))
    found = rows(as_markdown([experiment], [], {}))
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
    assert rows(as_markdown([experiment], read_runs([tmp_path]), {}))[0][4] == f"**{value:.2f}** ± 0.1{told}"


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
        assert bool(rows(as_markdown([experiment], read_runs([place]), {}))[0][5]) == has_gap


def test_only_what_stands_between_the_markers_is_replaced() -> None:
    text = f"# Results\n{BEGIN}\nold | table\n{END}\nand more\n"
    once = replaced_between_markers(text, "| new |", where="x.md")
    assert once == f"# Results\n{BEGIN}\n| new |\n{END}\nand more\n"
    assert replaced_between_markers(once, "| new |", where="x.md") == once


def test_results_stay_where_no_run_of_the_experiment_is_at_hand(make_run: RunMaker, tmp_path: Path) -> None:
    experiment = read_experiment(written(tmp_path, HEADER))
    old = ["| `x` | `nll_nats` | none | | **7** |", "|  | `error` | none | | **8** |"]
    head = ["| experiment | measure |", "| --- | --- |"]
    text = "\n".join([BEGIN, *head, "| `w` | `nll_nats` | | | not run |", *old, END])
    kept = results_between_markers(text)
    assert kept == {"experiment": head[:1], "---": head[1:], "x": old}
    assert as_markdown([experiment], [], kept).splitlines()[2:] == old
    make_run("a", choices={"experiment": "x"}, measures=[entry("nll_upper_bound_nats", 82.0)])
    assert "**7**" not in as_markdown([experiment], read_runs([tmp_path]), kept)


@pytest.mark.parametrize("text", ["", BEGIN, END, f"{END}{BEGIN}", f"{BEGIN}{END}{END}", f"{BEGIN}{BEGIN}{END}"])
def test_a_file_without_its_markers_is_refused(text: str) -> None:
    with pytest.raises(ConfigurationError, match=r"x\.md must hold the lines"):
        replaced_between_markers(text, "| new |", where="x.md")


def test_a_users_experiment_gives_way_to_ours(tmp_path: Path) -> None:
    for folder, cost in (("ours", "1 minute"), ("theirs", "2 minutes")):
        (tmp_path / folder / "experiment").mkdir(parents=True)
        written(tmp_path / folder / "experiment", HEADER.replace("20 minutes", cost))
    found: list[Experiment] = read_experiments([tmp_path / "ours", tmp_path / "theirs"])
    assert [(experiment.name, experiment.cost) for experiment in found] == [("x", "1 minute")]
