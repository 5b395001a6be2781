"""Fault 3: checkpoints and exports from somebody who wants more than to share weights.

The attacker writes fitting digests, for those guard against accidents only.
"""

import ast
import builtins
import codecs
import contextlib
import hashlib
import io
import json
import os
import pickle
import shutil
import subprocess
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from genlab.cli import main
from genlab.run import checkpoint
from tests.conftest import Outcome
from tests.faults.harness import run
from tests.faults.tally import Tally

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


BOMBS: dict[str, Callable[[], Bomb]] = {
    "os.system": lambda: Bomb(os.system, f"touch {MARKER}"),
    "os.mkdir": lambda: Bomb(os.mkdir, MARKER),
    "builtins.eval": lambda: Bomb(builtins.eval, f"__import__('os').mkdir('{MARKER}')"),
    "builtins.exec": lambda: Bomb(builtins.exec, f"import os; os.mkdir('{MARKER}')"),
    "os.symlink": lambda: Bomb(os.symlink, ".", MARKER),
    "subprocess.call": lambda: Bomb(subprocess.call, ["touch", MARKER]),
    "a call inside a call": lambda: Bomb(codecs.encode, Bomb(os.mkdir, MARKER), "ascii"),
}


def of_zip(state: dict[str, Any]) -> bytes:
    buffer = io.BytesIO()
    torch.save(state, buffer)
    return buffer.getvalue()


def of_old_format(state: dict[str, Any]) -> bytes:
    buffer = io.BytesIO()
    torch.save(state, buffer, _use_new_zipfile_serialization=False)
    return buffer.getvalue()


FORMATS: dict[str, Callable[[dict[str, Any]], bytes]] = {
    "zip": of_zip,
    "old format": of_old_format,
    "raw pickle": pickle.dumps,
}


