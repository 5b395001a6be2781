"""Checkpoints are whole or refused: damage, hostile content, a kill between any two file operations."""

import hashlib
import itertools
import math
import os
import re
import shutil
from collections import Counter
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
import safetensors
import safetensors.torch
import torch

from genlab import storage
from genlab.errors import CheckpointError, StorageError
from genlab.run import checkpoint
from genlab.run.checkpoint import BEST, LAST, PREVIOUS, CheckpointFolder, model_fingerprint
from genlab.run.formats import CHECKPOINT_FORMAT
from genlab.run.tensor_file import seal

CPU = torch.device("cpu")


def state(value: float) -> dict[str, Any]:
    return {"model": {"weight": torch.full((50,), value)}, "average": None}


def save(folder: CheckpointFolder, step: int) -> None:
    folder.save_last(state(float(step)), step=step)


@pytest.fixture
def folder(tmp_path: Path) -> CheckpointFolder:
    made = CheckpointFolder(tmp_path / "checkpoints")
    made.prepare()
    return made


def test_keeps_the_last_two(folder: CheckpointFolder) -> None:
    for step in (1, 2, 3):
        save(folder, step)
    assert folder.load(LAST, device=CPU)["step"] == 3
    assert folder.load(PREVIOUS, device=CPU)["step"] == 2
    assert folder.last_step == 3


