"""The table of a sweep: a row for each job, the best of those that ended as they should, statistics over seeds."""

import csv
import json
import statistics
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import pytest
import yaml

from genlab.errors import SweepError
from genlab.launch.sweep import _raise_for
from genlab.launch.sweep_folder import JobRecord, SweepFolder, SweepPlan
from genlab.launch.sweep_report import (
    best_row,
    lacks_measure,
    measured,
    report,
    rows_of,
    seed_rows,
    told_lacking,
    varying,
    write_tables,
)
from genlab.launch.sweep_settings import SweepSettings
from genlab.measures import negative_log_likelihood
from genlab.paths import program

SETTINGS = SweepSettings(measure=None, minimize=True, resume=None)
TAG = "validation/nll_nats"


def settings(**changes: Any) -> SweepSettings:
    return SweepSettings(**{"measure": None, "minimize": True, "resume": None, **changes})


@pytest.fixture
def sweep(tmp_path: Path) -> SweepFolder:
    """Return a sweep of two models and three seeds; one job failed, one was killed and one has not started."""
    folder = SweepFolder(tmp_path)
    jobs = tuple((f"model={model}", f"seed={seed}", "num_threads=1") for model in ("a", "b") for seed in (0, 1, 2))
    folder.write_plan(
        SweepPlan(overrides=("model=a,b", "seed=0,1,2", "num_threads=1"), config_dir=None, jobs=jobs), command="genlab"
    )
    values = {0: 3.0, 1: 5.0, 2: 4.0, 3: 1.0}
    for number, value in values.items():
        run = tmp_path / f"{number}_x"
        run.mkdir()
        best = {TAG: value, "step": 10.0}
        summary = {
            "status": "finished",
            "selected_by": TAG,
            "best": best,
            "test": {"test/nll_nats": 10 - value},
            "seconds": 2.0,
        }
        (run / "summary.json").write_text(json.dumps(summary))
        finish(folder, number, *jobs[number])
    (tmp_path / "4_x").mkdir()
    (tmp_path / "4_x" / "summary.json").write_text(
        json.dumps({"status": "running", "selected_by": TAG, "best": {TAG: 0.1}})
    )
    killed = JobRecord(number=4, overrides=jobs[4], folder="4_x", status="killed", reason="signal 9", exit_code=-9)
    folder.write_record(killed)
    return folder


def best_job(sweep: SweepFolder, chosen: SweepSettings = SETTINGS) -> int | None:
    best = best_row(rows_of(sweep, chosen))
    return None if best is None else best.record.number


def amend(sweep: SweepFolder, number: int, **entries: Any) -> None:
    """Change entries of a run's summary."""
    path = sweep.path / f"{number}_x" / "summary.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | entries))


def finish(sweep: SweepFolder, number: int, *overrides: str) -> None:
    record = JobRecord(number=number, overrides=overrides, folder=f"{number}_x", status="finished", exit_code=0)
    sweep.write_record(record)


def fail(sweep: SweepFolder, *numbers: int) -> None:
    for number in numbers:
        record = sweep.record(number)
        assert record is not None
        sweep.write_record(replace(record, status="diverged", exit_code=6))


@pytest.mark.parametrize("entry", [{"best": "x"}, {"best": {TAG: True}}, {"best": {TAG: "low"}}, {"selected_by": 0.5}])
def test_a_summary_of_other_types_costs_its_job_the_value_alone(sweep: SweepFolder, entry: dict[str, Any]) -> None:
    path = sweep.path / "3_x" / "summary.json"
    path.write_text(json.dumps({"selected_by": TAG, **entry, "seconds": "5"}))
    rows = write_tables(sweep, SETTINGS)
    assert [row.value for row in rows] == [3.0, 5.0, 4.0, None, 0.1, None]
    assert rows[3].seconds is None
    assert "best: jobs 0, 1, 2" in report(rows, SETTINGS)


