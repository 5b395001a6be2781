"""Like is ranked with like, and every refusal says why."""

from pathlib import Path

import pytest

from genlab.comparison.ranking import Column, columns_of, differing, sorted_runs, unique_remarks
from genlab.comparison.runs import Run, read_runs
from genlab.errors import ConfigurationError
from genlab.run.measured import Record
from tests.comparison.conftest import RunMaker, entry


def column(runs: list[Run], quantity: str) -> Column:
    return next(column for column in columns_of(runs) if column.quantity == quantity)


def ranks(found: Column) -> list[int | None]:
    return [found.cells[index].rank for index in sorted(found.cells)]


def test_a_bound_is_ranked_with_exact_values_and_says_so(make_run: RunMaker, tmp_path: Path) -> None:
    make_run("a", measures=[entry("nll_upper_bound_nats", 80.97, kind="upper bound")])
    make_run("b", measures=[entry("nll_nats", 81.30)])
    make_run("c", measures=[entry("nll_nats", 85.0, weights="averaged")])
    found = column(read_runs([tmp_path]), "nll_nats")
    assert ranks(found) == [1, 2, 3]
    assert [found.cells[index].record.words for index in range(3)] == [("bound",), (), ("EMA",)]
    assert (found.refusals, found.remarks) == ((), ())


def test_a_bound_that_loses_may_hide_a_better_value(make_run: RunMaker, tmp_path: Path) -> None:
    make_run("a", measures=[entry("nll_upper_bound_nats", 82.0, kind="upper bound")])
    make_run("b", measures=[entry("nll_nats", 81.30)])
    found = column(read_runs([tmp_path]), "nll_nats")
    assert ranks(found) == [2, 1]
    (remark,) = found.remarks
    assert "#1 is a bound, whose true value may be lower" in remark
    make_run("c", measures=[entry("nll_upper_bound_nats", 80.97, kind="upper bound")])
    assert column(read_runs([tmp_path]), "nll_nats").remarks == (remark,), "whatever another bound proves"


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"binarization": "stochastic", "dataset_fingerprint": "0" * 64}, "binarisation stochastic, not fixed"),
        ({"split": "validation"}, "split validation, not test"),
        ({"dataset": "mnist", "dataset_fingerprint": "0" * 64}, "dataset mnist, not binarized_mnist"),
        ({"dataset_fingerprint": "0" * 64}, "fingerprint of the data 00000000, not ffffffff"),
        ({"num_examples": 500}, "number of images 500, not 10,000"),
        ({"num_importance_samples": 5}, "importance samples 5, not none"),
        ({"features": "classifier 12345678"}, "features classifier 12345678, not pixels"),
        ({"num_generated": 1000}, "number of samples 1,000, not none"),
        ({"protocol": "k=5"}, "protocol k=5, not none"),
        ({"unit": "bits"}, "unit bits, not nats/image"),
    ],
)
def test_unlike_values_are_refused_with_the_reason(
    make_run: RunMaker, tmp_path: Path, changes: dict[str, object], reason: str
) -> None:
    make_run("a", measures=[entry("nll_nats", 81.4, **changes)])
    make_run("b", measures=[entry("nll_nats", 80.9)])
    make_run("c", measures=[entry("nll_nats", 85.0)])
    found = column(read_runs([tmp_path]), "nll_nats")
    assert ranks(found) == [None, 1, 2]
    assert [found.cells[index].group for index in range(3)] == ["b", "a", "a"]
    assert found.refusals == (f"#1 not ranked with #2, #3: {reason}",)


def test_higher_and_lower_and_no_direction_and_ties(make_run: RunMaker, tmp_path: Path) -> None:
    for name, shift in (("a", 0.0), ("b", 0.1), ("c", 0.1)):
        values = {"recall_classifier": 0.5, "frechet_distance_classifier": 3.0, "score_real": 1.0}
        make_run(name, measures=[entry(key, value + shift) for key, value in values.items()])
    runs = read_runs([tmp_path])
    assert ranks(column(runs, "recall_classifier")) == [3, 1, 1]
    assert ranks(column(runs, "frechet_distance_classifier")) == [1, 2, 2]
    assert ranks(column(runs, "score_real")) == [None, None, None]
    assert [found.direction for found in columns_of(runs)] == ["higher", "lower", "neither"]


@pytest.mark.parametrize(
    ("kind", "direction", "is_bound"),
    [
        *(("upper bound", "lower", True), ("lower bound", "higher", True)),
        *(("upper bound", "higher", False), ("lower bound", "lower", False), ("exact", "lower", False)),
    ],
)
def test_a_bound_is_on_the_worse_side_of_the_true_value(kind: str, direction: str, is_bound: bool) -> None:
    record = Record(name="x", value=1.0, quantity="x", unit="1", kind=kind, direction=direction)
    assert record.is_bound is is_bound


def test_other_seeds_are_ranked_with_a_remark(make_run: RunMaker, tmp_path: Path) -> None:
    make_run("a", measures=[entry("nll_nats", 1.0)])
    make_run("b", measures=[entry("nll_nats", 2.0, seed=3)])
    found = column(read_runs([tmp_path]), "nll_nats")
    assert ranks(found) == [1, 2]
    assert "seeds 0, 3" in found.remarks[0]


