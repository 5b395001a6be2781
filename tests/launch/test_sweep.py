"""Whole sweeps of real runs in real processes; each costs seconds."""

import csv
import json
import os
import re
import shlex
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from importlib.util import find_spec
from pathlib import Path

import pytest
import yaml

from genlab.config.compose import open_composer
from genlab.config.naming import register_resolvers
from genlab.errors import ConfigurationError
from genlab.launch import sweep_job as jobs_module
from genlab.launch.sweep import require_same_jobs, selection_measure
from genlab.launch.sweep_folder import JobRecord, SweepFolder, SweepPlan
from genlab.paths import program
from tests.conftest import Genlab
from tests.thinning import slow, thinned

Start = Callable[..., subprocess.Popen[str]]

TINY = [
    "trainer=smoke",
    "trainer.num_steps=2",
    "trainer.batch_size=8",
    "trainer.validation_interval=1",
    "num_threads=1",
]
TINY += ["trainer.validation_images=8", "trainer.num_initialization_images=8", "trainer.sample_interval=0"]
TINY += ["model.num_glimpses=2", "dataset.size=8"]
LONG = [*TINY, "trainer.num_steps=100000", "trainer.checkpoint_interval=20", "trainer.validation_interval=50"]


def table(sweep: Path) -> list[dict[str, str]]:
    with (sweep / "summary.csv").open(encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))


def only_sweep(root: Path) -> Path:
    (sweep,) = (root / "outputs" / "sweeps").iterdir()
    return sweep


@pytest.fixture
def start(tmp_path: Path) -> Iterator[Start]:
    """Return a function that starts ``genlab ARGUMENTS`` in the test's folder; kill its processes at the end."""
    started = []

    def start(*arguments: str) -> subprocess.Popen[str]:
        process = subprocess.Popen(
            [sys.executable, "-m", "genlab", *arguments],
            cwd=tmp_path,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            start_new_session=True,  # else the interruption of a test would reach the tests
            # A process started in the background of a shell ignores interruptions, and so would its children.
            preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
        )
        started.append(process)
        return process

    yield start
    for process in started:
        process.kill()
        process.communicate()


def wait_for(root: Path, pattern: str) -> Path:
    deadline = time.monotonic() + 150
    while not (found := sorted(root.glob(pattern))):
        assert time.monotonic() < deadline, f"no {pattern}"
        time.sleep(0.05)
    return found[0]


def process_of(run: Path) -> int:
    """Return the process that has locked a run folder, as recorded in the folder."""
    return int((run / ".owner").read_text(encoding="utf-8").split()[1])