def test_a_share_of_the_cores_belongs_to_the_line_that_repeats_a_job_and_is_no_choice(sweep: SweepFolder) -> None:
    best = sweep.record(3)
    assert best is not None
    given = replace(best, num_threads=2)
    sweep.write_record(given)
    assert sweep.record(3) == given
    assert given.arguments == (*best.overrides, "num_threads=2")
    fail(sweep, 1, 2)
    rows = rows_of(sweep, SETTINGS)
    assert all(set(row.choices) == {"model", "seed"} for row in rows)
    assert f"{program()} train {' '.join(given.arguments)}\n" in f"{report(rows, SETTINGS)}\n"
    assert f"{given.arguments[-1]} --config-dir own\n" in f"{report(rows, SETTINGS, config_dir='own')}\n"


def test_every_job_has_a_row_with_what_varies(sweep: SweepFolder) -> None:
    rows = write_tables(sweep, SETTINGS)
    assert [row.record.status for row in rows] == ["finished"] * 4 + ["killed", "waiting"]
    assert rows[1].choices == {"model": "a", "seed": "1"}
    with (sweep.path / "summary.csv").open(encoding="utf-8", newline="") as file:
        lines = list(csv.DictReader(file))
    assert [line["number"] for line in lines] == list("012345")
    assert lines[4] | {"value": ""} == {
        "number": "4", "status": "killed", "reason": "signal 9", "exit_code": "-9", "model": "b", "seed": "1",
        "measure": TAG, "value": "", "seconds": "", "folder": "4_x",
    }  # fmt: skip
    assert (lines[3]["value"], lines[3]["seconds"], lines[5]["folder"]) == ("1.0", "2.0", "")


def test_the_best_is_of_those_that_ended_as_they_should(sweep: SweepFolder) -> None:
    assert best_job(sweep) == 3
    fail(sweep, 1, 2)  # no setting has several seeds
    text = report(rows_of(sweep, SETTINGS), SETTINGS)
    line = f"{program()} train model=b seed=0 num_threads=1"
    assert f"best: job 3, validation/nll_nats 1, the lowest of 2\n  {line}" in text
    assert "signal 9" in text
    finish(sweep, 3, "model=b", "seed=0", "num_threads=1", "name=mine")  # a name is of the sweep, and was of no run
    assert f"\n  {program()} train model=b seed=0 num_threads=1" in report(rows_of(sweep, SETTINGS), SETTINGS)
    assert "name=" not in report(rows_of(sweep, SETTINGS), SETTINGS)


@pytest.mark.parametrize(
    ("changes", "number"),
    [({"minimize": False}, 1), ({"measure": "test/nll_nats"}, 1), ({"measure": "test/nll_nats", "minimize": False}, 3)],
)
def test_measure_and_direction_can_be_chosen(sweep: SweepFolder, changes: dict[str, Any], number: int) -> None:
    assert best_job(sweep, settings(**changes)) == number


def declare(sweep: SweepFolder, declarations: dict[str, Any]) -> None:
    for number in range(5):
        amend(sweep, number, measures=declarations)


@pytest.mark.parametrize(("direction", "number"), [("lower", 1), ("higher", 3)])
def test_the_best_is_the_one_that_the_declaration_of_its_measure_says(
    sweep: SweepFolder, direction: str, number: int
) -> None:
    declare(sweep, {"nll_nats": {"unit": "nats/image", "kind": "exact", "direction": direction, "quantity": None}})
    assert best_job(sweep, settings(measure="test/nll_nats", minimize=None)) == number
    assert best_job(sweep, settings(measure="test/nll_nats", minimize=direction != "lower")) == 4 - number
    fail(sweep, 1, 2)
    rows = rows_of(sweep, settings(measure="test/nll_nats", minimize=None))
    assert ("the lowest" if direction == "lower" else "the highest") in report(rows, SETTINGS)


def test_the_advice_to_resume_names_the_jobs_that_get_their_time_again(sweep: SweepFolder) -> None:
    record = sweep.record(0)
    assert record is not None
    sweep.write_record(replace(record, status="interrupted", reason="trainer.max_minutes=1 is over"))
    rows = rows_of(sweep, SETTINGS)
    told = r"to run them again: LINE; those that reached trainer\.max_minutes get this time again: job 0$"
    with pytest.raises(SweepError, match=told):
        _raise_for(rows, None, way_on="LINE", is_search=False)