def test_a_test_without_an_evaluation_is_shown_and_refused_with_the_suggestion(
    make_run: RunMaker, tmp_path: Path
) -> None:
    folder = make_run("a", summary={"test": {"test/nll_nats": 70.0}})
    make_run("b", measures=[entry("nll_nats", 80.0)])
    make_run("c", measures=[entry("nll_nats", 81.0)])
    found = column(read_runs([tmp_path]), "nll_nats")
    assert ranks(found) == [None, 1, 2]
    assert found.cells[0].record.value == 70.0
    assert found.refusals == (
        f"#1 not ranked: no evaluation.json has the images and the protocol; genlab evaluate run={folder}",
    )


def test_validation_is_ranked_in_its_own_column_where_the_images_are_the_same(
    make_run: RunMaker, tmp_path: Path
) -> None:
    chosen = {"num_steps": 100, "ema_decay": None, "validation_images": 500}
    for name, value, seed in (("a", 90.0, 0), ("b", 91.0, 0), ("c", 89.0, 1)):
        summary = {"best": {"validation/nll_upper_bound_nats": value, "step": 40.0}}
        make_run(name, summary=summary, configuration={"seed": seed, "trainer": chosen})
    found = column(read_runs([tmp_path]), "validation/nll_nats")
    assert ranks(found) == [1, 2, None]
    assert found.refusals == ("#3 not ranked with #1, #2: seed of the choice of images 1, not 0",)
    assert found.cells[0].record.is_bound
    for name, seed in (("a", 0), ("d", 1)):  # of all images, which no seed has chosen
        summary = {"best": {"validation/nll_upper_bound_nats": 90.0, "step": 40.0}}
        make_run(f"all/{name}", summary=summary, configuration={"seed": seed})
    found = column(read_runs([tmp_path / "outputs" / "all"]), "validation/nll_nats")
    assert (ranks(found), found.remarks) == ([1, 1], ())


def test_a_choice_of_images_differs_from_all_of_them_in_their_number_alone(make_run: RunMaker, tmp_path: Path) -> None:
    for name, number in (("a", None), ("b", None), ("c", 64)):
        summary = {"best": {"validation/nll_upper_bound_nats": 90.0, "step": 40.0}}
        trainer = {"num_steps": 100, "ema_decay": None, "validation_images": number}
        make_run(name, summary=summary, configuration={"seed": 0, "trainer": trainer})
    found = column(read_runs([tmp_path]), "validation/nll_nats")
    assert found.refusals == ("#3 not ranked with #1, #2: number of images 64, not all",)


def test_damaged_measures_are_counted_and_the_others_kept(make_run: RunMaker, tmp_path: Path) -> None:
    bad = [entry("nll_nats", float("nan")), {"value": 1.0}, "text", entry("kl_per_glimpse_nats", [1.0, 2.0])]
    make_run("a", measures=[*bad, entry("error", 0.5, num_examples="many", unit=7)])  # type: ignore[list-item]
    (run,) = read_runs([tmp_path])
    assert [record.name for record in run.records] == ["error"]
    assert run.records[0].num_examples is None
    assert run.problems == ("evaluation.json: 3 measures cannot be read",)


def test_a_reason_that_measures_share_is_reported_once(make_run: RunMaker, tmp_path: Path) -> None:
    names = [f"{kind}_classifier" for kind in ("precision", "recall", "density", "coverage", "frechet_distance")]
    for name, features in (("a", "classifier 1"), ("b", "classifier 2")):
        make_run(name, measures=[entry(measure, 0.5, features=features) for measure in names])
    (line,) = unique_remarks(columns_of(read_runs([tmp_path])))
    assert line.startswith("#2 not ranked with #1: features classifier 2, not classifier 1 (precision_classifier")
    assert line.endswith("and 1 more)")


def test_runs_are_sorted_by_whatever_they_have(make_run: RunMaker, tmp_path: Path) -> None:
    for name, value, recall, lr in (("a", 82.0, 0.1, 1e-3), ("b", 80.0, 0.3, 1e-2), ("c", 81.0, 0.2, 1e-4)):
        node = {"default": {"_target_": "torch.optim.Adam", "lr": lr}}
        make_run(
            name,
            measures=[entry("nll_nats", value), entry("recall_classifier", recall)],
            configuration={"optimizer": node},
            summary={"seconds": None if name == "a" else value},
        )
    make_run("d")
    runs = read_runs([tmp_path])

    def order(by: str) -> str:
        return "".join(run.name for run in sorted_runs(runs, by))

    assert order("nll_nats") == "bcad"
    assert order("recall_classifier") == "bcad"
    assert order("optimizer.default.lr") == "cadb"
    assert order("seconds") == "dbca"
    with pytest.raises(ConfigurationError, match="did you mean 'recall_classifier'"):
        sorted_runs(runs, "recal_classifier")


def test_what_differs_is_what_is_not_the_same_everywhere(make_run: RunMaker, tmp_path: Path) -> None:
    make_run("a")
    make_run("b", configuration={"seed": 1, "model": {"_target_": "genlab.models.draw.draw.DRAW"}})
    damaged = make_run("c")
    (damaged / "config.yaml").unlink()
    assert differing(read_runs([tmp_path])) == {"model.num_glimpses": (8, None, None), "seed": (0, 1, None)}