@pytest.fixture(scope="module")
def honest(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("honest") / "run"
    here = Path.cwd()
    os.chdir(folder.parent)
    try:
        assert main(["train", *TINY, f"hydra.run.dir={folder}"]) == 0
    finally:
        os.chdir(here)
    return folder


def poisoned(run_folder: Path, content: bytes) -> None:
    """Put a file in the place of every checkpoint of a run, each with a sidecar that vouches for it."""
    for path in (run_folder / "checkpoints").glob("*.pt"):
        path.write_bytes(content)
        sidecar = json.loads(path.with_suffix(".json").read_text())
        sidecar["sha256"] = hashlib.sha256(content).hexdigest()
        path.with_suffix(".json").write_text(json.dumps(sidecar))


def state_of(run_folder: Path) -> dict[str, Any]:
    return dict(torch.load(run_folder / "checkpoints" / "last.pt", weights_only=True))


# Each bomb in one format on every run of the tests, in the others with the slow ones.
BOMBS_AND_FORMATS = [
    pytest.param(name, kind, marks=[] if (number - place) % len(FORMATS) == 0 else pytest.mark.slow)
    for number, name in enumerate(BOMBS)
    for place, kind in enumerate(FORMATS)
]


@pytest.mark.parametrize(("name", "kind"), BOMBS_AND_FORMATS)
def test_a_bomb_goes_off_nowhere_and_is_named(
    genlab: Callable[..., Outcome], honest: Path, tally: Tally, name: str, kind: str
) -> None:
    state = state_of(honest)
    state["model"]["bomb"] = BOMBS[name]()
    content = FORMATS[kind](state)
    shutil.copytree(honest, "run")
    poisoned(Path("run"), content)
    for command, words in COMMANDS.items():
        with tally.trying(FAULT, f"bombs for genlab {command}"):
            outcome = genlab(*(word.format(run="run") for word in words))
            assert (outcome.code, outcome.errors.count("\n")) == (4, 1), outcome.errors
            assert "refused" in outcome.errors, outcome.errors
            function = BOMBS[name]().call[0] if name != "a call inside a call" else os.mkdir
            assert function.__name__ in outcome.errors, outcome.errors
            assert not Path(MARKER).exists()
    with contextlib.suppress(Exception), warnings.catch_warnings(action="ignore"):
        torch.load(io.BytesIO(content), weights_only=False)
    assert Path(MARKER).exists()  # the bomb is one: it goes off in a reader that trusts it


@pytest.mark.parametrize(("name", "kind"), BOMBS_AND_FORMATS)
def test_behind_the_look_at_names_torch_is_told_to_run_nothing(
    genlab: Callable[..., Outcome],
    honest: Path,
    tally: Tally,
    monkeypatch: pytest.MonkeyPatch,
    name: str,
    kind: str,
) -> None:
    """Two locks, each tried alone: the first is taken away here, and what torch is told must hold without it."""
    state = state_of(honest)
    state["model"]["bomb"] = BOMBS[name]()
    shutil.copytree(honest, "run")
    poisoned(Path("run"), FORMATS[kind](state))
    words = [word.format(run="run") for word in COMMANDS["export"]]
    monkeypatch.setattr(checkpoint, "require_harmless", lambda content: None)
    with tally.trying(FAULT, "bombs that the look at names let through"):
        outcome = genlab(*words)
        assert (outcome.code, outcome.errors.count("\n")) == (4, 1), outcome.errors
        assert "refused" in outcome.errors, outcome.errors
        assert not Path(MARKER).exists()
    load = torch.load
    monkeypatch.setattr(torch, "load", lambda *args, **options: load(*args, **(options | {"weights_only": False})))
    with warnings.catch_warnings(action="ignore"):
        genlab(*words)
    assert Path(MARKER).exists()
    tally.wrong_variant_noticed(FAULT, "weights_only=False")


def trusting_reads(source: str) -> list[str]:
    """Where a source lets a file run code: torch.load that is not told to refuse in so many words, numpy's pickles."""
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
    """What ruff has no rule for; its rules about pickle, eval, exec, shells and YAML are in pyproject.toml."""
    folders = [ROOT / name for name in ("genlab", "hydra_plugins", "benchmarks", ".ci")]
    sources = {file: file.read_text(encoding="utf-8") for folder in folders for file in folder.rglob("*.py")}
    for file, source in sources.items():
        assert trusting_reads(source) == [], file
    wrong = [source.replace("weights_only=True", "weights_only=False") for source in sources.values()]
    assert sum(len(trusting_reads(source)) for source in wrong) >= 3
    for line in ("torch.load(path)", "read = torch.load", "from torch import load", "np.load(path, allow_pickle=True)"):
        assert trusting_reads(line), line


@pytest.mark.parametrize(
    "command", ["sample", *(pytest.param(name, marks=pytest.mark.slow) for name in COMMANDS if name != "sample")]
)
def test_no_variable_of_the_environment_makes_us_trust_a_file(
    honest: Path, tmp_path: Path, tally: Tally, monkeypatch: pytest.MonkeyPatch, command: str
) -> None:
    """TORCH_FORCE_NO_WEIGHTS_ONLY_LOAD turns the default of torch.load round; ours is no default."""
    monkeypatch.chdir(tmp_path)
    shutil.copytree(honest, "run")
    poisoned(Path("run"), of_zip(state_of(honest) | {"bomb": Bomb(os.mkdir, MARKER)}))
    with tally.trying(FAULT, "bombs with TORCH_FORCE_NO_WEIGHTS_ONLY_LOAD=1, in a process of their own"):
        words = (word.format(run="run") for word in COMMANDS[command])
        result = run(*words, timeout=300, TORCH_FORCE_NO_WEIGHTS_ONLY_LOAD="1")
        assert (result.returncode, result.stderr.count("genlab: error")) == (4, 1), result.stderr
        assert "Traceback" not in result.stderr
        assert "mkdir" in result.stderr
        assert not Path(MARKER).exists()


SIZES: dict[str, Callable[[dict[str, Any]], dict[str, Any]]] = {
    "10^12 elements of stride 0": lambda state: state | {"model": {"a": torch.zeros(1).expand(10**6, 10**6)}},
    "such moments of the optimiser": lambda state: with_moments(state, torch.zeros(1).expand(10**6, 10**6)),
    "such a mean of metrics": lambda state: state | {"observers": {"metrics": {"a": torch.zeros(1).expand(10**12)}}},
    "a call for a terabyte": lambda state: state | {"a": Bomb(bytearray, 10**12)},
    "metrics of one byte each": lambda state: (
        state | {"observers": {"metrics": {"a": torch.zeros(10**5, dtype=torch.uint8)}}}
    ),
    "lists that double in the optimiser": lambda state: with_moments(state, doubling(40)),
    "lists that double in the schedule": lambda state: with_schedule(state, doubling(40)),
    "tuples that double as a key": lambda state: state | {"a": {doubling_tuple(20): 1}},
}


def with_moments(state: dict[str, Any], moments: object) -> dict[str, Any]:
    (update,) = state["updates"].values()
    update["optimizer"]["state"][0]["exp_avg"] = moments
    return state


def with_schedule(state: dict[str, Any], part: object) -> dict[str, Any]:
    (update,) = state["updates"].values()
    update["schedule"]["part"] = part
    return state


def doubling_tuple(depth: int) -> tuple[Any, ...]:
    part: tuple[Any, ...] = ()
    for _ in range(depth):
        part = (part, part)
    return part


def doubling(depth: int) -> list[Any]:
    """A list of two that are one, and so on: some bytes a level, and whoever copies it makes 2^depth lists."""
    part: list[Any] = []
    for _ in range(depth):
        part = [part, part]
    return part


SHAPES: dict[str, Callable[[dict[str, Any]], dict[str, Any]]] = {
    "a step that is a text": lambda state: state | {"step": "1"},
    "a step of 10^30": lambda state: state | {"step": 10**30},
    "no weights": lambda state: state | {"model": None},
    "weights in a list": lambda state: state | {"model": [torch.zeros(3)]},
    "no optimisers": lambda state: state | {"updates": 3},
    "optimisers of nothing": lambda state: state | {"updates": {"model": {"optimizer": {}, "schedule": 1}}},
    "metrics that are none": lambda state: state | {"observers": {"metrics": [1]}},
    "a best that is a text": lambda state: state | {"best": "best"},
    "seconds that are none": lambda state: state | {"seconds": None},
    "seconds beyond the numbers of a float": lambda state: state | {"seconds": 10**400},
}


@pytest.mark.parametrize("name", [*SIZES, *SHAPES])
def test_what_claims_too_much_or_is_of_another_kind_costs_one_line(
    genlab: Callable[..., Outcome], honest: Path, tally: Tally, name: str
) -> None:
    shutil.copytree(honest, "run")
    poisoned(Path("run"), of_zip((SIZES | SHAPES)[name](state_of(honest))))
    with tally.trying(FAULT, "checkpoints that claim memory, or of another kind, for genlab train resume"):
        outcome = genlab(*(word.format(run="run") for word in COMMANDS["train"]))
        assert outcome.code == 4, outcome.errors
        assert outcome.errors.splitlines()[-1].startswith("genlab: error: ")
        assert "Traceback" not in outcome.errors


MODELS = {"num_units": 10**9, "num_glimpses": 10**9, "latent_size": 50_000_000, "read_size": 10**6}


@pytest.mark.parametrize("key", MODELS)
def test_a_configuration_that_asks_for_more_than_the_weights_hold_is_refused(
    genlab: Callable[..., Outcome], honest: Path, tally: Tally, key: str
) -> None:
    shutil.copytree(honest, "run")
    text = Path("run/config.yaml").read_text()
    (line,) = [line for line in text.splitlines() if line.startswith(f"  {key}:")]
    Path("run/config.yaml").write_text(text.replace(line, f"  {key}: {MODELS[key]}"))
    for command, words in COMMANDS.items():
        with tally.trying(FAULT, f"configurations that ask for memory, for genlab {command}"):
            outcome = genlab(*(word.format(run="run") for word in words))
            assert outcome.code in (2, 4), outcome.errors
            assert outcome.errors.splitlines()[-1].startswith("genlab: error: ")
            assert "allocate" not in outcome.errors


def test_an_export_with_a_pickle_in_the_place_of_its_weights_is_refused(
    genlab: Callable[..., Outcome], honest: Path, tally: Tally
) -> None:
    assert genlab("export", f"run={honest}", "out=handed_on").code == 0
    content = of_zip({"bomb": Bomb(os.mkdir, MARKER)})
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
    "checkpoints/z.json/": 0,
    "checkpoints/best_before.json/": 7,
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


@pytest.mark.parametrize("name", MISPLACED)
def test_a_folder_in_the_place_of_a_file_costs_one_line(
    genlab: Callable[..., Outcome], honest: Path, tally: Tally, name: str
) -> None:
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


def test_pictures_that_cannot_be_written_for_a_file_cost_one_line(
    genlab: Callable[..., Outcome], honest: Path, tally: Tally
) -> None:
    shutil.copytree(honest, "run")
    Path("run/samples").write_text("x")
    with tally.trying(FAULT, "folders in the place of files, and files of folders, for genlab sample"):
        outcome = genlab(*(word.format(run="run") for word in COMMANDS["sample"]))
        assert (outcome.code, outcome.errors.count("\n")) == (7, 1), outcome.errors
        assert "run/samples" in outcome.errors


def test_what_moves_the_cursor_is_not_printed(
    genlab: Callable[..., Outcome], honest: Path, tally: Tally, caplog: pytest.LogCaptureFixture
) -> None:
    """The title of a terminal is set, and its text coloured, by what is printed to it."""
    shutil.copytree(honest, "run")
    hostile = "\x1b]0;PWN\x07\x1b[31mred"
    with Path("run/config.yaml").open("a") as file:
        file.write(f"{json.dumps(hostile)}: 1\n")
    Path("run/checkpoints", f"{hostile}.json").write_text("{}")
    for command, words in COMMANDS.items():
        with tally.trying(FAULT, f"escape sequences for genlab {command}"):
            outcome = genlab(*(word.format(run="run") for word in words))
            assert outcome.code == 2
            assert r"\x1b]0;PWN\x07\x1b[31mred" in outcome.errors
            assert "\x1b" not in outcome.output + outcome.errors
    shutil.copy(honest / "config.yaml", "run")
    outcome = genlab(*(word.format(run="run") for word in COMMANDS["sample"]))
    assert outcome.code == 0
    assert "red.json is damaged" in caplog.text
    assert "\x1b" not in outcome.output + outcome.errors + caplog.text
