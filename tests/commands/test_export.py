"""Exports are complete, verified and plain, and give the same model."""

import hashlib
import json
import re
import resource
import runpy
import shutil
import struct
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import safetensors
import torch
import yaml

import genlab as package
from genlab.comparison.ranking import differing
from genlab.comparison.runs import read_run
from genlab.errors import CheckpointError, ConfigurationError
from genlab.run.checkpoint import LAST, CheckpointFolder
from genlab.run.exported import Origin, load_weights, save_weights
from genlab.run.folder import locked
from tests.commands.conftest import TINY
from tests.conftest import Genlab


@pytest.fixture(name="exported", scope="module")
def exported_once(trained_run: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    from genlab.cli import main

    folder = tmp_path_factory.mktemp("exports") / "ünï export"
    assert main(["export", f"run={trained_run}", f"out='{folder}'"]) == 0
    return folder


@pytest.fixture
def copied(exported: Path, tmp_path: Path) -> Path:
    shutil.copytree(exported, tmp_path / "copy")
    return tmp_path / "copy"


def test_a_loaded_export_is_the_model_of_the_run(trained_run: Path, exported: Path) -> None:
    """Bit for bit, in its weights and in what it draws."""
    own, handed_on = package.load(trained_run), package.load(exported)
    states = own.state_dict(), handed_on.state_dict()
    assert states[0].keys() == states[1].keys()
    assert all(torch.equal(states[0][name], states[1][name]) for name in states[0])
    samples = [model.sample(8, generator=torch.Generator().manual_seed(3)) for model in (own, handed_on)]
    assert torch.equal(*samples)


def test_the_commands_take_an_export_for_a_run(genlab: Genlab, trained_run: Path, exported: Path) -> None:
    for name, run in (("a", trained_run), ("b", exported)):
        genlab("sample", f"run={run}", "num_samples=4", "split=null", f"out={name}").checked()
    assert Path("a/samples.png").read_bytes() == Path("b/samples.png").read_bytes()
    shutil.copytree(exported, "copy")
    arguments = ["num_images=40", "num_importance_samples=0"]
    assert genlab("evaluate", "run=copy", *arguments).code == 0
    shutil.copytree(trained_run, "run")
    assert genlab("evaluate", "run=run", *arguments).code == 0
    first, second = (json.loads(Path(name, "evaluation.json").read_text())["measures"] for name in ("copy", "run"))
    assert first == second


def test_an_export_of_a_model_with_classes_keeps_their_names(genlab: Genlab, cgan_run: Path, tmp_path: Path) -> None:
    assert genlab("export", f"run={cgan_run}", f"out={tmp_path / 'given'}").code == 0
    environment = json.loads((cgan_run / "environment.json").read_text())
    kept = json.loads((tmp_path / "given" / "environment.json").read_text())
    assert kept == {"class_names": environment["class_names"]}
    arguments = ("sample", f"run={tmp_path / 'given'}", "num_samples=4", "num_threads=1")
    assert genlab(*arguments, "label=three").code == 2
    (tmp_path / "given" / "environment.json").write_text(json.dumps({"class_names": list("abcdefghij")}))
    assert genlab(*arguments, "label=c").code == 0


def test_the_configuration_is_plain_and_complete(trained_run: Path, exported: Path) -> None:
    text = (exported / "config.yaml").read_text()
    assert "${" not in text
    assert yaml.safe_load(text) == yaml.safe_load((trained_run / "config.yaml").read_text())


def test_loggers_and_observers_of_the_user_are_not_needed_elsewhere(genlab: Genlab, trained_run: Path) -> None:
    shutil.copytree(trained_run, "run")
    values = yaml.safe_load(Path("run/config.yaml").read_text())
    loggers = values["logger"]
    own = {"logger": {**loggers, "csv": {"_target_": "my.CSV"}}, "observer": {"brightness": {"_target_": "my.Bright"}}}
    Path("run/config.yaml").write_text(yaml.safe_dump(values | own))
    assert genlab("sample", "run=run", "num_samples=2", "split=null").code == 0
    outcome = genlab("export", "run=run", "out=export")
    assert (outcome.code, "it needs" in outcome.output) == (0, False)
    kept = yaml.safe_load(Path("export/config.yaml").read_text())
    assert (kept["logger"], kept["observer"]) == (loggers, {})
    assert package.load("export").spec == package.load("run").spec


def test_other_tools_read_and_verify_it(exported: Path) -> None:
    with safetensors.safe_open(exported / "model.safetensors", framework="pt") as file:
        metadata = file.metadata()
        assert set(file.keys()) == set(package.load(exported).state_dict())
    assert (metadata["weights"], metadata["checkpoint"]) == ("trained", "best.safetensors")
    assert metadata["genlab_version"] == package.__version__
    subprocess.run(["sha256sum", "--check", "SHA256SUMS"], cwd=exported, check=True, capture_output=True, timeout=60)


@pytest.mark.slow
def test_the_averaged_weights_are_handed_on_where_they_were_kept(genlab: Genlab, tmp_path: Path) -> None:
    arguments = ["model=gan", "dataset.size=8", "num_threads=1", "trainer=smoke", "trainer.num_steps=4"]
    assert genlab("train", *arguments, "trainer.ema_decay=0.9", "hydra.run.dir=run").code == 0
    assert genlab("export", "run=run").code == 0
    state = CheckpointFolder(Path("run/checkpoints")).load(LAST, device=torch.device("cpu"))
    weights, origin = load_weights(Path("run/export"))
    assert (origin.weights, origin.step) == ("averaged", "4")
    assert all(torch.equal(weights[name], state["average"][name]) for name in weights)
    assert any(not torch.equal(weights[name], state["model"][name]) for name in weights)
    card = Path("run/export/README.md").read_text()
    assert "weights: averaged, of best.safetensors at step 4" in card


def test_an_export_differs_in_no_setting_from_its_run(trained_run: Path, exported: Path) -> None:
    runs = [read_run(trained_run, name="run"), read_run(exported, name="export")]
    assert differing(runs) == {}
    assert runs[0].configuration["model"] == "draw"


def test_the_card_tells_what_was_measured_and_how_it_was_made(
    genlab: Genlab, trained_run: Path, tmp_path: Path
) -> None:
    shutil.copytree(trained_run, "run")
    assert genlab("evaluate", "run=run", "num_importance_samples=3", "seed=5").code == 0
    assert genlab("export", "run=run").code == 0
    card = Path("run/export/README.md").read_text()
    record = json.loads(Path("run/evaluation.json").read_text())
    (bound,) = [entry for entry in record["measures"] if entry["name"] == "nll_upper_bound_nats"]
    (row,) = [line for line in card.splitlines() if line.startswith("| nll_upper_bound_nats |")]
    cells = [cell.strip() for cell in row.split("|")[1:-1]]
    assert cells[1:8] == [f"{bound['value']:.2f}", f"{bound['standard_error']:.3g}", *row_of(bound)]
    assert "K = 3" in card
    assert "no model" in card  # the baselines
    for fact in ("genlab train model=draw", "seed: 0", "cost: ", "commit of genlab: ", "Licence", "num_units: 16"):
        assert fact in card, fact
    assert record["provenance"].split(",")[0] in card.replace("\\", "")


@pytest.mark.parametrize(
    ("fixture", "commands"), [("trained_run", ["sample", "evaluate"]), ("classifier_run", ["evaluate"])]
)
def test_what_the_card_says_of_its_use_works(
    genlab: Genlab, request: pytest.FixtureRequest, fixture: str, commands: list[str]
) -> None:
    assert genlab("export", f"run={request.getfixturevalue(fixture)}", "out=it").code == 0
    card = Path("it/README.md").read_text().replace("THIS_FOLDER", "it")
    (lines,) = re.findall("```python\n(.*?)```", card, re.DOTALL)
    Path("use.py").write_text(lines)
    runpy.run_path("use.py")
    assert re.findall(r"`genlab (\w+) run=it`", card) == commands
    for command in commands:
        genlab(command, "run=it").checked()


def row_of(measure: dict[str, Any]) -> list[str]:
    return [measure["unit"], measure["kind"], measure["split"], f"{measure['num_examples']:,}", ""]


def test_a_card_of_a_hostile_run_holds_no_markup_of_its_maker(genlab: Genlab, trained_run: Path) -> None:
    shutil.copytree(trained_run, "run")
    environment = json.loads(Path("run/environment.json").read_text())
    hostile = "```\n<script>alert(1)</script> [x](javascript:alert(1)) | \x1b[2J"
    Path("run/environment.json").write_text(
        json.dumps(environment | {"command": f"resume= {hostile}", "cpu": hostile, "device": hostile})
    )
    assert genlab("export", "run=run").code == 0
    card = Path("run/export/README.md").read_text()
    outside = "".join(card.split("```")[::2])
    assert "alert" in outside
    assert card.count("```") % 2 == 0
    for markup in ("<script", "[x]", "\x1b", " | ?"):
        assert markup not in outside.replace("\\<", "").replace("\\[", ""), markup


def test_a_folder_that_holds_something_is_refused(genlab: Genlab, trained_run: Path) -> None:
    Path("full").mkdir()
    Path("full/thesis.txt").write_text("precious")
    genlab("export", f"run={trained_run}", "out=full").assert_error(2, "out must be a new or empty folder, got full")
    assert [path.name for path in Path("full").iterdir()] == ["thesis.txt"]
    Path("file").touch()
    assert genlab("export", f"run={trained_run}", "out=file").code == 2
    Path("empty").mkdir()
    assert genlab("export", f"run={trained_run}", "out=empty").code == 0
    assert {path.name for path in Path("empty").iterdir()} == {
        "model.safetensors",
        "config.yaml",
        "README.md",
        "SHA256SUMS",
    }


@pytest.mark.parametrize("command", ["export", "train"])
def test_an_export_is_neither_exported_nor_resumed(genlab: Genlab, exported: Path, command: str) -> None:
    word = "resume" if command == "train" else "run"
    genlab(command, f"{word}='{exported}'").assert_error(2, "export")


def flip(content: bytes) -> bytes:
    return content[:-5] + bytes([content[-5] ^ 1]) + content[-4:]


DAMAGES: dict[str, Callable[[bytes], bytes]] = {
    "one bit": flip,
    "half": lambda content: content[: len(content) // 2],
    "empty": lambda content: b"",
}


@pytest.mark.parametrize("damage", DAMAGES)
def test_damage_is_noticed_which_the_format_itself_does_not(genlab: Genlab, copied: Path, damage: str) -> None:
    path = copied / "model.safetensors"
    path.write_bytes(DAMAGES[damage](path.read_bytes()))
    if damage == "one bit":
        safetensors.torch.load_file(path)
    outcome = genlab("sample", f"run={copied}")
    outcome.assert_error(4, "model.safetensors is damaged: its SHA-256 is not that of SHA256SUMS")


@pytest.mark.parametrize("missing", ["SHA256SUMS", "model.safetensors"])
def test_a_missing_file_is_named(copied: Path, missing: str) -> None:
    (copied / missing).unlink()
    with pytest.raises(CheckpointError, match=rf"/{missing} cannot be read"):
        package.load(copied)


HEADERS = {
    "a header of 2^62 bytes": (2**62, b"{}"),
    "a header longer than the file": (10**6, b"{}"),
    "more elements than bytes": (None, b'{"a":{"dtype":"F32","shape":[1000000,1000000],"data_offsets":[0,4]}}'),
    "offsets beyond the file": (None, b'{"a":{"dtype":"F32","shape":[1000],"data_offsets":[0,4000]}}'),
    "a deep header": (None, b'{"a":' * 5000 + b"1" + b"}" * 5000),
    "no metadata": (None, b'{"a":{"dtype":"F32","shape":[1],"data_offsets":[0,4]}}'),
}


@pytest.mark.parametrize("name", HEADERS)
def test_a_hostile_file_with_a_matching_digest_is_refused(tmp_path: Path, name: str) -> None:
    length, header = HEADERS[name]
    content = struct.pack("<Q", len(header) if length is None else length) + header + bytes(4)
    (tmp_path / "model.safetensors").write_bytes(content)
    (tmp_path / "SHA256SUMS").write_text(f"{hashlib.sha256(content).hexdigest()}  model.safetensors\n")
    with pytest.raises(CheckpointError, match="is refused"):
        load_weights(tmp_path)


def test_tensors_that_share_memory_are_each_whole(tmp_path: Path) -> None:
    shared = torch.arange(6.0)
    weights = {"a": shared, "b": shared[2:], "c": shared.view(2, 3).t(), "d": torch.tensor(True)}
    origin = Origin(step="1", checkpoint="last.safetensors", weights="trained", model_fingerprint="f")
    save_weights(tmp_path, weights, origin)
    read, told = load_weights(tmp_path)
    assert told == origin
    assert all(torch.equal(read[name], weights[name]) for name in weights)


def test_two_exports_of_the_same_weights_are_the_same_file(tmp_path: Path) -> None:
    origin = Origin(step="1", checkpoint="last.safetensors", weights="trained", model_fingerprint="f")
    digests = set()
    for number in range(8):  # the library has an order of its own in each call
        (folder := tmp_path / str(number)).mkdir()
        save_weights(folder, {"a": torch.arange(6.0), "b": torch.tensor(True)}, origin)
        digests.add((folder / "SHA256SUMS").read_text())
    assert len(digests) == 1


@pytest.mark.parametrize("word", ["best.safetensors", "Best", "previous", "bst", "lst"])
def test_a_checkpoint_that_there_is_not_is_refused(trained_run: Path, word: str) -> None:
    nearest = "last" if word == "lst" else "best"
    with pytest.raises(ConfigurationError, match=f"checkpoint has no choice '{word}'; .*{nearest}"):
        package.load(trained_run, checkpoint=word)


@pytest.mark.parametrize("name", ["gpu", "cuda:128", "cuda:01", "cuda:99"])
def test_a_device_that_there_is_not_is_refused(trained_run: Path, name: str) -> None:
    with pytest.raises(ConfigurationError, match=f"^device must .*, got {name}[;:]"):
        package.load(trained_run, device=name)


def write_weights(folder: Path, metadata: dict[str, str]) -> None:
    """Write the weights of an export again, with other metadata and a matching digest."""
    weights = safetensors.torch.load_file(folder / "model.safetensors")
    content = safetensors.torch.save(weights, metadata=metadata)
    (folder / "model.safetensors").write_bytes(content)
    (folder / "SHA256SUMS").write_text(f"{hashlib.sha256(content).hexdigest()}  model.safetensors\n")


def test_weights_that_name_another_model_are_refused(genlab: Genlab, copied: Path) -> None:
    with safetensors.safe_open(copied / "model.safetensors", framework="pt") as file:
        metadata = file.metadata()
    write_weights(copied, metadata)
    package.load(copied)
    write_weights(copied, metadata | {"model_fingerprint": "0" * 64})
    genlab("sample", f"run={copied}", "split=null").assert_error(4, "its model_fingerprint is that of another model")


def test_weights_of_other_programs_are_refused_for_what_they_lack(genlab: Genlab, copied: Path) -> None:
    write_weights(copied, {"format": "pt", "step": "3"})
    outcome = genlab("sample", f"run={copied}", "split=null")
    outcome.assert_error(4, "its metadata have no checkpoint, weights, model_fingerprint, genlab_version")


@pytest.mark.parametrize("command", ["sample", "evaluate", "train"])
def test_a_misspelt_device_is_refused_alike_by_all(genlab: Genlab, trained_run: Path, command: str) -> None:
    outcome = genlab(command, *([] if command == "train" else [f"run={trained_run}"]), "device=cda")
    outcome.assert_error(2, "device must be auto, cpu, cuda, cuda:N or mps, got cda; did you mean 'cuda'?")


def test_an_export_that_failed_leaves_nothing_and_the_next_one_succeeds(genlab: Genlab, trained_run: Path) -> None:
    shutil.copytree(trained_run, "run")
    before = sorted(Path("run").iterdir())
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (5000, hard))
    try:
        outcome = genlab("export", "run=run")
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert (outcome.code, outcome.errors.count("\n")) == (7, 1)
    assert sorted(Path("run").iterdir()) == before
    assert genlab("export", "run=run").code == 0
    assert len(list(Path("run/export").iterdir())) == 4


def test_a_run_without_a_checkpoint_is_answered_with_the_command_that_trains_it(genlab: Genlab) -> None:
    assert genlab("train", "model=draw", *TINY, "trainer.dry_run=true", "hydra.run.dir=dry").code == 0
    for command in ("export", "sample", "evaluate"):
        outcome = genlab(command, "run=dry")
        outcome.assert_error(4, "has no checkpoint; to train it: ")
        assert outcome.errors.endswith("train resume=dry trainer.dry_run=false\n")
    with locked(Path("dry"), is_resumed=True):
        outcome = genlab("sample", "run=dry")
    assert (outcome.code, "dry is in use by PID" in outcome.errors) == (8, True)
    assert genlab("train", "resume=dry", "trainer.dry_run=false").code == 0
    assert genlab("export", "run=dry").code == 0
