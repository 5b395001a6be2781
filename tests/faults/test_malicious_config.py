"""Fault 4: configurations from somebody who wants code to run: on the line, in an experiment, in a run folder.

What a target may be is tested in tests/composition/test_targets.py; here each way in is tried with all of them.
"""

import pickle
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import hydra.utils
import pytest
import yaml

from tests.composition.test_targets import HOSTILE
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
