"""Fault 4: configurations from somebody who wants code to run: on the line, in a file, in a run folder, in a sweep's.

What a target may be is tested in tests/config/test_targets.py; here each way in is tried with all of them.
"""

import os
import pickle
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import hydra.utils
import pytest
import yaml

from genlab.launch import command as application
from tests.config.test_targets import HOSTILE
from tests.conftest import Outcome
from tests.faults.harness import run
from tests.faults.tally import Tally

FAULT = "4 malicious configuration"
PLACES = ("the command line", "an experiment file", "a run folder")
NODES = ("model", "dataset", "schedule", "optimizer.default")
# Each target in one place on every run of the tests, in the others with the slow ones.
ATTACKS = [
    pytest.param(number, place, marks=[] if (number + index) % len(PLACES) == 0 else pytest.mark.slow)
    for number in range(len(HOSTILE))
    for index, place in enumerate(PLACES)
]


@pytest.fixture(scope="module")
def configuration(tmp_path_factory: pytest.TempPathFactory) -> str:
    """The config.yaml of a run."""
    folder = tmp_path_factory.mktemp("configuration") / "run"
    words = ("dataset.size=8", "trainer=smoke", "trainer.num_steps=1", "trainer.sample_interval=0")
    result = run("train", *words, "trainer.test_at_end=false", "num_threads=1", folder=folder, timeout=300)
    assert result.returncode == 0, result.stderr
    return (folder / "config.yaml").read_text(encoding="utf-8")


def with_node(values: dict[str, Any], key: str, node: dict[str, Any]) -> dict[str, Any]:
    """The values with a node in the place of one of theirs."""
    head, _, tail = key.partition(".")
    return values | {head: node if not tail else values.get(head, {}) | {tail: node}}


@pytest.mark.parametrize(("number", "place"), ATTACKS)
def test_nothing_that_a_configuration_names_runs(
    genlab: Callable[..., Outcome], configuration: str, tally: Tally, number: int, place: str
) -> None:
    target, arguments = HOSTILE[number]
    key = NODES[number % len(NODES)]
    node = {"_target_": target, **arguments}
    with tally.trying(FAULT, f"targets in {place}"):
        if place == "the command line":
            quoted = [f"++{key}.{name}='{value}'" for name, value in node.items()]
            outcome = genlab("train", *quoted)
        elif place == "an experiment file":
            Path("theirs/experiment").mkdir(parents=True)
            text = f"# @package _global_\n{yaml.safe_dump(with_node({}, key, node))}"
            Path("theirs/experiment/hostile.yaml").write_text(text)
            outcome = genlab("train", "--config-dir", "theirs", "experiment=hostile")
        else:
            Path("run").mkdir()
            Path("run/config.yaml").write_text(yaml.safe_dump(with_node(yaml.safe_load(configuration), key, node)))
            outcome = genlab("sample", "run=run")
        assert (outcome.code, outcome.errors.count("\n")) == (2, 1), outcome.errors
        assert not Path("MARKER").exists()
        assert not Path("outputs").exists()


def test_hydra_itself_would_build_some_of_them(tmp_path: Path, tally: Tally) -> None:
    node = {"_target_": "builtins.open", "file": str(tmp_path / "MARKER"), "mode": "w"}
    hydra.utils.instantiate(node).close()
    assert (tmp_path / "MARKER").exists()
    tally.wrong_variant_noticed(FAULT, "hydra.utils.instantiate")


TAGS = [
    "model: !!python/object/apply:os.mkdir [MARKER]",
    "seed: !!python/object/new:os.mkdir [MARKER]",
    "seed: !!python/name:os.system",
    "a: &a [1, 1]\nb: &b [*a, *a]\nseed: [*b, *b]",
]


