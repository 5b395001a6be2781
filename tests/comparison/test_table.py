"""The table in its four forms."""

import csv
import io
import json
from pathlib import Path

from genlab.comparison.runs import read_runs
from genlab.comparison.table import as_csv, as_json, as_text, shown
from tests.comparison.conftest import RunMaker, entry


def two_binarisations(make_run: RunMaker) -> None:
    make_run("fixed", measures=[entry("nll_upper_bound_nats", 80.9, kind="upper bound", standard_error=0.2)])
    make_run("other", measures=[entry("nll_nats", 81.3)], configuration={"seed": 5})
    make_run("stochastic", measures=[entry("nll_nats", 81.4, binarization="stochastic", dataset_fingerprint="0" * 64)])


def test_the_text_marks_the_best_of_each_kind_and_says_why_not_the_rest(make_run: RunMaker, tmp_path: Path) -> None:
    two_binarisations(make_run)
    text = as_text(read_runs([tmp_path]))
    lines = [line.split() for line in text.splitlines()]
    assert ["1", "80.90", "bound", "a*"] in lines
    assert ["2", "81.30", "a"] in lines
    assert ["3", "81.40", "b"] in lines
    assert "#3 not ranked with #1, #2: binarisation stochastic, not fixed (nll_nats)" in text
    assert ["2", "5"] in lines


def test_no_line_of_a_block_is_wider_than_the_terminal(make_run: RunMaker, tmp_path: Path) -> None:
    for number in range(12):
        measures = [entry(f"precision_{name * 12}", 0.5) for name in "abcdefgh"]
        make_run(f"run{number}", measures=measures, configuration={"seed": number})
    blocks = as_text(read_runs([tmp_path]), width=100).split("\n\n")
    tables = [block for block in blocks if "---" in block]
    assert len(tables) > 2
    assert max(len(line) for block in tables for line in block.splitlines()) <= 100


def test_a_part_of_a_table_has_no_rows_without_values(make_run: RunMaker, tmp_path: Path) -> None:
    for number, name in enumerate(("nll_nats", "error", "nll_nats")):
        make_run(f"run_{number}", measures=[entry(name, 1.0 + number)])
    measures = as_text(read_runs([tmp_path]), width=20).partition("measures\n")[2].split("\n\n")
    (part,) = [block.splitlines() for block in measures if "error" in block.splitlines()[0]]
    assert [line[0] for line in part[2:]] == ["2"], "of the three runs"


def test_control_characters_move_no_cursor() -> None:
    assert shown("a\x1b[2Jb\nc\u202e") == r"a\x1b[2Jb\nc\u202e"


def test_the_csv_holds_every_measure_and_no_formula(make_run: RunMaker, tmp_path: Path) -> None:
    make_run("=cmd()|' '!A1", measures=[entry("nll_nats", -3.5), entry("score_real", 1.0)])
    make_run("plain", measures=[entry("nll_nats", 2.0)], configuration={"seed": 5})
    rows = list(csv.DictReader(io.StringIO(as_csv(read_runs([tmp_path])))))
    assert rows[0]["run"].startswith("'=cmd")
    assert (rows[0]["nll_nats"], rows[0]["nll_nats:rank"], rows[0]["nll_nats:kind"]) == ("-3.5", "1", "exact")
    assert (rows[0]["score_real"], rows[1]["score_real"], rows[1]["seed"]) == ("1.0", "", "5")


def test_the_csv_names_each_column_once(make_run: RunMaker, tmp_path: Path) -> None:
    for name in ("draw", "dcgan"):
        make_run(name, choices={"model": name, "dataset": f"data_of_{name}"}, measures=[entry("nll_nats", 2.0)])
    header, first, second = csv.reader(io.StringIO(as_csv(read_runs([tmp_path]))))
    assert len(set(header)) == len(header) == len(first)
    assert [(row[2], row[3]) for row in (first, second)] == [("dcgan", "data_of_dcgan"), ("draw", "data_of_draw")]


def test_the_json_holds_what_decides_comparability(make_run: RunMaker, tmp_path: Path) -> None:
    two_binarisations(make_run)
    content = json.loads(as_json(read_runs([tmp_path])))
    measure = content["runs"][0]["measures"]["nll_nats"]
    assert measure["name"] == "nll_upper_bound_nats"
    assert (measure["kind"], measure["binarization"], measure["group"], measure["rank"]) == (
        *("upper bound", "fixed"),
        *("a", 1),
    )
    assert content["runs"][2]["measures"]["nll_nats"]["rank"] is None
    assert content["differing"] == {"seed": [0, 5, 0]}
    assert content["remarks"] == ["#3 not ranked with #1, #2: binarisation stochastic, not fixed (nll_nats)"]


def test_keys_that_only_one_model_has_are_left_to_the_page(make_run: RunMaker, tmp_path: Path) -> None:
    make_run("a")
    make_run("b", configuration={"model": {"_target_": "genlab.models.draw.draw.DRAW", "num_glimpses": 4}})
    gan = {"model": {"_target_": "genlab.models.gan.gan.GAN", "n_critic": 1}}
    make_run("c", configuration=gan, choices={"model": "gan"})
    lines = [line.split() for line in as_text(read_runs([tmp_path])).splitlines()]
    assert ["#", "model", "model.num_glimpses"] in lines
    assert [line for line in lines if len(line) == 3][2:] == [["1", "draw", "8"], ["2", "draw", "4"], ["3", "gan", "-"]]


def test_long_names_stand_last(make_run: RunMaker, tmp_path: Path) -> None:
    make_run("a" * 90)
    blocks = as_text(read_runs([tmp_path]), width=80).split("\n\n")
    assert blocks[0].splitlines()[0].split() == [
        "#",
        "model",
        "data",
        "status",
        "step",
        "time",
        "images/s",
        "parameters",
    ]
    assert blocks[1].splitlines()[2].split() == ["1", "a" * 90]
