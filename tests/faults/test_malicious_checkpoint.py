"""Fault 3: checkpoints and exports from somebody who wants more than to share weights.

The attacker writes matching digests, for those guard against accidents only.
"""

import ast
import contextlib
import hashlib
import io
import json
import os
import pickle
import shutil
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from tests.conftest import Genlab, train_in
from tests.faults.harness import rewrite_checkpoints
from tests.faults.tally import Tally
from tests.thinning import thinned

FAULT = "3 malicious checkpoint"
ROOT = Path(__file__).resolve().parents[2]
MARKER = "MARKER"
TINY = (
    *("model=draw", "model.num_glimpses=2", "model.num_units=16", "dataset.size=8", "num_threads=1", "trainer=smoke"),
    *("trainer.num_steps=3", "trainer.sample_interval=0", "trainer.test_at_end=false"),
)
COMMANDS = {
    "train": ("train", "resume={run}", "trainer.num_steps=4"),
    "sample": ("sample", "run={run}", "num_samples=4", "split=null"),
    "evaluate": ("evaluate", "run={run}", "num_images=8", "num_importance_samples=0"),
    "export": ("export", "run={run}"),
}


class Bomb:
    """Pickles as the call of a function."""

    def __init__(self, function: Callable[..., Any], *arguments: Any) -> None:
        self.call = (function, arguments)

    def __reduce__(self) -> Any:
        return self.call


def of_torch(state: object) -> bytes:
    buffer = io.BytesIO()
    torch.save(state, buffer)
    return buffer.getvalue()


FORMATS: dict[str, Callable[[object], bytes]] = {"torch": of_torch, "pickle": pickle.dumps}


