"""Fault 4: run folders and sweep folders from somebody who wants code to run.

What a target may be is tested in tests/config/test_targets.py; here the folders are named on a command line.
"""

import itertools
import os
from pathlib import Path
from typing import Any

import hydra.utils
import pytest
import yaml

from tests.config.test_targets import HOSTILE
from tests.conftest import Genlab, train_in
from tests.faults.tally import Tally

FAULT = "4 malicious configuration"
NODES = ("model", "dataset", "schedule", "optimizer.default")
# Every sixteenth target on every run of the tests, the others with the slow ones.
ATTACKS = [pytest.param(n, marks=[] if n % 16 == 0 else pytest.mark.slow) for n in range(len(HOSTILE))]


@pytest.fixture(scope="module")
def configuration(tmp_path_factory: pytest.TempPathFactory) -> str:
    """The config.yaml of a run."""
    folder = tmp_path_factory.mktemp("configuration") / "run"
    words = ("dataset.size=8", "trainer=smoke", "trainer.num_steps=1", "trainer.sample_interval=0")
    train_in(folder, *words, "trainer.test_at_end=false", "num_threads=1")
    return (folder / "config.yaml").read_text(encoding="utf-8")


def with_node(values: dict[str, Any], key: str, node: dict[str, Any]) -> dict[str, Any]:
    """The values with a node in the place of one of theirs."""
    head, _, tail = key.partition(".")
    return values | {head: node if not tail else values.get(head, {}) | {tail: node}}


@pytest.mark.parametrize("number", ATTACKS)
def test_nothing_that_a_run_folder_names_runs(genlab: Genlab, configuration: str, tally: Tally, number: int) -> None:
    target, arguments = HOSTILE[number]
    key = NODES[number % len(NODES)]
    node = {"_target_": target, **arguments}
    Path("run").mkdir()
    Path("run/config.yaml").write_text(yaml.safe_dump(with_node(yaml.safe_load(configuration), key, node)))
    for words in (("sample", "run=run"), ("train", "resume=run")):
        with tally.trying(FAULT, "targets in a run folder"):
            outcome = genlab(*words)
            assert (outcome.code, outcome.errors.count("\n")) == (2, 1), outcome.errors
            assert not Path("MARKER").exists()
            assert not Path("outputs").exists()


def test_hydra_itself_would_build_some_of_them(tmp_path: Path, tally: Tally) -> None:
    node = {"_target_": "builtins.open", "file": str(tmp_path / "MARKER"), "mode": "w"}
    hydra.utils.instantiate(node).close()
    assert (tmp_path / "MARKER").exists()
    tally.wrong_variant_noticed(FAULT, "hydra.utils.instantiate")


CODE = {"_target_": "torch.utils.collect_env.run", "command": "touch MARKER"}
HYDRA = {
    "a secret of the environment": {"model": "${oc.env:SECRET}"},
    "a resolver in a key of Hydra": {"hydra": {"run": {"dir": "${oc.env:SECRET}"}}},
    "callbacks": {"hydra": {"callbacks": {"x": CODE}}},
    "a search path": {"hydra": {"searchpath": ["pkg://theirs"]}},
    "a defaults list": {"defaults": [{"override /hydra/launcher": "local"}]},
}


COMMANDS = (("train", "resume=run"), ("export", "run=run"), ("compare", "run"))


@pytest.mark.parametrize(("name", "command"), list(zip(HYDRA, itertools.cycle(COMMANDS), strict=False)))
def test_what_a_run_folder_says_of_hydra_has_no_effect(
    genlab: Genlab,
    configuration: str,
    tally: Tally,
    monkeypatch: pytest.MonkeyPatch,
    name: str,
    command: tuple[str, ...],
) -> None:
    """Neither its config.yaml nor its .hydra/ is composed by Hydra."""
    monkeypatch.setenv("SECRET", "canary-of-the-environment")
    Path("theirs.py").write_text("open('MARKER', 'w')\n")
    monkeypatch.syspath_prepend(str(Path.cwd()))
    text = yaml.safe_dump(yaml.safe_load(configuration) | HYDRA[name])
    for place in ("run/config.yaml", "run/.hydra/config.yaml", "run/.hydra/hydra.yaml", "run/.hydra/overrides.yaml"):
        Path(place).parent.mkdir(parents=True, exist_ok=True)
        Path(place).write_text(text)
    with tally.trying(FAULT, "settings of Hydra in run folders"):
        outcome = genlab(*command)
        assert outcome.code == (0 if command[0] == "compare" else 2), outcome.errors
        assert "canary" not in outcome.output + outcome.errors
        assert not Path("MARKER").exists()
        assert sorted(path.name for path in Path("run").iterdir()) == [".hydra", "config.yaml"]


