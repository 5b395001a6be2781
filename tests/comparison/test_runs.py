"""Reading of a folder of runs; no file in it can end the reading."""

import errno
import json
import os
import re
import shutil
import time
from collections.abc import Callable
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
import yaml

from genlab.comparison.charts import MAX_POINTS
from genlab.comparison.page import as_page
from genlab.comparison.ranking import sorted_runs
from genlab.comparison.runs import curves, newest_samples, read_run, read_runs
from genlab.comparison.table import as_csv, as_json, as_text
from genlab.errors import ConfigurationError
from genlab.run.hyperparameters import flat
from genlab.run.measured import record_of
from tests.comparison.conftest import RunMaker, entry


def amend(path: Path, **entries: Any) -> None:
    """Change entries of a JSON file."""
    path.write_text(json.dumps(json.loads(path.read_text()) | entries))


def test_a_folder_is_searched_and_each_run_counted_once(make_run: RunMaker, tmp_path: Path) -> None:
    first, second = make_run("digits_draw/one"), make_run("sweeps/then/0_lr-1")
    (first / "samples" / "deeper").mkdir(parents=True)
    (first / "samples" / "deeper" / "summary.json").write_text("{}")
    runs = read_runs([tmp_path / "outputs", second, first])
    assert [run.folder for run in runs] == [first, second]
    assert [run.name for run in runs] == ["digits_draw/one", "sweeps/then/0_lr-1"]
    assert [run.name for run in read_runs([second])] == ["0_lr-1"]