@pytest.mark.parametrize("content", TAGS)
@pytest.mark.parametrize("place", PLACES[1:])
def test_a_tag_makes_no_object(genlab: Callable[..., Outcome], tally: Tally, place: str, content: str) -> None:
    with tally.trying(FAULT, "YAML tags and anchors"):
        if place == "an experiment file":
            Path("theirs/experiment").mkdir(parents=True)
            Path("theirs/experiment/hostile.yaml").write_text(f"# @package _global_\n{content}\n")
            outcome = genlab("train", "--config-dir", "theirs", "experiment=hostile")
        else:
            Path("run").mkdir()
            Path("run/config.yaml").write_text(content)
            outcome = genlab("train", "resume=run")
        assert (outcome.code, outcome.errors.count("\n")) == (2, 1), outcome.errors
        assert not Path("MARKER").exists()


def test_a_process_runs_neither_callbacks_nor_a_pickle(tmp_path: Path, tally: Tally, monkeypatch: Any) -> None:
    """Both are run by Hydra itself, before any job: the whole program must refuse."""
    monkeypatch.chdir(tmp_path)
    callbacks = Path("theirs/hydra/callbacks")
    callbacks.mkdir(parents=True)
    (callbacks / "hostile.yaml").write_text(
        "# @package _global_\nhydra:\n  callbacks:\n    x: {_target_: os.mkdir, path: MARKER}\n"
    )
    Path("again").mkdir()
    Path("again/config.pickle").write_bytes(pickle.dumps({}))
    with tally.trying(FAULT, "callbacks and reruns in a process of their own", count=2):
        for words in (
            ("train", "--config-dir", "theirs", "hydra/callbacks=hostile"),
            ("train", "--experimental-rerun", "again/config.pickle"),
        ):
            result = run(*words, timeout=300)
            assert (result.returncode, result.stderr.count("\n")) == (2, 1), result.stderr
            assert not Path("MARKER").exists()
            shutil.rmtree("outputs", ignore_errors=True)


CODE = {"_target_": "torch.utils.collect_env.run", "command": "touch MARKER"}
ON_LINE = "{_target_:torch.utils.collect_env.run,command:'touch MARKER'}"
FACTORY = {"()": "torch.utils.collect_env.run", "command": "touch MARKER"}
JOBLIB = "hydra_plugins.hydra_joblib_launcher.joblib_launcher.JoblibLauncher"
SWEEP = ("train", "-m", "trainer=smoke", "seed=0,1")
LAUNCHED = (
    "launcher and sweeper of a multirun",
    "settings that reach a shell or a pickle",
    "what Hydra does by itself",
)
ON_THE_LINE = [
    *((LAUNCHED[0], (*SWEEP, *words)) for words in (
        (f"+hydra.launcher.x={ON_LINE}",),
        (f"+hydra.launcher.x=[{ON_LINE}]",),
        (f"+hydra.launcher.x={{y:{ON_LINE}}}",),
        (f"+evil={ON_LINE}", "+hydra.launcher.x=${evil}"),
        (f"+evil={ON_LINE}", "hydra.launcher=${evil}"),
        (f"+hydra.sweeper.x={ON_LINE}",),
        ("hydra/sweeper=tpe", f"hydra.sweeper.n_jobs={ON_LINE}"),
        ("hydra/launcher=local", f"hydra.launcher.pre_dispatch={ON_LINE}"),
        ("hydra/launcher=local", "hydra.launcher.pre_dispatch='9**9**9'"),
        ("hydra.launcher._target_=torch.utils.collect_env.run", "+hydra.launcher.command='touch MARKER'"),
        ("hydra.sweeper._target_=hydra_plugins.theirs.Sweeper",),
        ("+hydra.launcher._recursive_=true",),
        ("+hydra.launcher._args_=[1]",),
    )),
    *((LAUNCHED[0], (*words, f"+hydra.launcher.x={ON_LINE}")) for words in (
        ("sample", "-m", "run=x", "seed=0,1"),
        ("evaluate", "-m", "run=x", "seed=0,1"),
        ("check", "-m", "model=draw,dcgan"),
    )),
    *((LAUNCHED[1], (*SWEEP, f"hydra/launcher={launcher}", *words)) for launcher, *words in (
        ("slurm", "+hydra.launcher.setup=['touch MARKER']"),
        ("slurm", "+hydra.launcher.setup=x"),
        ("slurm", "hydra.launcher.partition='gpu\ntouch MARKER #'"),
        ("slurm", "+hydra.launcher.srun_args=['--task-prolog=theirs.sh']"),
        ("slurm", "+hydra.launcher.additional_parameters={export:'LD_PRELOAD=theirs.so'}"),
        ("slurm", "+hydra.launcher.python='touch MARKER'"),
        ("slurm_rehearsal", "hydra.launcher.submitit_folder=theirs/%j"),
        ("slurm_rehearsal", "hydra.launcher.submitit_folder='${hydra.sweep.dir}/.submitit/%j'"),
        ("slurm_rehearsal", "+hydra.launcher.setup=['touch MARKER']"),
    )),
    *((LAUNCHED[2], words) for words in (
        ("train", "hydra.searchpath=[pkg://theirs]"),
        ("train", "--cfg", "job", "hydra.searchpath=[pkg://theirs]"),
        (*SWEEP, "hydra.searchpath=[pkg://theirs]"),
        (*SWEEP, "++hydra={verbose:true},{verbose:false}"),
        (*SWEEP, "hydra.job.name=../theirs"),
        (*SWEEP, "hydra.output_subdir=../theirs"),
        (*SWEEP, "+hydra.sweep.mode=777"),
    )),
]  # fmt: skip