def test_values_of_different_measures_have_no_mean(sweep: SweepFolder) -> None:
    other = "quality/frechet_distance_classifier"
    amend(sweep, 1, selected_by=other, best={other: 600.0})
    rows = rows_of(sweep, SETTINGS)
    assert [(row.choices["model"], row.mean) for row in seed_rows(rows)] == [("a", None), ("b", 1.0)]
    assert "best: not chosen, the runs select by different measures" in report(rows, SETTINGS)


def test_a_bound_may_be_better_than_the_best_exact_value(sweep: SweepFolder) -> None:
    fail(sweep, 1, 2)
    bound = {"unit": "nats/image", "kind": "upper bound", "direction": "lower", "quantity": None}
    for number, kind in ((0, "upper bound"), (3, "exact")):
        amend(sweep, number, measures={"nll_nats": bound | {"kind": kind}})
    text = report(rows_of(sweep, SETTINGS), SETTINGS)
    assert "the lowest of 2; job 0: a bound, the true value may be better\n" in text


def test_settings_without_a_value_leave_the_others_ranked_by_their_means(sweep: SweepFolder) -> None:
    """The best run alone is of the worse setting: the luckiest seed."""
    for number, value in ((3, 2.5), (4, 3.0), (5, 3.0)):
        summary = {"status": "finished", "selected_by": TAG, "best": {TAG: value, "step": 10.0}}
        (sweep.path / f"{number}_x").mkdir(exist_ok=True)
        (sweep.path / f"{number}_x" / "summary.json").write_text(json.dumps(summary))
        finish(sweep, number, "model=b", f"seed={number - 3}", "num_threads=1")
    for number, seed in ((6, 0), (7, 1)):
        overrides = ("model=c", f"seed={seed}", "num_threads=1")
        sweep.write_record(JobRecord(number=number, overrides=overrides, folder=None, status="failed", exit_code=6))
    fail(sweep, 1)  # of the setting a, whose others have values
    (sweep.path / "1_x" / "summary.json").unlink()
    text = report(rows_of(sweep, SETTINGS), SETTINGS)
    assert f"best: jobs 3, 4, 5, mean {TAG} 2.83333, the only setting with a value for every seed" in text
    assert [row.choices["model"] for row in seed_rows(rows_of(sweep, SETTINGS))] == ["b", "a", "c"]
    fail(sweep, 4)
    text = report(rows_of(sweep, SETTINGS), SETTINGS)
    assert f"best: jobs 3, 5, mean {TAG} 2.75 of 2 of 3 seeds, the lowest of 2 settings" in text


@pytest.mark.parametrize("part", ["validation", "test"])
def test_a_likelihood_given_the_class_is_not_ranked_with_one_of_the_image_alone(sweep: SweepFolder, part: str) -> None:
    chosen = settings(measure=f"{part}/nll_nats")
    declare(sweep, {"nll_nats": asdict(negative_log_likelihood("exact"))})
    for number in range(4):
        configure(sweep, number)
    assert best_row(rows_of(sweep, chosen)) is not None
    amend(sweep, 3, measures={"nll_nats": asdict(negative_log_likelihood("exact", given_class=True))})
    rows = rows_of(sweep, chosen)
    assert best_row(rows) is None
    assert f"quantity {part}/nll_nats_given_class, not {part}/nll_nats" in report(rows, chosen)


@pytest.mark.parametrize("declarations", [{}, {"nll_nats": {"direction": "neither"}}, {"nll_nats": 3}])
def test_what_is_better_is_asked_where_no_direction_is_declared(
    sweep: SweepFolder, declarations: dict[str, Any]
) -> None:
    declare(sweep, declarations)
    chosen = settings(measure="test/nll_nats", minimize=None)
    rows = rows_of(sweep, chosen)
    assert best_row(rows) is None
    assert "test/nll_nats has no declared direction; sweep.minimize=true or false gives one" in report(rows, chosen)
    assert best_job(sweep, settings(minimize=None)) == 3  # what a run selects by: lower


def test_runs_that_select_by_different_measures_are_not_ranked(sweep: SweepFolder) -> None:
    other = "validation/nll_upper_bound_nats"
    amend(sweep, 3, selected_by=other, best={other: 0.5})
    rows = rows_of(sweep, SETTINGS)
    assert best_row(rows) is None
    assert "different measures (validation/nll_nats, validation/nll_upper_bound_nats)" in report(rows, SETTINGS)


