"""`genlab compare` as a user meets it."""

import csv
import io
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from genlab.config.compose import parse_overrides
from genlab.launch.syntax import Flag, Syntax, expanded
from tests.conftest import Genlab
from tests.faults.hooks import without_reader


@pytest.fixture
def two_runs(trained_run: Path, tmp_path: Path) -> Path:
    """Return a trained run and a copy of it whose name needs escaping."""
    folder = tmp_path / "some runs"
    for name in ("one", "the other, lr=0.1"):
        shutil.copytree(trained_run, folder / name)
    return folder


def test_a_table_of_really_trained_runs(genlab: Genlab, two_runs: Path) -> None:
    outcome = genlab("compare", str(two_runs)).checked()
    table = outcome.output
    assert "the other, lr=0.1" in table
    assert "validation/nll_nats (lower)" in table
    (line,) = [line for line in table.splitlines() if line.startswith("nll_nats")]
    assert line.split()[2:] == [line.split()[2], "bound", "*"] * 2  # the same weights give the same bound


def test_runs_by_name_one_of_which_looks_like_an_override(genlab: Genlab, two_runs: Path) -> None:
    names = [str(path) for path in sorted(two_runs.iterdir())]
    outcome = genlab("compare", *names, "--json").checked()
    content = json.loads(outcome.output)
    assert [run["folder"] for run in content["runs"]] == names
    assert content["runs"][0]["commands"][0].startswith("genlab train model=draw trainer=smoke")


def test_files_in_every_form(genlab: Genlab, two_runs: Path, tmp_path: Path) -> None:
    arguments = ["--csv", "t.csv", "--html", "--json=t.json", "--sort", "name"]
    genlab("compare", str(two_runs), *arguments).checked()
    assert [row["run"] for row in csv.DictReader(io.StringIO((tmp_path / "t.csv").read_text()))] == [
        "one",
        "the other, lr=0.1",
    ]
    assert len(json.loads((tmp_path / "t.json").read_text())["runs"]) == 2
    page = (tmp_path / "comparison.html").read_text()
    assert page.count('<img src="data:image/png') == 4  # of each run, beside its row and in full
    assert "genlab compare &#x27;" in page
    assert sorted(path.name for path in tmp_path.iterdir()) == ["comparison.html", "some runs", "t.csv", "t.json"]


def test_files_are_written_before_a_table_that_nobody_reads_to_its_end(
    genlab: Genlab, two_runs: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with os.fdopen(without_reader(), "w", buffering=1) as stream, monkeypatch.context() as patch:
        patch.setattr(sys, "stdout", stream)
        outcome = genlab("compare", str(two_runs), "--csv", "t.csv", "--html")
    assert outcome.code == 141
    assert {"comparison.html", "t.csv"} < {path.name for path in tmp_path.iterdir()}


def test_a_folder_of_results_is_not_listed_as_a_run(genlab: Genlab, two_runs: Path) -> None:
    del two_runs
    results = Path("some runs") / "results"
    results.mkdir()
    (results / "evaluation.json").write_text(json.dumps({"measures": []}))
    outcome = genlab("runs", "some runs")
    assert (outcome.code, outcome.errors) == (0, "")
    assert len(outcome.output.splitlines()) == 4, outcome.output  # a head, its line and two runs
    assert "results" not in outcome.output
    alone = genlab("runs", str(results))
    assert (alone.code, alone.errors) == (0, "")


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (["nowhere"], "there is no folder nowhere"),
        ([], "there is no folder outputs"),
        (["some runs", "--sort", "nll_nat"], "sort has no column 'nll_nat'"),
        (["some runs", "--sort"], "--sort needs a value"),
        (["some runs", "--sort", "trainer.lr"], "did you mean 'optimizer.default.lr'?"),
        (["some runs", "html=-"], "html must be a file"),
        (
            ["some runs", "--html", "nowhere/page.html"],
            "html must be a file in an existing folder, got nowhere/page.html",
        ),
        (["runs=[]"], "runs must name at least one"),
        (["some runs", "csv=some runs"], "csv must be a file in an existing folder, got some runs"),
        (["some runs", "--html", "page.txt"], "--html takes the name of a .html file, got page.txt; --html=page.txt"),
        (["some runs", "--csv", "--json"], "csv, json and html must be different files, got -, -"),
    ],
)
def test_bad_input_is_one_line(genlab: Genlab, two_runs: Path, arguments: list[str], told: str) -> None:
    outcome = genlab("compare", *arguments)
    outcome.assert_error(2, told)
    assert len(outcome.errors.strip().splitlines()) == 1


def test_a_comparison_imports_no_torch(two_runs: Path) -> None:
    program = f"""
import sys
from genlab.cli import main
assert main(["compare", {str(two_runs)!r}, "--html", {str(two_runs / "p.html")!r}]) == 0
assert not {{"torch", "numpy", "tensorboard"}} & set(sys.modules), sorted(sys.modules)
"""
    result = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=60)
    assert result.returncode == 0, result.stderr


SYNTAX = Syntax(
    "runs",
    takes_several=True,
    flags={"--sort": Flag("sort"), "--csv": Flag("csv", suffix=".csv", default="-")},
)


@pytest.mark.parametrize(
    ("line", "overrides", "others"),
    [
        (["a", "b c"], {"runs": ["a", "b c"]}, []),
        (["runs=a b"], {"runs": ["a b"]}, []),
        (["a", "runs=b=1"], {"runs": ["a", "b=1"]}, []),
        (["runs=[a,'b c']"], {"runs": ["a", "b c"]}, []),
        (["--csv", "a"], {"csv": "-", "runs": ["a"]}, []),
        (["--csv", "a.csv", "b"], {"csv": "a.csv", "runs": ["b"]}, []),
        (["--csv=x,y.csv"], {"csv": "x,y.csv"}, []),
        (["--sort", "-nll", "a'b\\"], {"sort": "-nll", "runs": ["a'b\\"]}, []),
        (
            ["a", "sort=step", "--config-dir", "my", "--cfg", "job"],
            {"runs": ["a"], "sort": "step"},
            ["--config-dir", "my", "--cfg", "job"],
        ),
    ],
)
def test_flags_and_positional_arguments_become_overrides(
    line: list[str], overrides: dict[str, object], others: list[str]
) -> None:
    result = expanded(line, SYNTAX)
    read = {parsed.key_or_group: parsed.value() for parsed in parse_overrides([word for word in result if "=" in word])}
    assert read == overrides
    assert [word for word in result if "=" not in word] == others


@pytest.mark.parametrize(
    "text", ["true", "Null", "inf", "12", "1e3", "0007", "null/a", "trueish", "last:a", "a,b", "../a"]
)
def test_a_positional_argument_stays_a_string(text: str) -> None:
    (parsed,) = parse_overrides(expanded([text], SYNTAX))
    assert parsed.value() == [text]


def test_a_plain_path_needs_no_quotes_in_the_command_that_a_page_shows() -> None:
    assert expanded(["outputs/digits-draw/0001-lr_0.1", "b c"], SYNTAX) == [
        "runs=[outputs/digits-draw/0001-lr_0.1,'b c']"
    ]


def test_a_command_without_syntax_is_left_alone() -> None:
    assert expanded(["a", "--csv", "b=1"], Syntax("run")) == ["a", "--csv", "b=1"]