TAGS = [
    "model: !!python/object/apply:os.mkdir [MARKER]",
    "seed: !!python/object/new:os.mkdir [MARKER]",
    "seed: !!python/name:os.system",
    "a: &a [1, 1]\nb: &b [*a, *a]\nseed: [*b, *b]",
]


@pytest.mark.parametrize("content", TAGS)
def test_a_tag_makes_no_object(genlab: Genlab, tally: Tally, content: str) -> None:
    with tally.trying(FAULT, "YAML tags and anchors"):
        Path("run").mkdir()
        Path("run/config.yaml").write_text(content)
        outcome = genlab("train", "resume=run")
        assert (outcome.code, outcome.errors.count("\n")) == (2, 1), outcome.errors
        assert not Path("MARKER").exists()


SWEEP = ("train", "-m", "trainer=smoke", "seed=0,1")
ON_LINE = "{_target_:torch.utils.collect_env.run,command:'touch MARKER'}"


def names_in(folder: str) -> list[str]:
    """Return the names in a folder: neither the marker of hostile code nor outputs may be there."""
    return sorted(path.name for path in Path(folder).iterdir())


@pytest.mark.parametrize("launcher", [(), ("hydra/launcher=local", "hydra.launcher.n_jobs=1")])
def test_a_job_removes_nothing_outside_of_its_sweep(genlab: Genlab, tally: Tally, launcher: tuple[str, ...]) -> None:
    Path("theirs/0").mkdir(parents=True)
    Path("theirs/0/book").write_text("of a life")
    with tally.trying(FAULT, "folders of jobs elsewhere"):
        outcome = genlab(*SWEEP, "hydra.sweep.dir=sweep", "hydra.sweep.subdir=../theirs/${hydra:job.num}", *launcher)
        assert outcome.code == 2
        assert "hydra.sweep.subdir" in outcome.errors
        assert Path("theirs/0/book").read_text() == "of a life"


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
    {"words": ["trainer=smoke", "seed=0,1", f"+model.read_bias={ON_LINE}"]},
    {"words": ["trainer=smoke", "seed=0,1", "name=${oc.env:HOME}"]},
    {"words": ["trainer=smoke", "seed=0,1", "+trainer@hydra.callbacks=smoke"]},
    {"words": ["trainer=smoke", "seed=0,1", "hydra.job.env_set={GENLAB_ALLOW:os}"]},
    {"words": ["trainer=smoke", "seed=0,1", "hydra/launcher=slurm", "hydra.launcher.partition='gpu\\ntouch MARKER #'"]},
    {"words": ["dataset=folder", "dataset.root=.", "+dataset.cache=theirs/elsewhere", "seed=0,1"]},
    {"config_dir": "theirs/conf"},
    {"words": None},
    {"jobs": 5},
]


@pytest.mark.parametrize("content", IN_A_SWEEP, ids=lambda content: str(next(iter(content.values())))[-40:])
def test_a_sweep_of_somebody_else_is_questioned_as_a_command_is(
    genlab: Genlab, tally: Tally, content: dict[str, Any]
) -> None:
    folder = hostile_sweep(**content)
    (folder / "conf").mkdir()
    with tally.trying(FAULT, "sweep folders"):
        outcome = genlab("train", "-m", "sweep.resume=theirs")
        assert (outcome.code, outcome.errors.count("\n")) == (2, 1), outcome.errors
        assert names_in(".") == ["theirs"]
        assert names_in("theirs") == ["conf", "jobs", "sweep.yaml"]


@pytest.mark.parametrize("name", ["0_x/output.log", "0_x/train.log", "study.db", ".lock", "summary.csv", "jobs/stop"])
def test_a_sweep_with_links_that_lead_out_is_not_written_to(genlab: Genlab, tally: Tally, name: str) -> None:
    Path("ours").write_text("ours")
    path = hostile_sweep() / name
    path.parent.mkdir(exist_ok=True)
    path.symlink_to(Path("ours").absolute())
    with tally.trying(FAULT, "sweep folders"):
        genlab("train", "-m", "sweep.resume=theirs").assert_error(2, "leads out of it")
        assert Path("ours").read_text() == "ours"
        assert not Path("theirs/.owner").exists()


def test_a_sweep_with_a_pipe_is_refused_at_once(genlab: Genlab, tally: Tally) -> None:
    (hostile_sweep() / "0_x").mkdir()
    os.mkfifo("theirs/0_x/metrics.jsonl")
    with tally.trying(FAULT, "sweep folders"):
        genlab("train", "-m", "sweep.resume=theirs").assert_error(2, "not an ordinary file")