def configure(sweep: SweepFolder, number: int, *, seed: int = 0, limit: int | None = None, **dataset: Any) -> None:
    facts = {"_target_": "genlab.data.digits.digits", "size": 28, "binarization": "threshold", "flip": False}
    content = {"seed": seed, "dataset": facts | dataset, "trainer": {"validation_images": limit, "ema_decay": None}}
    content["quality"] = {"interval": None, "num_samples": 500, "features": "auto", "inception_weights": None}
    (sweep.path / f"{number}_x" / "config.yaml").write_text(yaml.safe_dump(content))


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"size": 8}, "fingerprint of the data "),
        ({"classes": [0, 1]}, "fingerprint of the data "),
        ({"binarization": "none"}, "binarisation none, not threshold"),
        ({"limit": 64, "seed": 1}, "number of images 64, not all"),
    ],
)
@pytest.mark.parametrize("tag", [TAG, "test/nll_nats"])
def test_values_of_other_images_are_not_ranked(
    sweep: SweepFolder, changes: dict[str, Any], reason: str, tag: str
) -> None:
    for number in range(4):
        configure(sweep, number, **(changes if number == 3 else {}))
    chosen = settings(measure=tag)
    rows = rows_of(sweep, chosen)
    if tag == "test/nll_nats" and "limit" in changes:  # all images are tested
        assert best_row(rows) is not None
        return
    assert best_row(rows) is None
    told = f"best: not chosen, the jobs did not measure the same: job 3 not ranked with job 0, 1, 2: {reason}"
    assert told in report(rows, chosen)
    assert [row.choices["model"] for row in seed_rows(rows)] == ["a", "b"], "in the order of the jobs"


def test_seeds_are_ranked_where_they_choose_no_images(sweep: SweepFolder) -> None:
    training_alone = {"flip": True, "num_training": 100, "num_labels_per_class": 10, "label_seed": 2}
    for number in range(4):
        configure(sweep, number, seed=number, **(training_alone if number == 3 else {}))
    assert best_row(rows_of(sweep, SETTINGS)) is not None
    for number in range(4):
        configure(sweep, number, seed=number % 3, limit=64)
    rows = rows_of(sweep, SETTINGS)
    assert best_row(rows) is None
    assert "job 1 not ranked with job 0, 3: seed of the choice of images 1, not 0" in report(rows, SETTINGS)
    # Means of the same seeds are of the same images.
    (sweep.path / "5_x").mkdir()
    for number in (4, 5):
        (sweep.path / f"{number}_x" / "summary.json").write_text((sweep.path / "3_x" / "summary.json").read_text())
        configure(sweep, number, seed=number % 3, limit=64)
        finish(sweep, number, "model=b", f"seed={number % 3}", "num_threads=1")
    assert [row.choices["model"] for row in seed_rows(rows_of(sweep, SETTINGS))] == ["b", "a"]


def test_samples_are_compared_with_the_same_images_at_every_seed(sweep: SweepFolder) -> None:
    tag = "quality/frechet_distance_random_network"
    for number in range(4):
        amend(sweep, number, selected_by=tag, best={tag: 5.0 - number})
        configure(sweep, number, seed=number, limit=64)
    assert best_job(sweep) == 3
    configure(sweep, 3, size=8)
    assert best_row(rows_of(sweep, SETTINGS)) is None


def test_a_measure_that_nobody_has_is_answered_with_those_they_have(sweep: SweepFolder) -> None:
    chosen = settings(measure="test/nll_nat")
    text = report(rows_of(sweep, chosen), chosen)
    assert "no job has measured test/nll_nat; did you mean 'test/nll_nats'? (tags: test/nll_nats, validation" in text


def test_a_finished_job_without_the_measure_is_told_of(sweep: SweepFolder) -> None:
    chosen = settings(measure="test/nll_nat")
    lacking = [row for row in rows_of(sweep, chosen) if lacks_measure(row, chosen)]
    assert lacking, "those that have ended with other measures"
    assert all(row.record.exit_code == 0 for row in lacking)
    known = settings(measure="test/nll_nats")
    assert not any(lacks_measure(row, known) for row in rows_of(sweep, known))
    told = told_lacking(lacking[0], chosen)
    assert told.startswith(
        f"job {lacking[0].record.number} does not measure test/nll_nat; did you mean 'test/nll_nats'?"
    )