def names_in(folder: str) -> list[str]:
    """What there is: neither the marker that hostile code leaves, nor outputs."""
    return sorted(path.name for path in Path(folder).iterdir())


# Every second one on every run of the tests.
@pytest.mark.parametrize(
    ("what", "words"),
    [
        pytest.param(*attack, marks=[] if number % 2 == 0 else pytest.mark.slow)
        for number, attack in enumerate(ON_THE_LINE)
    ],
)
def test_hydra_builds_nothing_but_its_own_launchers_and_sweepers(
    genlab: Callable[..., Outcome], tally: Tally, monkeypatch: pytest.MonkeyPatch, what: str, words: tuple[str, ...]
) -> None:
    Path("theirs.py").write_text("open('MARKER', 'w')\n")
    monkeypatch.syspath_prepend(str(Path.cwd()))
    with tally.trying(FAULT, what):
        outcome = genlab(*words)
        assert (outcome.code, outcome.errors.count("\n")) == (2, 1), outcome.errors
        assert names_in(".") == ["theirs.py"]


FILES: dict[str, tuple[dict[str, Any], tuple[str, ...]]] = {
    "a launcher": ({"hydra/launcher/evil": {"_target_": JOBLIB, "x": CODE}}, (*SWEEP, "hydra/launcher=evil")),
    "a launcher by a defaults list": (
        {
            "experiment/evil": {"defaults": [{"override /hydra/launcher": "evil"}]},
            "hydra/launcher/evil": {"_target_": JOBLIB, "x": CODE},
        },
        (*SWEEP, "experiment=evil"),
    ),
    "a search space of code": (
        {"hydra/sweeper/evil": {"defaults": ["basic"], "params": {"seed": CODE}}},
        (*SWEEP, "hydra/sweeper=evil"),
    ),
    "a search space of Hydra's settings": (
        {"hydra/sweeper/evil": {"defaults": ["basic"], "params": {"+hydra.job_logging.handlers": "{x:1}"}}},
        (*SWEEP, "hydra/sweeper=evil"),
    ),
    "a node in the place of logging": (
        {"experiment/evil": {"evil": {"x": FACTORY}, "hydra": {"job_logging": {"handlers": "${evil}"}}}},
        ("train", "experiment=evil"),
    ),
    "a reference in logging": (
        {"experiment/evil": {"hydra": {"job_logging": {"handlers": {"file": {"x": "ext://theirs.x"}}}}}},
        ("train", "experiment=evil"),
    ),
    "a reference by an interpolation": (
        {"experiment/evil": {"e": "ext", "hydra": {"job_logging": {"handlers": {"file": {"x": "${e}://theirs.x"}}}}}},
        ("train", "experiment=evil"),
    ),
    "a log elsewhere": (
        {"experiment/evil": {"hydra": {"job_logging": {"handlers": {"file": {"filename": "MARKER"}}}}}},
        ("train", "experiment=evil"),
    ),
    "a log that is led elsewhere": (
        {"experiment/evil": {"hydra": {"job_logging": {"handlers": {"file": {".": {"baseFilename": "MARKER"}}}}}}},
        ("train", "experiment=evil"),
    ),
    "overrides that nobody typed": (
        {"experiment/evil": {"hydra": {"overrides": {"task": [f"+hydra.launcher.x={ON_LINE}"]}}}},
        (*SWEEP, "experiment=evil"),
    ),
    "callbacks by an interpolation": (
        {"experiment/evil": {"evil": {"x": CODE}, "hydra": {"callbacks": "${evil}"}}},
        ("train", "experiment=evil"),
    ),
    "a primary configuration that searches a package": (
        {"evil": {"defaults": ["train"], "hydra": {"searchpath": ["pkg://theirs"]}}},
        ("train", "--config-name", "evil"),
    ),
    "logging for a help": (
        {"hydra/hydra_logging/evil": {"version": 1, "root": {}, "handlers": {"x": FACTORY}}},
        ("train", "--help", "hydra/hydra_logging=evil"),
    ),
    "two options that are harmless alone": (
        {
            # The handler of the first is whole only where the second lets it be.
            "one/a": {},
            "one/b": {"hydra": {"job_logging": {"handlers": {"console": FACTORY}}}},
            "two/a": {"hydra": {"job_logging": {"handlers": {"console": {"()": "logging.NullHandler"}}}}},
            "two/b": {},
        },
        ("train", "-m", "trainer=smoke", "+one=a,b", "+two=a,b"),
    ),
    "an option after a hundred others": (
        {
            "one/a": {},
            "one/b": {"hydra": {"job_logging": {"handlers": {"console": FACTORY}}}},
        },
        ("train", "-m", "trainer=smoke", "seed=range(100)", "+one=a,b"),
    ),
}