def test_a_folder_that_may_not_be_read_is_left_out_with_a_warning(
    make_run: RunMaker, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    make_run("digits_draw/one")
    theirs = tmp_path / "outputs" / "private"
    theirs.mkdir()
    iterdir = Path.iterdir

    def refused(self: Path) -> Any:
        if self == theirs:
            raise PermissionError(errno.EACCES, "Permission denied", str(self))
        return iterdir(self)

    monkeypatch.setattr(Path, "iterdir", refused)
    assert [run.name for run in read_runs([tmp_path / "outputs"])] == ["one"]
    assert caplog.messages == [f"{theirs} is left out: Permission denied"]
    with pytest.raises(PermissionError):
        read_runs([theirs])


def test_what_a_run_says(make_run: RunMaker) -> None:
    folder = make_run(
        "a", overrides=("model=draw", "dataset.root=/my data"), curve=[1.0, 2.0, 3.0], measures=[entry("nll_nats", 1.0)]
    )
    run = read_run(folder, name="a")
    assert (run.status, run.model, run.dataset, run.step, run.num_parameters) == (
        *("finished", "draw", "binarized_mnist"),
        *(100, 1234),
    )
    assert run.commands == ("genlab train model=draw 'dataset.root=/my data'",)
    assert (run.commit, run.hardware, run.images_per_second) == ("0123456", "A Processor, 1 thread", 51.0)
    assert run.configuration["model"] == "draw"
    assert run.configuration["optimizer.default.lr"] == 1e-3
    assert run.problems == ()
    assert [record.name for record in run.records] == ["nll_nats"]


def test_the_speed_is_the_median_over_the_log(make_run: RunMaker) -> None:
    folder = make_run("a")
    lines = [{"step": step, "speed/images_per_second": speed} for step, speed in enumerate((2.0, 50.0, 60.0))]
    (folder / "metrics.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    assert read_run(folder, name="a").images_per_second == 50.0


def test_a_resumed_run_is_repeated_by_all_its_lines(make_run: RunMaker) -> None:
    folder = make_run("a")
    lines = ["genlab train model=draw", "genlab train resume=a trainer.num_steps=5", "genlab train resume=a device=cpu"]
    amend(folder / "environment.json", command=lines[-1], commands=lines)
    assert read_run(folder, name="a").commands == tuple(lines)
    shutil.rmtree(folder / ".hydra")
    assert read_run(folder, name="a").commands == tuple(lines)


@pytest.mark.parametrize(
    ("told", "hardware"),
    [
        ({"num_processes": 1}, "A Processor, 1 thread"),
        ({"cpu_capability": "AVX512"}, "A Processor (AVX512), 1 thread"),
        ({"num_processes": 2}, "A Processor, 2 processes, 1 thread each"),
        ({"num_processes": 4, "num_threads": 8}, "A Processor, 4 processes, 8 threads each"),
        ({"num_processes": 1, "device": "cuda:1 (A Card)"}, "cuda:1 (A Card)"),
        ({"num_processes": 4, "device": "cuda:0 (A Card)"}, "4 processes, cuda (A Card) each"),
        ({"num_processes": "many"}, "A Processor, 1 thread"),
    ],
)
def test_the_cost_is_that_of_all_processes(make_run: RunMaker, told: dict[str, Any], hardware: str) -> None:
    folder = make_run("a")
    amend(folder / "environment.json", **told)
    assert read_run(folder, name="a").hardware == hardware


def test_a_resumed_run_is_repeated_by_its_first_command_and_those_that_resumed_it(make_run: RunMaker) -> None:
    folder = make_run("a")
    commands = ["genlab train resume=outputs/a trainer.num_steps=200"]
    amend(folder / "environment.json", commands=commands, git={"commit": "ab" * 20, "is_dirty": True})
    run = read_run(folder, name="a")
    assert run.commands == ("genlab train model=draw", "genlab train resume=outputs/a trainer.num_steps=200")
    assert run.commit == "abababa+"
    shutil.rmtree(folder / ".hydra")
    assert read_run(folder, name="a").commands == ("genlab train resume=outputs/a trainer.num_steps=200",)


def test_folders_that_training_did_not_write_lack_nothing(make_run: RunMaker, tmp_path: Path) -> None:
    folder = make_run("a", measures=[entry("nll_nats", 1.0)])
    export, results = tmp_path / "export", tmp_path / "results"
    for place, names in ((export, ("config.yaml", "evaluation.json")), (results, ("evaluation.json",))):
        place.mkdir()
        for name in names:
            shutil.copy(folder / name, place)
    (export / "model.safetensors").touch()
    of_export, of_results = (read_run(place, name="b") for place in (export, results))
    assert (of_export.status, of_export.step, of_export.dataset, of_export.problems) == (
        "export", 90, "binarized_mnist", (),
    )  # fmt: skip
    assert (of_results.status, of_results.step, of_results.dataset, of_results.problems) == (
        "evaluation", 90, "binarized_mnist", (),
    )  # fmt: skip
    (export / "config.yaml").write_text("{")
    (problem,) = read_run(export, name="b").problems
    assert problem.startswith("config.yaml cannot be read: it is no YAML")


BOMB = "a: &a [x,x]\nb: &b [*a,*a]\nc: &c [*b,*b]\n"


@pytest.mark.parametrize("name", ["summary.json", "environment.json", "evaluation.json", "config.yaml"])
@pytest.mark.parametrize(
    "content", [b"", b"\xff\xfe\x00", b"{", b"[1, 2]", b"null", BOMB.encode(), b"!!python/name:os.system"]
)
def test_no_damaged_file_ends_the_reading(make_run: RunMaker, name: str, content: bytes) -> None:
    folder = make_run("a", measures=[entry("nll_nats", 1.0)])
    (folder / name).write_bytes(content)
    (problem,) = read_run(folder, name="a").problems
    assert problem.startswith(name)


@pytest.mark.parametrize(
    "name", ["summary.json", "environment.json", "evaluation.json", "config.yaml", "metrics.jsonl"]
)
def test_what_is_no_ordinary_file_of_the_folder_is_named_and_not_read(
    make_run: RunMaker, tmp_path: Path, name: str
) -> None:
    def problems(trap: Callable[[Path], None]) -> str:
        folder = make_run(f"{name}/{trap.__name__}", measures=[entry("nll_nats", 1.0)])
        content = (folder / name).read_bytes()
        (folder / name).unlink()
        (tmp_path / "elsewhere").write_bytes(content)
        trap(folder / name)
        (problem,) = read_run(folder, name="a").problems
        return problem

    def link(path: Path) -> None:
        path.symlink_to(tmp_path / "elsewhere")

    def pipe(path: Path) -> None:
        os.mkfifo(path)

    assert problems(link) == f"{name} cannot be read: it leads out of the folder"
    assert problems(pipe) == f"{name} cannot be read: it is not an ordinary file"


@pytest.mark.parametrize("content", ["a: " + "[" * 40_000 + "]" * 40_000, "? " * 40_000])
def test_a_deeply_nested_configuration_does_not_crash_the_reader(make_run: RunMaker, content: str) -> None:
    folder = make_run("a")
    (folder / "config.yaml").write_text(content)
    (problem,) = read_run(folder, name="a").problems
    # PyYAML has a limit of its own from 6.0.4 on.
    assert re.match(r"config\.yaml cannot be read: it .*(nested at most 32 deep|maximum nesting depth)", problem)


def test_samples_of_another_folder_are_not_shown(make_run: RunMaker, tmp_path: Path) -> None:
    folder = make_run("a", has_samples=True)
    (folder / "samples").rename(tmp_path / "elsewhere")
    (folder / "samples").symlink_to(tmp_path / "elsewhere")
    assert newest_samples(folder) is None


def test_missing_files_are_reported(make_run: RunMaker) -> None:
    folder = make_run("a")
    for name in ("summary.json", "environment.json", "metrics.jsonl"):
        (folder / name).unlink()
    run = read_run(folder, name="a")
    assert run.status == "unknown"
    assert run.problems == ("no summary.json", "no environment.json")
    assert (run.images_per_second, run.hardware, run.commit) == (None, None, None)


def test_a_job_that_never_started_tells_why(tmp_path: Path) -> None:
    folder = tmp_path / "sweep" / "1_read_size-12"
    (folder / ".hydra").mkdir(parents=True)
    lines = ("INFO genlab: x", "ERROR genlab: of an earlier start", "ERROR genlab: model.read_size is wrong")
    (folder / "train.log").write_text("".join(f"2026-01-01 {line}\n" for line in lines))
    (run,) = read_runs([tmp_path])
    assert (run.status, run.reason) == ("unknown", "model.read_size is wrong")


def test_a_running_run_that_is_silent_is_told_apart(make_run: RunMaker) -> None:
    folder = make_run("a", summary={"status": "running"})
    assert read_run(folder, name="a").status == "running"
    for name in ("summary.json", "metrics.jsonl"):
        os.utime(folder / name, (time.time() - 7300,) * 2)
    assert read_run(folder, name="a").status == "running, silent for 2.0 h"


def test_a_job_of_a_sweep_that_was_killed_is_not_running(make_run: RunMaker) -> None:
    folder = make_run("sweep/3_seed-3", summary={"status": "running"})
    (folder.parent / "jobs").mkdir()
    job = {"number": 3, "folder": "3_seed-3", "status": "killed", "exit_code": -9}
    (folder.parent / "jobs" / "3.json").write_text(json.dumps(job))
    assert read_run(folder, name="a").status == "killed"
    (folder.parent / "jobs" / "3.json").write_text(json.dumps(job | {"folder": "3_seed-4"}))
    assert read_run(folder, name="a").status == "running"


@pytest.mark.parametrize(
    ("own", "in_sweep", "shown"),
    [
        ("finished", "failed", "finished"),
        ("finished", "killed", "finished"),
        ("finished", "pruned", "finished"),
        ("interrupted", "pruned", "pruned"),
        ("interrupted", "failed", "interrupted"),
        (None, "failed", "failed"),
    ],
)
def test_a_job_that_was_resumed_by_hand_tells_of_itself(
    make_run: RunMaker, own: str | None, in_sweep: str, shown: str
) -> None:
    folder = make_run("sweep/3_seed-3", summary={"status": own})
    (folder.parent / "jobs").mkdir()
    job = {"number": 3, "folder": "3_seed-3", "status": in_sweep, "reason": "of the sweep", "exit_code": 6}
    (folder.parent / "jobs" / "3.json").write_text(json.dumps(job))
    run = read_run(folder, name="a")
    assert (run.status, run.reason == "of the sweep") == (shown, shown != own)


def test_an_evaluation_of_earlier_weights_is_reported(make_run: RunMaker) -> None:
    folder = make_run("a", measures=[entry("nll_nats", 1.0)])
    amend(folder / "evaluation.json", checkpoint="last.safetensors")
    (problem,) = read_run(folder, name="a").problems
    assert "evaluation.json is of step 90, the run is at step 100" in problem


def test_an_evaluation_of_an_earlier_best_checkpoint_is_reported(make_run: RunMaker) -> None:
    for best, problems in ((85.0, 0), (90.0, 0), (95.0, 1)):
        folder = make_run(f"a{best}", summary={"best": {"step": best}}, measures=[entry("nll_nats", 1.0)])
        found = read_run(folder, name="a").problems
        assert len(found) == problems, found
    assert "evaluation.json is of step 90, the best checkpoint is of step 95" in found[0]


def test_a_run_of_a_newer_format_says_so(make_run: RunMaker) -> None:
    folder = make_run("a", configuration={"format_version": 99})
    (problem,) = read_run(folder, name="a").problems
    assert problem.startswith(f"{folder}/config.yaml has format version 99, and this version of genlab reads versions")


def test_curves_keep_gaps_and_leave_out_half_written_lines(make_run: RunMaker) -> None:
    folder = make_run("a", curve=[1.0, None, 3.0])
    with (folder / "metrics.jsonl").open("a") as file:
        file.write('{"step": 30, "train/mod')
    assert curves(folder)["train/model/nll_nats"] == [(0, 1.0), (10, None), (20, 3.0)]
    assert set(curves(folder)) == {"train/model/nll_nats", "speed/images_per_second"}
    assert curves(folder / "nowhere") == {}


def test_a_long_log_gives_evenly_chosen_points_in_order_of_their_steps(make_run: RunMaker) -> None:
    folder = make_run("a")
    steps = [*range(3000, 6000), *range(3000)]  # as after a resumption from an older checkpoint, were it not cut
    lines = "".join(f'{{"step": {step}, "a/b": {step / 2}}}\n' for step in steps)
    (folder / "metrics.jsonl").write_text(lines)
    points = curves(folder)["a/b"]
    assert points == [(step, step / 2) for step, _ in points]
    assert (len(points), points[0][0], points[-1][0]) == (MAX_POINTS, 0, 5999)
    assert {later[0] - earlier[0] for earlier, later in pairwise(points)} == {20, 21}


def test_where_the_data_lie_is_no_part_of_what_they_are(make_run: RunMaker) -> None:
    """A resumed run has a cache of the user's own, and is ranked with the others all the same."""

    def identity(name: str, **changes: Any) -> str | None:
        dataset = {"_target_": "genlab.data.folder.folder", "root": "/a", "cache": None, "binarization": "none"}
        validated = {"best": {"validation/nll_nats": 1.0}}
        folder = make_run(name, summary=validated, configuration={"dataset": dataset | changes})
        (record,) = read_run(folder, name=name).records
        return record.dataset_fingerprint

    assert identity("a") == identity("b", cache="/b", download=False)
    assert identity("a2") != identity("c", root="/c")
    assert identity("d", num_labels_per_class=10) == identity("e", label_seed=1, flip=True), "of training alone"


def test_samples_measured_by_other_weights_of_inception_are_not_ranked_together() -> None:
    def features(**quality: object) -> str | None:
        settings = {"features": "auto", "inception_weights": None} | quality
        tag = "quality/frechet_distance_inception"
        return record_of(tag, 1.0, {}, {"trainer": {}, "dataset": {}, "quality": settings}).features

    assert features() == "auto"
    assert features(inception_weights="/a.pth") == "/a.pth"


HUGE = 10**400


def test_numbers_that_no_float_holds_are_not_known(make_run: RunMaker, tmp_path: Path) -> None:
    told = {"step": HUGE, "seconds": HUGE, "num_parameters": -HUGE, "test": {"test/nll_nats": HUGE}}
    validated = {"best": {"validation/nll_nats": HUGE, "validation/kl_nats": 1.0}}
    make_run("a", summary=told | validated, configuration={"seed": 2**64})
    measures = [
        entry("nll_nats", HUGE),
        entry("kl_nats", 2.0, standard_error=HUGE, num_examples=HUGE, seed=HUGE),
    ]
    folder = make_run("b", summary=told, measures=measures)
    log = {"step": HUGE, "speed/images_per_second": HUGE}
    (folder / "metrics.jsonl").write_text(json.dumps(log) + "\n")
    first, second = runs = read_runs([tmp_path / "outputs"])
    for run in runs:
        assert (run.step, run.seconds, run.num_parameters) == (None, None, None)
    assert [(record.name, record.value) for record in first.records] == [("validation/kl_nats", 1.0)]
    (record,) = second.records
    assert (record.value, record.standard_error, record.num_examples, record.seed) == (2.0, None, None, None)
    assert second.images_per_second is None
    assert "evaluation.json: 1 measures cannot be read" in second.problems
    for text in (as_text(runs), as_csv(runs), as_json(runs), as_page(runs, command="genlab compare")):
        assert "1000000000" not in text
    assert sorted_runs(runs, "seed")[0] is second


@pytest.mark.parametrize("digits", ["9" * 201, "0x" + "f" * 5000, "-1" + ":59" * 2000, "0b" + "1" * 40_000])
def test_a_number_of_thousands_of_digits_is_reported_and_not_shown(make_run: RunMaker, digits: str) -> None:
    """Python refuses to show it: a message, a table or a page with it would end in an error of its own."""
    folder = make_run("a")
    with (folder / "config.yaml").open("a") as file:
        file.write(f"other: {digits}\n")
    (problem,) = read_run(folder, name="a").problems
    assert problem == "config.yaml cannot be read: it must hold no number of more than 200 digits"


def test_a_number_in_quotes_is_a_text(make_run: RunMaker) -> None:
    folder = make_run("a", configuration={"other": "9" * 300})
    assert read_run(folder, name="a").configuration["other"] == "9" * 300


def test_the_newest_samples(make_run: RunMaker) -> None:
    assert newest_samples(make_run("a")) is None
    folder = make_run("b", has_samples=True)
    assert newest_samples(folder) == folder / "samples" / "step_00000100.png"


def test_nested_data_by_dotted_key() -> None:
    node = yaml.safe_load("a: {_target_: x.Y, _partial_: true, b: [1, 2], c: {d: null}}")
    assert flat(node) == {"a": "x.Y", "a.b": "[1, 2]", "a.c.d": None}


def test_a_place_without_runs_is_refused_with_the_nearest_name(
    make_run: RunMaker, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    make_run("digits_draw/one")
    monkeypatch.chdir(tmp_path)
    with pytest.raises(ConfigurationError, match=r"no folder digit_draw; did you mean 'outputs/digits_draw'\?"):
        read_runs([Path("digit_draw")])
    with pytest.raises(ConfigurationError, match=r"did you mean '.*digits_draw'"):
        read_runs([tmp_path / "outputs" / "digit_draw"])
    (tmp_path / "empty").mkdir()
    with pytest.raises(ConfigurationError, match=r"no run in .*empty"):
        read_runs([tmp_path / "empty"])