def test_runs_without_a_measure_of_their_own_are_not_ranked(sweep: SweepFolder) -> None:
    for run in sweep.path.glob("*_x"):
        (run / "summary.json").write_text(json.dumps({"selected_by": None, "final": {"train/discriminator/x": 1.0}}))
    assert "sweep.measure=... names one of train/discriminator/x" in report(rows_of(sweep, SETTINGS), SETTINGS)


def test_seeds_are_aggregated_as_the_statistics_module_does(sweep: SweepFolder) -> None:
    first, second = seed_rows(rows_of(sweep, SETTINGS))  # a setting without some of its seeds comes last
    assert first.choices == {"model": "a"}
    assert first.mean == pytest.approx(4.0)
    assert first.standard_deviation == pytest.approx(statistics.stdev([3.0, 5.0, 4.0]))
    assert (len(first.competing), len(first.records)) == (3, 3)
    # The killed run has a value too, of a model half trained: it must not count.
    assert (second.mean, second.standard_deviation) == (1.0, None)
    assert (len(second.competing), len(second.records)) == (1, 3)
    write_tables(sweep, SETTINGS)
    lines = (sweep.path / "seeds.csv").read_text(encoding="utf-8").splitlines()
    assert lines == ["model,measure,mean,standard_deviation,n,jobs", f"a,{TAG},4.0,1.0,3,3", f"b,{TAG},1.0,,1,3"]
    highest = seed_rows(rows_of(sweep, settings(minimize=False)))
    assert [row.mean for row in highest] == [4.0, 1.0]
    assert "1 of 3" in report(rows_of(sweep, SETTINGS), SETTINGS)
    by_mean = settings(minimize=False)
    assert report(rows_of(sweep, by_mean), by_mean, config_dir="mine").endswith(
        f"best: jobs 0, 1, 2, mean {TAG} 4, the only setting with a value for every seed\n"
        f"  {program()} train -m model=a num_threads=1 seed=0,1,2 --config-dir mine"
    )


def test_the_best_command_names_what_it_needs_to_find_a_users_package(
    sweep: SweepFolder, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PYTHONPATH", "/my place")
    for run in sweep.path.glob("*_x"):
        (run / "config.yaml").write_text("model: {_target_: my_vae.VAE}\n")
    called = program(["my_vae"])
    assert called.startswith("PYTHONPATH='/my place' GENLAB_ALLOW=my_vae ")
    for failing, line in (((), "-m model=a num_threads=1 seed=0,1,2"), ((1, 2), "model=b seed=0 num_threads=1")):
        fail(sweep, *failing)
        command = report(rows_of(sweep, SETTINGS), SETTINGS).splitlines()[-1]
        assert command == f"  {called} train {line}"


def test_a_value_that_is_not_finite_is_none(sweep: SweepFolder) -> None:
    assert measured({"selected_by": TAG, "best": {TAG: None}, "final": {TAG: float("nan")}}, None) == (TAG, None)
    assert measured({"final": {"watch/x": 2}}, "watch/x") == ("watch/x", 2.0)
    assert measured({}, None) == (None, None)


def test_keys_that_only_some_jobs_set_vary() -> None:
    assert varying([{"a": "1", "b": "2"}, {"a": "1"}]) == [{"b": "2"}, {"b": ""}]
    assert varying([{"a": "1"}]) == [{}]


def test_a_measure_that_orders_no_models_is_not_suggested(sweep: SweepFolder) -> None:
    """Such as the KL of a bound, of which the least is that of a model without latents."""
    declare(sweep, {"kl_nats": {"direction": "neither"}, "nll_nats": {"direction": "lower"}})
    for number in range(4):
        amend(sweep, number, test={"test/kl_nats": 1.0, "test/nll_nats": 5.0})
    chosen = settings(measure="test/kl_nat")
    assert "test/kl_nats" not in report(rows_of(sweep, chosen), chosen)
    known = settings(measure="test/kl_nats")
    assert not any(lacks_measure(row, known) for row in rows_of(sweep, known)), "it may still be asked for"