@pytest.fixture(scope="module")
def honest(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return train_in(tmp_path_factory.mktemp("honest") / "run", *TINY)


@pytest.mark.parametrize("kind", thinned(FORMATS, 2))
def test_a_pickle_in_the_place_of_a_checkpoint_is_refused(
    genlab: Genlab, honest: Path, tally: Tally, kind: str
) -> None:
    content = FORMATS[kind]({"model": Bomb(os.mkdir, MARKER)})
    shutil.copytree(honest, "run")
    for path in Path("run/checkpoints").iterdir():
        path.write_bytes(content)
    for command, words in COMMANDS.items():
        with tally.trying(FAULT, f"pickles for genlab {command}"):
            genlab(*(word.format(run="run") for word in words)).assert_error(4, "is damaged")
            assert not Path(MARKER).exists()
    with contextlib.suppress(Exception), warnings.catch_warnings(action="ignore"):
        torch.load(io.BytesIO(content), weights_only=False)
    assert Path(MARKER).exists()  # it is a bomb: it goes off in a reader that trusts it


def trusting_reads(source: str) -> list[str]:
    """Return the places where a source lets a file run code: torch.load without weights_only=True, numpy's pickles."""
    nodes = list(ast.walk(ast.parse(source)))
    refusing = {
        id(node.func)
        for node in nodes
        if isinstance(node, ast.Call) and "weights_only=True" in map(ast.unparse, node.keywords)
    }
    return [
        ast.unparse(node)
        for node in nodes
        if (isinstance(node, ast.Attribute) and ast.unparse(node) == "torch.load" and id(node) not in refusing)
        or (
            isinstance(node, ast.ImportFrom) and node.module == "torch" and "load" in {name.name for name in node.names}
        )
        or (isinstance(node, ast.keyword) and node.arg == "allow_pickle")
    ]


def test_no_line_of_the_source_trusts_a_file() -> None:
    """Ruff has no rule for these; its rules about pickle, eval, exec, shells and YAML are in pyproject.toml."""
    folders = [ROOT / name for name in ("genlab", "hydra_plugins", "benchmarks", ".ci")]
    sources = {file: file.read_text(encoding="utf-8") for folder in folders for file in folder.rglob("*.py")}
    for file, source in sources.items():
        assert trusting_reads(source) == [], file
    wrong = [
        source.replace("weights_only=True", "weights_only=False")
        for source in sources.values()
        if "weights_only" in source
    ]
    assert sum(len(trusting_reads(source)) for source in wrong) >= 1
    for line in ("torch.load(path)", "read = torch.load", "from torch import load", "np.load(path, allow_pickle=True)"):
        assert trusting_reads(line), line


SHAPES: dict[str, dict[str, Any]] = {
    "no optimisers": {"phases": 3},
    "optimisers of nothing": {"phases": {"model": {"optimizer": {}, "schedule": 1}}},
    "moments in a list": {"optimizer": {"model": []}},
    "metrics that are none": {"observers": {"metrics": [1]}},
    "a best that is a text": {"best": "best"},
    "seconds that are none": {"seconds": None},
    "seconds beyond the numbers of a float": {"seconds": 10**400},
}


@pytest.mark.parametrize("name", thinned(SHAPES, 4))
def test_a_state_of_another_kind_costs_one_line(genlab: Genlab, honest: Path, tally: Tally, name: str) -> None:
    shutil.copytree(honest, "run")
    rewrite_checkpoints(Path("run"), lambda state: state | SHAPES[name])
    with tally.trying(FAULT, "checkpoints of another kind, for genlab train resume"):
        outcome = genlab(*(word.format(run="run") for word in COMMANDS["train"]))
        assert outcome.code == 4, outcome.errors
        assert outcome.errors.splitlines()[-1].startswith("genlab: error: ")
        assert "Traceback" not in outcome.errors


def test_an_export_with_a_pickle_in_the_place_of_its_weights_is_refused(
    genlab: Genlab, honest: Path, tally: Tally
) -> None:
    assert genlab("export", f"run={honest}", "out=handed_on").code == 0
    content = of_torch({"bomb": Bomb(os.mkdir, MARKER)})
    Path("handed_on/model.safetensors").write_bytes(content)
    Path("handed_on/SHA256SUMS").write_text(f"{hashlib.sha256(content).hexdigest()}  model.safetensors\n")
    for command in ("sample", "evaluate"):
        with tally.trying(FAULT, "pickles in exports"):
            outcome = genlab(*(word.format(run="handed_on") for word in COMMANDS[command]))
            assert (outcome.code, outcome.errors.count("\n")) == (4, 1), outcome.errors
            assert not Path(MARKER).exists()


# Names of files that are folders here, and of folders that are files.
MISPLACED = {
    ".x.tmp/": 0,
    "checkpoints/.y.tmp/": 0,
    "summary.json/": 7,
    "metrics.jsonl/": 7,
    "train.log/": 7,
    "environment.json/": 7,
    ".owner/": 7,
    ".lock/": 7,
    "samples": 7,
    "events.out.tfevents.9/": 0,
    "checkpoints": 4,
}


@pytest.mark.parametrize("name", thinned(MISPLACED, 11))
def test_a_folder_in_the_place_of_a_file_costs_one_line(genlab: Genlab, honest: Path, tally: Tally, name: str) -> None:
    shutil.copytree(honest, "run")
    place = Path("run", name)
    if place.is_dir():
        shutil.rmtree(place)
    else:
        place.unlink(missing_ok=True)
    if name.endswith("/"):
        place.mkdir()
    else:
        place.write_text("x")
    with tally.trying(FAULT, "folders in the place of files, and files of folders, for genlab train resume"):
        outcome = genlab(*(word.format(run="run") for word in COMMANDS["train"]), "trainer.sample_interval=2")
        assert outcome.code == MISPLACED[name], outcome.errors
        assert outcome.errors.count("genlab: error") == (outcome.code > 0), outcome.errors
        assert "bug" not in outcome.errors


def test_pictures_that_cannot_be_written_for_a_file_cost_one_line(genlab: Genlab, honest: Path, tally: Tally) -> None:
    shutil.copytree(honest, "run")
    Path("run/samples").write_text("x")
    with tally.trying(FAULT, "folders in the place of files, and files of folders, for genlab sample"):
        genlab(*(word.format(run="run") for word in COMMANDS["sample"])).assert_error(7, "run/samples")


def test_what_moves_the_cursor_is_not_printed(genlab: Genlab, honest: Path, tally: Tally) -> None:
    """The title of a terminal is set, and its text coloured, by what is printed to it."""
    shutil.copytree(honest, "run")
    hostile = "\x1b]0;PWN\x07\x1b[31mred"
    with Path("run/config.yaml").open("a") as file:
        file.write(f"{json.dumps(hostile)}: 1\n")
    for command, words in COMMANDS.items():
        with tally.trying(FAULT, f"escape sequences for genlab {command}"):
            outcome = genlab(*(word.format(run="run") for word in words))
            outcome.assert_error(2, r"\x1b]0;PWN\x07\x1b[31mred")
            assert "\x1b" not in outcome.output + outcome.errors