@pytest.mark.parametrize("name", FILES)
def test_no_file_makes_hydra_build_anything(
    genlab: Callable[..., Outcome], tally: Tally, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    files, words = FILES[name]
    Path("theirs.py").write_text("open('MARKER', 'w')\n")
    monkeypatch.syspath_prepend(str(Path.cwd()))
    for place, content in files.items():
        path = Path("conf", f"{place}.yaml")
        path.parent.mkdir(parents=True, exist_ok=True)
        header = "" if place.startswith("hydra/") else "# @package _global_\n"
        path.write_text(header + yaml.safe_dump(content))
    with tally.trying(FAULT, "files of configurations about Hydra itself"):
        outcome = genlab(words[0], "--config-dir", "conf", *words[1:])
        assert (outcome.code, outcome.errors.count("\n")) == (2, 1), outcome.errors
        assert names_in(".") == ["conf", "theirs.py"]


def test_help_about_hydra_takes_nothing_from_the_line(genlab: Callable[..., Outcome], tally: Tally) -> None:
    Path("conf/hydra/hydra_logging").mkdir(parents=True)
    content = {"version": 1, "root": {}, "handlers": {"x": FACTORY}}
    Path("conf/hydra/hydra_logging/evil.yaml").write_text(yaml.safe_dump(content))
    with tally.trying(FAULT, "files of configurations about Hydra itself"):
        outcome = genlab("train", "--hydra-help", "--config-dir", "conf", "hydra/hydra_logging=evil")
        assert outcome.code == 0, outcome.errors
        assert "hydra/launcher" in outcome.output
        assert names_in(".") == ["conf"]


def test_a_launcher_would_be_built_with_all_that_stands_below_it(
    genlab: Callable[..., Outcome], tally: Tally, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(application, "require_safe", lambda *_: None)
    genlab("check", "-m", "model=draw,dcgan", f"+hydra.launcher.x={ON_LINE}")
    assert Path("MARKER").exists()
    tally.wrong_variant_noticed(FAULT, "no look at the launcher")


@pytest.mark.parametrize("launcher", [(), ("hydra/launcher=local", "hydra.launcher.n_jobs=1")])
def test_a_job_removes_nothing_outside_of_its_sweep(
    genlab: Callable[..., Outcome], tally: Tally, launcher: tuple[str, ...]
) -> None:
    Path("theirs").mkdir()
    Path("theirs/book").write_text("of a life")
    with tally.trying(FAULT, "folders of jobs elsewhere"):
        outcome = genlab(*SWEEP, "hydra.sweep.dir=sweep", "hydra.sweep.subdir=../theirs", *launcher)
        assert outcome.code == 2
        assert "hydra.sweep.subdir" in outcome.errors
        assert Path("theirs/book").read_text() == "of a life"


def hostile_sweep(**content: Any) -> Path:
    """A sweep's folder as somebody else may have made it."""
    folder = Path("theirs")
    (folder / "jobs").mkdir(parents=True)
    plan = {"command": "", "words": ["trainer=smoke", "seed=0,1"], "config_dir": None, "jobs": None, **content}
    (folder / "sweep.yaml").write_text(yaml.safe_dump(plan))
    return folder


IN_A_SWEEP: list[dict[str, Any]] = [
    {"words": ["trainer=smoke", "seed=0,1", f"+hydra.launcher.x={ON_LINE}"]},
    {"words": ["trainer=smoke", "seed=0,1", "hydra/launcher=slurm", "+hydra.launcher.setup=['touch MARKER']"]},
    {"words": ["trainer=smoke", "seed=0,1", "hydra.searchpath=[pkg://theirs]"]},
    {"words": ["trainer=smoke", "seed=0,1", "hydra.searchpath=[theirs/conf]"]},
    {"words": ["trainer=smoke", "seed=0,1", "--config-dir=theirs/conf"]},
    {"words": ["trainer=smoke", "seed=0,1", "--experimental-rerun=theirs/config.pickle"]},
    {"words": ["trainer=smoke", "seed=0,1", "++model._target_=torch.utils.collect_env.run"]},
    {"config_dir": "theirs/conf"},
    {"words": None},
    {"jobs": 5},
]


@pytest.mark.parametrize("content", IN_A_SWEEP, ids=lambda content: str(next(iter(content.values())))[-40:])
def test_a_sweep_of_somebody_else_is_questioned_as_a_command_is(
    genlab: Callable[..., Outcome], tally: Tally, content: dict[str, Any]
) -> None:
    folder = hostile_sweep(**content)
    (folder / "conf").mkdir()
    with tally.trying(FAULT, "sweep folders"):
        outcome = genlab("train", "-m", "sweep.resume=theirs")
        assert (outcome.code, outcome.errors.count("\n")) == (2, 1), outcome.errors
        assert names_in(".") == ["theirs"]
        assert names_in("theirs") == ["conf", "jobs", "sweep.yaml"]


@pytest.mark.parametrize("name", ["0_x/output.log", "0_x/train.log", "study.db", ".lock", "summary.csv", "jobs/stop"])
def test_a_sweep_with_links_that_lead_out_is_not_written_to(
    genlab: Callable[..., Outcome], tally: Tally, name: str
) -> None:
    Path("ours").write_text("ours")
    path = hostile_sweep() / name
    path.parent.mkdir(exist_ok=True)
    path.symlink_to(Path("ours").absolute())
    with tally.trying(FAULT, "sweep folders"):
        outcome = genlab("train", "-m", "sweep.resume=theirs")
        assert (outcome.code, outcome.errors.count("\n")) == (2, 1), outcome.errors
        assert "leads out of it" in outcome.errors
        assert Path("ours").read_text() == "ours"
        assert not Path("theirs/.owner").exists()


def test_a_sweep_with_a_pipe_is_refused_at_once(genlab: Callable[..., Outcome], tally: Tally) -> None:
    (hostile_sweep() / "0_x").mkdir()
    os.mkfifo("theirs/0_x/metrics.jsonl")
    with tally.trying(FAULT, "sweep folders"):
        outcome = genlab("train", "-m", "sweep.resume=theirs")
        assert (outcome.code, outcome.errors.count("\n")) == (2, 1), outcome.errors
        assert "no ordinary file" in outcome.errors