def test_a_sweep_keeps_a_table_and_its_resumption_runs_what_is_not_done(
    genlab: Genlab, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # 12 pixels are wider than the images: only the second job's model can know.
    outcome = genlab("train", "-m", *TINY, "model.num_units=8", "model.read_size=3,12", "seed=1")
    outcome.assert_error(9, "1 of 2 jobs did not finish (job 1 failed)")
    sweep = only_sweep(tmp_path)
    assert sweep.name.startswith("0001-read_size-3-12-trainer-smoke")
    done, failed = table(sweep)
    assert (done["folder"], failed["folder"]) == ("000-read_size-3", "001-read_size-12")
    assert (done["status"], done["model.read_size"], done["measure"]) == (
        "finished",
        "3",
        "validation/nll_upper_bound_nats",
    )
    assert (failed["status"], failed["value"], failed["exit_code"]) == ("failed", "", "2")
    assert failed["reason"].startswith("model.read_size must be between 1 and 8")
    plan = yaml.safe_load((sweep / "sweep.yaml").read_text(encoding="utf-8"))
    assert [job[-2:] for job in plan["jobs"]] == [["model.read_size=3", "seed=1"], ["model.read_size=12", "seed=1"]]
    best = json.loads((sweep / done["folder"] / "summary.json").read_text(encoding="utf-8"))["best"]
    assert float(done["value"]) == best["validation/nll_upper_bound_nats"]
    config = (sweep / done["folder"] / "config.yaml").read_text(encoding="utf-8")
    assert "sweep" not in yaml.safe_load(config)
    (command,) = [line.strip() for line in outcome.output.splitlines() if line.startswith(f"  {program()} train")]
    assert command == f"{program()} train {' '.join(TINY)} model.num_units=8 model.read_size=3 seed=1"
    assert (sweep / failed["folder"] / "output.log").read_text(encoding="utf-8").count("Traceback") >= 1

    # Its failed job alone; the other is not touched, and the sweep's own settings may change.
    before = (sweep / done["folder"] / "train.log").read_bytes()
    started: list[int] = []

    def fail(command: object, record: JobRecord, *_: object) -> JobRecord:
        started.append(record.number)
        return replace(record, status="failed", exit_code=2)

    monkeypatch.setattr(jobs_module, "_run", fail)
    again = genlab("train", "-m", f"sweep.resume={sweep}", "sweep.measure=test/nll_upper_bound_nats")
    assert (again.code, started) == (9, [1])
    assert "job 0: finished before" in again.output
    assert (sweep / done["folder"] / "train.log").read_bytes() == before
    assert table(sweep)[0]["measure"] == "test/nll_upper_bound_nats"


@pytest.mark.slow
def test_a_dry_run_of_a_sweep_leaves_its_name_to_the_sweep(genlab: Genlab) -> None:
    arguments = ("train", "-m", *TINY, "trainer.test_at_end=false", "trainer.checkpoint_interval=0", "name=mine")
    assert genlab(*arguments, "seed=0,1,2", "trainer.dry_run=true").code == 0
    genlab(*arguments, "seed=3,4", "trainer.num_steps=3").checked()
    sweep = Path("outputs/sweeps/mine")
    assert [(row["seed"], row["status"]) for row in table(sweep)] == [("3", "finished"), ("4", "finished")]
    runs = sorted(path.parent for path in sweep.glob("*/summary.json"))
    assert [run.name for run in runs] == ["000-seed-3", "001-seed-4"]
    assert {json.loads((run / "summary.json").read_text())["step"] for run in runs} == {3}
    for more in ((), ("trainer.dry_run=true",)):
        genlab(*arguments, "seed=3,4", *more).assert_error(2, "name or hydra.sweep.dir must be new")


def test_a_resumption_whose_glob_finds_something_else_is_refused(tmp_path: Path) -> None:
    sweep = SweepFolder(tmp_path)
    before = (("experiment=a",), ("experiment=c",))
    sweep.write_plan(SweepPlan(overrides=("experiment=glob(*)",), config_dir=None, jobs=before), command="genlab")
    require_same_jobs(tmp_path, before)
    require_same_jobs(tmp_path, None)  # a search
    for jobs, told in (
        (
            (("experiment=a",), ("experiment=b",), ("experiment=c",)),
            "job 1 was experiment=c, and would be experiment=b",
        ),
        ((("experiment=a",),), "job 1 was experiment=c, and would be no job"),
    ):
        with pytest.raises(ConfigurationError, match=told):
            require_same_jobs(tmp_path, jobs)


def documented() -> list[list[str]]:
    text = (Path(__file__).parents[2] / "docs" / "sweeps.md").read_text(encoding="utf-8")
    lines = [line for block in text.split("```")[1::2] for line in block.splitlines()]
    return [shlex.split(line)[1:] for line in lines if line.startswith("genlab ")]


@pytest.fixture
def plans(monkeypatch: pytest.MonkeyPatch) -> list[SweepPlan]:
    """Return the plans of the sweeps that a test starts, whose jobs do not run."""
    found: list[SweepPlan] = []
    monkeypatch.setattr("genlab.launch.command.run_sweep", lambda sweep, settings, plan, **_: found.append(plan))
    return found


@pytest.mark.slow
def test_the_tables_of_the_improved_gan_are_one_command_each(genlab: Genlab, plans: list[SweepPlan]) -> None:
    page = (Path(__file__).parents[2] / "docs" / "experiments.md").read_text(encoding="utf-8")
    for command in re.findall("`genlab (train -m [^`]*)`", page):
        genlab(*shlex.split(command)).checked()
    ablation, labels, stacked = (plan.jobs for plan in plans)
    assert ablation is not None
    assert {job[0].removeprefix("experiment=improved_gan_cifar10") for job in ablation} == {
        *("", "_no_vbn", "_no_labels_ha", "_no_smoothing", "_no_labels", "_no_minibatch")
    }
    assert labels is not None
    assert len(labels) == 4 * 10
    assert stacked is not None
    assert len(stacked) == 5 * 3


@pytest.mark.slow
def test_the_documented_commands_pass_every_check_before_the_first_job(
    genlab: Genlab, tmp_path: Path, plans: list[SweepPlan]
) -> None:
    commands = [arguments for arguments in documented() if "sweep.resume=" not in " ".join(arguments)]
    assert len(commands) >= 2
    for arguments in commands:
        genlab(*arguments).checked()
    assert [plan.jobs and len(plan.jobs) for plan in plans[:3]] == [9, 6, None]  # the grid, that of SLURM, a search
    assert list(tmp_path.iterdir()) == []


REFUSED = [
    (["-m", "sweep.resume=nowhere"], "sweep.resume must be a folder of a sweep"),
    (["sweep.measure=test/x"], "sweep.measure is a setting of sweeps; add -m"),
    (["hydra/launcher=local"], "hydra/launcher is a setting of sweeps; add -m"),
    (["hydra.sweep.dir=x"], "hydra.sweep.dir is a setting of sweeps; add -m"),
    (["-m", "seed=0,1", "hydra.run.dir=x"], "hydra.run.dir is for a single run; hydra.sweep.dir places a sweep"),
    (["-m", "sweep.resume=x", "hydra.sweep.dir=x"], "hydra.sweep.dir must be left out with sweep.resume"),
    (["-m", "seed=0,1", "sweep.measure=x"], "sweep.measure must be a tag"),
    (["-m", "seed=0,1", "sweep.mesure=test/x"], "did you mean 'sweep.measure'?"),
    (["-m", "seed=0,1", "sweep.minimize=3"], "sweep.minimize must be true or false or null"),
    (["-m", "optimizer.default.lr=interval(0,1)"], "add hydra/sweeper=tpe"),
    (["-m", "experiment=glob(nothing*)"], "experiment=glob(nothing*) must sweep over at least one value, got 0"),
    (["-m", "seed=0,1", "hydra/launcher=local", "hydra.launcher.n_jobs=0"], "hydra.launcher.n_jobs must be"),
    (["-m", "seed=0,1", "hydra.job.chdir=true"], "hydra.job.chdir must be false"),
    (["hydra.job.chdir=true"], "hydra.job.chdir must be false"),
    (["hydra.mode=MULTIRUN", "seed=range(3,3)"], "must sweep over at least one value, got 0"),
    (["-m", "hydra/sweeper=tpe", "seed=1"], "needs something to search"),
    (["-m", "hydra/sweeper=tpe", "seed=1,2", "hydra.sweeper.n_trials=0"], "hydra.sweeper.n_trials must be at least 1"),
    (["-m", "hydra/sweeper=tpe", "seed=1,2", "hydra.sweeper.n_trails=3"], "did you mean 'hydra.sweeper.n_trials'?"),
    (["-m", "hydra/sweeper=tpe", "optimizer.default.lr=interval(-1,1)"], "optimizer.default.lr must be positive"),
    (["-m", "hydra/sweeper=tpe", "model=dcgan", "quality=off", "seed=1,2"], "sweep.measure must be given"),
    (
        ["-m", "hydra/sweeper=tpe", "seed=1,2", "sweep.measure=test/x"],
        "sweep.minimize must be true or false for test/x",
    ),
    (
        ["-m", "hydra/sweeper=tpe", "seed=1,2", "sweep.measure=test/kl_nats"],
        "sweep.minimize must be true or false for test/kl_nats",
    ),
]


@pytest.mark.parametrize(
    ("arguments", "message"), thinned(REFUSED, 4), ids=[" ".join(arguments) for arguments, _ in REFUSED]
)
def test_a_mistake_costs_a_line_and_leaves_no_folder(
    genlab: Genlab, tmp_path: Path, arguments: list[str], message: str
) -> None:
    genlab("train", *arguments).assert_error(2, message)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("arguments", [("hydra.mode=MULTIRUN",), slow((("-m", "hydra.mode=RUN"),))])
def test_a_sweep_is_asked_for_by_a_flag_or_a_setting(
    genlab: Genlab, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, arguments: tuple[str, ...]
) -> None:
    started: list[tuple[str, ...]] = []
    monkeypatch.setattr(jobs_module, "_run_and_record", lambda record, *_: started.append(record.overrides[-1:]))
    outcome = genlab("train", *arguments, "trainer=smoke", "seed=shuffle(0,1)")
    assert (outcome.code, outcome.errors) == (0, "")
    plan = SweepFolder(only_sweep(tmp_path)).read_plan()
    assert started == [job[-1:] for job in plan.jobs or ()]
    assert sorted(started) == [("seed=0",), ("seed=1",)]


@pytest.mark.parametrize(
    ("choice", "hidden"),
    [
        ("hydra/sweeper=tpe", "optuna"),
        ("hydra/launcher=local", "hydra_plugins.hydra_joblib_launcher"),
        ("hydra/launcher=slurm", "hydra_plugins.hydra_submitit_launcher"),
    ],
)
def test_a_missing_package_is_said_in_a_line(
    genlab: Genlab, monkeypatch: pytest.MonkeyPatch, choice: str, hidden: str
) -> None:
    monkeypatch.setattr("genlab.launch.sweep.find_spec", lambda name: None if name == hidden else find_spec(name))
    outcome = genlab("train", "-m", choice, "seed=1,2")
    outcome.assert_error(2, f"{choice} needs packages that are not installed: pip install 'genlab[sweep]'")


def test_a_full_disk_is_said_before_there_is_a_folder(
    genlab: Genlab, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("genlab.storage.free_bytes", lambda path: 10)
    for arguments in (("train", "-m", "trainer=smoke", "seed=0,1"), ("check", "-m", "model=draw,dcgan")):
        genlab(*arguments).assert_error(7, "1,000,000 bytes to write, 10 free")
        assert list(tmp_path.iterdir()) == []


@pytest.mark.slow
def test_a_sweep_with_configurations_of_ones_own_resumes_when_they_are_named_again(
    genlab: Genlab, tmp_path: Path
) -> None:
    (tmp_path / "mine" / "experiment").mkdir(parents=True)
    content = "# @package _global_\nmodel: {read_size: 40}\n"  # the one job fails at once
    (tmp_path / "mine" / "experiment" / "own.yaml").write_text(content)
    line = ("--config-dir", "mine", *TINY, "experiment=own")
    outcome = genlab("train", "-m", *line, "hydra.sweep.dir=sweep")
    assert outcome.code == 9, outcome.errors
    way_on = f"{program()} train -m sweep.resume=sweep --config-dir mine"
    assert way_on in outcome.errors
    genlab("train", "-m", "sweep.resume=sweep").assert_error(2, "add: --config-dir mine")
    assert genlab(*shlex.split(way_on)[1:]).code == 9


def test_another_sweeps_overrides_are_refused_on_resumption(genlab: Genlab, tmp_path: Path) -> None:
    sweep = SweepFolder(tmp_path)
    sweep.write_plan(SweepPlan(overrides=("seed=0,1", "sweep.minimize=true"), config_dir=None, jobs=None), command="")
    outcome = genlab("train", "-m", "seed=0,2", f"sweep.resume={tmp_path}")
    outcome.assert_error(2, "give all overrides or leave them out; they are seed=0,1")


@pytest.mark.slow
def test_jobs_that_are_killed_end_nothing_and_a_stopped_sweep_resumes(start: Start, tmp_path: Path) -> None:
    arguments = ["train", "-m", *LONG, "model.num_units=8,9,10", "optimizer.default.lr=1e-3"]
    sweep_process = start(*arguments)
    for number, number_of_signal in ((0, signal.SIGKILL), (1, signal.SIGTERM)):
        run = wait_for(tmp_path, f"outputs/sweeps/*/00{number}-*/checkpoints/last.safetensors").parent.parent
        os.kill(process_of(run), number_of_signal)
    wait_for(tmp_path, "outputs/sweeps/*/002-*/checkpoints/last.safetensors")
    sweep_process.send_signal(signal.SIGINT)
    output, _ = sweep_process.communicate(timeout=100)
    assert sweep_process.returncode == 130, output
    sweep = only_sweep(tmp_path)
    rows = [(row["status"], row["reason"].partition(" after step")[0], row["exit_code"]) for row in table(sweep)]
    assert rows == [
        ("killed", "signal 9, possibly for lack of memory", "-9"),
        ("interrupted", "stopped by SIGTERM", "143"),
        ("interrupted", "the sweep was stopped", "143"),
    ]
    assert f"{program()} train -m sweep.resume={sweep.relative_to(tmp_path)}" in output

    # A sweep that is killed leaves a job that saves and exits by itself.
    steps = [json.loads((run / "summary.json").read_text())["step"] for run in sorted(sweep.glob("0*-*"))]
    sweep_process = start("train", "-m", f"sweep.resume={sweep}")
    run = sorted(sweep.glob("000-*"))[0]
    deadline = time.monotonic() + 100
    while json.loads((run / "summary.json").read_text())["step"] <= steps[0]:
        assert time.monotonic() < deadline
        time.sleep(0.05)
    sweep_process.kill()
    sweep_process.communicate(timeout=100)
    assert sweep_process.returncode == -signal.SIGKILL
    while json.loads((run / "summary.json").read_text())["status"] != "interrupted":
        assert time.monotonic() < deadline
        time.sleep(0.05)

    # SIGTERM is answered as Ctrl-C is.
    sweep_process = start("train", "-m", f"sweep.resume={sweep}")
    record = (sweep / "jobs" / "0.json").stat().st_mtime_ns
    while (sweep / "jobs" / "0.json").stat().st_mtime_ns == record:
        assert time.monotonic() < deadline
        time.sleep(0.05)
    sweep_process.terminate()
    output, _ = sweep_process.communicate(timeout=100)
    assert sweep_process.returncode == 143, output


@pytest.mark.slow
def test_a_sweep_killed_half_way_is_finished_by_its_resumption_as_if_nothing_had_happened(
    genlab: Genlab, start: Start, tmp_path: Path
) -> None:
    steps = ["trainer.num_steps=400", "trainer.checkpoint_interval=20", "trainer.validation_interval=100"]
    process = start("train", "-m", *TINY, *steps, "model.num_units=8", "seed=0,1")
    wait_for(tmp_path, "outputs/sweeps/*/001-*/checkpoints/last.safetensors")
    process.kill()
    process.wait()
    sweep = only_sweep(tmp_path)
    first = (sweep / table(sweep)[0]["folder"] / "train.log").read_bytes()
    resumed = genlab("train", "-m", f"sweep.resume={sweep}").checked()
    rows = table(sweep)
    assert [row["status"] for row in rows] == ["finished", "finished"]
    assert (sweep / rows[0]["folder"] / "train.log").read_bytes() == first
    assert "job 0: finished before" in resumed.output
    log = (sweep / rows[1]["folder"] / "output.log").read_text(encoding="utf-8")
    assert log.count("model     draw, ") == 2, "the second job began once and went on once"

    genlab("train", *TINY, *steps, "model.num_units=8", "seed=1", "hydra.run.dir=whole").checked()
    best = json.loads((tmp_path / "whole" / "summary.json").read_text(encoding="utf-8"))["best"]
    assert float(rows[1]["value"]) == best["validation/nll_upper_bound_nats"]


@pytest.mark.slow
def test_a_diverging_job_has_its_own_word(genlab: Genlab, tmp_path: Path) -> None:
    arguments = [
        "optimizer=sgd",
        "recipe=none",
        "optimizer.default.lr=1e30,1e-3",
        "trainer.num_steps=20",
        "model.num_units=8",
    ]
    outcome = genlab("train", "-m", *TINY, *arguments, "model.num_units=8")
    assert outcome.code == 9
    assert [row["status"] for row in table(only_sweep(tmp_path))] == ["diverged", "finished"]


@pytest.mark.slow
@pytest.mark.parametrize("launcher", ["local", "slurm_rehearsal"])
def test_a_launcher_runs_jobs_in_workers_and_a_failed_one_ends_nothing(
    start: Start, tmp_path: Path, launcher: str
) -> None:
    arguments = [f"hydra/launcher={launcher}", "model.num_units=8", "model.read_size=3,12,4"]
    process = start("train", "-m", *TINY, *arguments)
    output, _ = process.communicate(timeout=300)
    assert process.returncode == 9, output
    assert [row["status"] for row in table(only_sweep(tmp_path))] == ["finished", "failed", "finished"]


@pytest.mark.slow
def test_an_interrupted_sweep_of_several_at_once_saves_every_job(start: Start, tmp_path: Path) -> None:
    process = start("train", "-m", "hydra/launcher=local", *LONG, "model.num_units=8,9")
    for number in (0, 1):
        wait_for(tmp_path, f"outputs/sweeps/*/00{number}-*/checkpoints/last.safetensors")
    os.killpg(process.pid, signal.SIGINT)  # as a terminal does
    output, _ = process.communicate(timeout=100)
    assert process.returncode == 130, output
    assert "Traceback" not in output
    sweep = only_sweep(tmp_path)
    assert [row["status"] for row in table(sweep)] == ["interrupted", "interrupted"]
    for run in sweep.glob("0*-*"):
        assert json.loads((run / "summary.json").read_text())["status"] == "interrupted"


@pytest.mark.slow
def test_a_search_prunes_real_runs_and_names_the_best(start: Start, tmp_path: Path) -> None:
    arguments = ["hydra/sweeper=tpe", "hydra.sweeper.n_trials=3", "hydra.sweeper.n_finished_before_pruning=1"]
    # With a rate this small a run learns nothing: it is pruned after the first validation.
    arguments += ["optimizer.default.lr=choice(1e-2,1e-9)", "hydra.sweeper.seed=0", "trainer.validation_images=64"]
    arguments += ["trainer.num_steps=1000", "trainer.validation_interval=100", "model.num_units=8"]
    process = start("train", "-m", *TINY, *arguments)
    output, _ = process.communicate(timeout=400)
    assert process.returncode == 0, output
    rows = table(only_sweep(tmp_path))
    assert [(row["optimizer.default.lr"], row["status"]) for row in rows] == [
        ("1e-09", "finished"),
        ("0.01", "finished"),
        ("1e-09", "pruned"),
    ], output
    assert "best: job" in output
    assert "optimizer.default.lr=0.01" in output.split("best: job")[1]


@pytest.mark.parametrize(
    ("model", "measure"),
    [("draw", "nll_upper_bound_nats"), ("dcgan", None), ("semi_supervised_gan", "error"), ("acgan", None)],
)
def test_what_a_search_asks_for_is_what_a_model_or_its_conditioning_selects_by(model: str, measure: str | None) -> None:
    register_resolvers()
    with open_composer("train", config_dir=None) as composer:
        assert selection_measure(composer.compose([f"model={model}"]).model) == measure