DAMAGES: dict[str, Callable[[bytes], bytes]] = {
    "empty": lambda content: b"",
    "one byte": lambda content: content[:1],
    "half": lambda content: content[: len(content) // 2],
    "one byte short": lambda content: content[:-1],
    "one bit flipped": lambda content: (
        content[: len(content) // 2] + bytes([content[len(content) // 2] ^ 1]) + content[len(content) // 2 + 1 :]
    ),
    "zeros": lambda content: bytes(len(content)),
    "text": lambda content: b"this is no checkpoint",
}


@pytest.mark.parametrize("damage", DAMAGES)
def test_a_damaged_checkpoint_is_refused_and_the_previous_one_taken(folder: CheckpointFolder, damage: str) -> None:
    save(folder, 1)
    save(folder, 2)
    path = folder.path / LAST
    path.write_bytes(DAMAGES[damage](path.read_bytes()))
    with pytest.raises(CheckpointError, match=r"last\.safetensors is damaged"):
        folder.load(LAST, device=CPU)
    assert folder.newest(device=CPU)["step"] == 1
    assert path.exists(), "who only looks changes nothing"
    folder.prepare()
    save(folder, 3)  # must not rotate the damaged file over the good one
    assert folder.newest(device=CPU)["step"] == 3
    assert folder.load(PREVIOUS, device=CPU)["step"] == 1


def test_any_flipped_bit_is_noticed_and_the_library_alone_would_not_notice_it(folder: CheckpointFolder) -> None:
    save(folder, 1)
    content = (folder.path / LAST).read_bytes()
    num_unnoticed = 0
    for place in range(0, len(content), 7):
        flipped = content[:place] + bytes([content[place] ^ 1]) + content[place + 1 :]
        (folder.path / LAST).write_bytes(flipped)
        with pytest.raises(CheckpointError, match=r"is damaged|has format version"):
            folder.load(LAST, device=CPU)
        with suppress(Exception):
            num_unnoticed += len(safetensors.torch.load(flipped))
    assert num_unnoticed > 20


def test_a_missing_file_and_a_folder_in_its_place(folder: CheckpointFolder) -> None:
    with pytest.raises(CheckpointError, match="cannot be read"):
        folder.load(LAST, device=CPU)
    (folder.path / LAST).mkdir()
    with pytest.raises(CheckpointError, match="cannot be read"):
        folder.load(LAST, device=CPU)


class Killed(BaseException):
    pass


def kill_at(patch: pytest.MonkeyPatch, operation: int) -> None:
    """Simulate a kill before the file operation of this number, counted from 0, and before all later ones."""
    count = 0

    def fatal(original: Callable[..., Any]) -> Callable[..., Any]:
        def call(*arguments: Any, **options: Any) -> Any:
            nonlocal count
            if count == operation:
                raise Killed
            count += 1
            return original(*arguments, **options)

        return call

    patch.setattr(Path, "replace", fatal(Path.replace))
    patch.setattr(Path, "unlink", fatal(Path.unlink))
    patch.setattr(os, "fsync", fatal(lambda _: None))  # a wait for the disk that shows nothing here


@pytest.mark.parametrize("operation", range(8))
def test_a_kill_between_any_two_file_operations_leaves_a_good_checkpoint(
    folder: CheckpointFolder, monkeypatch: pytest.MonkeyPatch, operation: int
) -> None:
    save(folder, 1)
    save(folder, 2)
    with monkeypatch.context() as patch:
        kill_at(patch, operation)
        try:
            save(folder, 3)
            finished = True
        except Killed:
            finished = False
    assert finished == (operation >= 4)  # fsync, rename, rename, fsync of the folder
    folder.prepare()
    assert folder.newest(device=CPU)["step"] >= 2
    save(folder, 4)
    assert folder.newest(device=CPU)["step"] == 4


def test_kills_in_two_saves_running_leave_good_checkpoints(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The second save must not build on the incomplete files of the first kill."""
    start = CheckpointFolder(tmp_path / "start")
    start.prepare()
    for step in (1, 2):
        save(start, step)
        start.save_best()
    for first, second in itertools.product(range(7), repeat=2):
        folder = CheckpointFolder(tmp_path / f"{first}_{second}")
        shutil.copytree(start.path, folder.path)
        for step, operation in ((3, first), (4, second)):
            with monkeypatch.context() as patch, suppress(Killed):
                kill_at(patch, operation)
                save(folder, step)
                folder.save_best()
            folder.prepare()
            newest = folder.newest(device=CPU)["step"]
            assert newest >= 2, (first, second)
            assert 2 <= folder.load(BEST, device=CPU)["step"] <= max(newest, step), (first, second)


def test_a_kill_within_a_write_on_the_final_name_leaves_no_checkpoint(
    folder: CheckpointFolder, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The kills of the tests above would find it if a checkpoint were written in place."""

    def write_in_place(path: Path, *parts: Any, **_: Any) -> None:
        content = b"".join(parts)
        with path.open("wb") as file:
            file.write(content[: len(content) // 2])
            file.flush()
            os.fsync(file.fileno())
            file.write(content[len(content) // 2 :])

    save(folder, 1)
    with monkeypatch.context() as patch:
        patch.setattr(checkpoint, "replace_atomically", write_in_place)
        kill_at(patch, 0)
        with pytest.raises(Killed):
            save(folder, 2)
    folder.prepare()
    with pytest.raises(CheckpointError):
        folder.newest(device=CPU)


def test_a_write_that_fails_leaves_the_old_bytes_and_no_litter(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "file"
    storage.replace_atomically(path, b"old")

    def full(descriptor: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(StorageError, match=r"disk full at .*file: 3 bytes to write, [\d,]+ free"):
        storage.replace_atomically(path, b"new")
    assert path.read_bytes() == b"old"
    assert [entry.name for entry in tmp_path.iterdir()] == ["file"]


def test_stray_temporary_files_are_swept(folder: CheckpointFolder) -> None:
    (folder.path / ".last.safetensors.123.tmp").write_bytes(b"half")
    folder.prepare()
    assert not list(folder.path.iterdir())


def test_the_fingerprint_tells_shapes_and_names_apart() -> None:
    layers = [torch.nn.Linear(2, 3), torch.nn.Linear(3, 2), torch.nn.Linear(2, 3, bias=False)]
    assert len({model_fingerprint(layer) for layer in layers}) == 3
    assert model_fingerprint(layers[0]) == model_fingerprint(torch.nn.Linear(2, 3))


def test_other_tools_read_the_tensors_by_name_and_the_rest_as_json(folder: CheckpointFolder) -> None:
    moments = {"layer.weight": {"step": torch.tensor(3.0), "exp_avg": torch.ones(2)}}
    kept = {"average": {"weight": torch.ones(50)}, "optimizer": {"generator": moments}, "seed": 5}
    folder.save_last(state(1.0) | kept, step=7)
    with safetensors.safe_open(folder.path / LAST, framework="pt") as file:
        assert set(file.keys()) == {
            *("model.weight", "average.weight"),
            *("optimizer.generator.layer.weight.step", "optimizer.generator.layer.weight.exp_avg"),
        }
        metadata = file.metadata()
    assert (metadata["step"], metadata["seed"], metadata["format_version"]) == ("7", "5", str(CHECKPOINT_FORMAT))
    content = (folder.path / LAST).read_bytes()
    zeroed = re.sub(rb'(?<="sha256":")[0-9a-f]{64}', b"0" * 64, content, count=1)
    assert metadata["sha256"] == hashlib.sha256(zeroed).hexdigest()


def same(ours: Any, theirs: Any) -> bool:
    if isinstance(ours, torch.Tensor):
        return ours.dtype == theirs.dtype and ours.shape == theirs.shape and torch.equal(ours, theirs)
    if isinstance(ours, dict):
        return type(ours) is type(theirs) and list(ours) == list(theirs) and all(same(ours[k], theirs[k]) for k in ours)
    if isinstance(ours, list | tuple):
        return type(ours) is type(theirs) and len(ours) == len(theirs) and all(map(same, ours, theirs))
    return type(ours) is type(theirs) and repr(ours) == repr(theirs)


def test_a_state_comes_back_to_the_last_bit(folder: CheckpointFolder) -> None:
    shared = torch.arange(6.0)
    weights = {
        "whole": shared,
        "part": shared[2:],
        "transposed": shared.view(2, 3).t(),
        "tied": shared,
        "number": torch.tensor(True),
        "empty": torch.empty(0, 3),
        "empty_too": torch.empty(0),
        "short": torch.tensor([1.1, -0.0], dtype=torch.bfloat16),
        "long": torch.tensor([2**62 + 1]),
        "parameter": torch.nn.Parameter(torch.ones(2))[1:],
    }
    kept = {
        "numbers": [0.1, -0.0, 5e-324, 1e22, math.pi, math.inf, math.nan, 1, 2**70, True, None, "$text"],
        "groups": [{"betas": (0.9, 0.999), "lr": torch.tensor(0.1), "params": [0, 1]}, {}],
        "milestones": Counter({3: 1, 5: 2}),
        "keys": {0: {"step": torch.tensor(1)}, "0": 1, (1, 2): [[]], "$tensor": "x", "a.b": {"c": torch.zeros(1)}},
        "same": {"a": {"b.c": torch.zeros(1)}, "a.b": {"c": torch.ones(1)}},
        'quoted "sha256":"': 'and "sha256":"' + "0" * 64,
    }
    folder.save_last({"model": weights, "average": weights, **kept}, step=1)
    read = folder.load(LAST, device=CPU)
    assert all(same(read[part][name], value) for part in ("model", "average") for name, value in weights.items())
    assert all(same(read[name], value) for name, value in kept.items())


@pytest.mark.parametrize("value", [object(), {1, 2}, torch.nn.Linear, torch.zeros(2).to_sparse(), 1j])
def test_a_state_that_no_checkpoint_holds_is_refused_while_it_is_saved(folder: CheckpointFolder, value: Any) -> None:
    with pytest.raises(CheckpointError, match="cannot hold the state of this run"):
        folder.save_last(state(1.0) | {"optimizer": {"model": value}}, step=1)
    assert list(folder.path.iterdir()) == []


def test_a_newer_format_is_refused_by_name(folder: CheckpointFolder) -> None:
    save(folder, 1)
    metadata = {"format_version": str(CHECKPOINT_FORMAT + 1), "step": "1"}
    (folder.path / LAST).write_bytes(safetensors.torch.save({"model.a": torch.zeros(1)}, metadata))
    with pytest.raises(CheckpointError, match=r"last\.safetensors has format version 3, and .* up to 2; install"):
        folder.load(LAST, device=CPU)


REFUSED = {
    "no step": {},
    "a step that is a text": {"step": '"1"'},
    "a step of 10^30": {"step": str(10**30)},
    "a step with a deep tail": {"step": "[" * 100_000},
    "weights that are a number": {"step": "1", "model": "3"},
    "an average that is a list": {"step": "1", "average": "[]"},
    "a tensor that is missing": {"step": "1", "optimizer": '{"$tensor": "b"}'},
    "keys that are lists": {"step": "1", "optimizer": '{"$items": [[[], 1]]}'},
    "no JSON": {"step": "1", "seed": "NaN"},
}


@pytest.mark.parametrize("name", REFUSED)
def test_a_sealed_file_that_is_no_checkpoint_is_refused(folder: CheckpointFolder, name: str) -> None:
    parts = seal({"model.a": torch.zeros(1)}, {"format_version": str(CHECKPOINT_FORMAT), **REFUSED[name]})
    (folder.path / LAST).write_bytes(b"".join(parts))
    with pytest.raises(CheckpointError, match="is refused: ") as caught:
        folder.load(LAST, device=CPU)
    assert "\n" not in str(caught.value)


def test_a_disk_that_fills_up_while_saving_costs_neither_checkpoint(
    folder: CheckpointFolder, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A quota shows as no lack of space before the write."""
    save(folder, 1)
    save(folder, 2)

    def full(descriptor: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(StorageError, match="disk full"):
        save(folder, 3)
    assert [folder.load(name, device=CPU)["step"] for name in (LAST, PREVIOUS)] == [2, 1]
    assert len(list(folder.path.iterdir())) == 2


def test_the_best_weights_are_those_that_the_last_checkpoint_knows(folder: CheckpointFolder) -> None:
    def best() -> int:
        return int(folder.load(BEST, device=CPU)["step"])

    save(folder, 1)
    folder.newest(device=CPU)
    folder.agree_on_best(None, newest_step=1)
    assert not folder.has(BEST)
    folder.agree_on_best(1, newest_step=1)  # killed before the first best one
    assert best() == 1
    save(folder, 2)
    folder.newest(device=CPU)
    folder.agree_on_best(1, newest_step=2)
    assert best() == 1
    folder.agree_on_best(2, newest_step=2)  # killed before the second one
    assert best() == 2
    assert torch.equal(folder.load(BEST, device=CPU)["model"]["weight"], torch.full((50,), 2.0))
    folder.agree_on_best(1, newest_step=2)  # the last one was damaged, and the one before does not know it
    assert not folder.has(BEST)
    assert folder.has(f"{BEST}.lost")


def test_the_checkpoint_before_a_damaged_one_tells_its_step_and_may_be_the_best(folder: CheckpointFolder) -> None:
    assert folder.seen_at == (0, 0)
    for step in (1, 2):
        folder.save_last(state(float(step)) | {"images_seen": 10 * step}, step=step)
    assert folder.seen_at == (2, 20)
    (folder.path / LAST).write_bytes(b"")
    assert folder.seen_at == (1, 10)
    folder.newest(device=CPU)
    folder.prepare()
    folder.agree_on_best(1, newest_step=1)
    assert folder.load(BEST, device=CPU)["step"] == 1
    save(folder, 3)  # of a format that counts no images
    assert folder.seen_at == (1, 10)
