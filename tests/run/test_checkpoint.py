"""Checkpoints are whole or refused: damage, hostile content, a kill between any two file operations."""

import hashlib
import io
import itertools
import json
import os
import pickle
import shutil
import zipfile
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
import torch

from genlab import storage
from genlab.errors import CheckpointError, StorageError
from genlab.run.checkpoint import CheckpointFolder, model_fingerprint

CPU = torch.device("cpu")


def state(value: float) -> dict[str, Any]:
    return {"model": {"weight": torch.full((50,), value)}}


def save(folder: CheckpointFolder, step: int) -> None:
    folder.save_last(state(float(step)), step=step, fingerprint="f")


@pytest.fixture
def folder(tmp_path: Path) -> CheckpointFolder:
    made = CheckpointFolder(tmp_path / "checkpoints")
    made.prepare()
    return made


def test_keeps_the_last_two(folder: CheckpointFolder) -> None:
    for step in (1, 2, 3):
        save(folder, step)
    assert folder.load("last.pt", device=CPU)["step"] == 3
    assert folder.load("previous.pt", device=CPU)["step"] == 2
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
    path = folder.path / "last.pt"
    path.write_bytes(DAMAGES[damage](path.read_bytes()))
    with pytest.raises(CheckpointError, match=r"last\.pt is damaged"):
        folder.load("last.pt", device=CPU)
    assert folder.newest(device=CPU)["step"] == 1
    assert path.exists(), "who only looks changes nothing"
    folder.prepare()
    save(folder, 3)  # must not rotate the damaged file over the good one
    assert folder.newest(device=CPU)["step"] == 3
    assert folder.load("previous.pt", device=CPU)["step"] == 1


def test_torch_alone_would_not_notice_a_flipped_bit(folder: CheckpointFolder) -> None:
    """Why a SHA-256 is needed: the reader itself accepts the damage of tensor data."""
    save(folder, 1)
    content = bytearray((folder.path / "last.pt").read_bytes())
    content[bytes(content).index(torch.full((50,), 1.0).numpy().tobytes()) + 3] ^= 1
    loaded = torch.load(io.BytesIO(bytes(content)), weights_only=True)
    assert not torch.equal(loaded["model"]["weight"], torch.full((50,), 1.0))


def test_a_missing_sidecar_makes_a_file_unusable(folder: CheckpointFolder) -> None:
    save(folder, 1)
    (folder.path / "last.json").unlink()
    with pytest.raises(CheckpointError, match="matches no sidecar"):
        folder.load("last.pt", device=CPU)
    with pytest.raises(CheckpointError, match="no usable checkpoint"):
        folder.newest(device=CPU)
    save(folder, 2)
    assert folder.newest(device=CPU)["step"] == 2


def test_a_missing_file_and_a_folder_in_its_place(folder: CheckpointFolder) -> None:
    with pytest.raises(CheckpointError, match="cannot be read"):
        folder.load("last.pt", device=CPU)
    (folder.path / "last.pt").mkdir()
    with pytest.raises(CheckpointError, match="cannot be read"):
        folder.load("last.pt", device=CPU)


class Killed(BaseException):
    pass


def kill_at(patch: pytest.MonkeyPatch, operation: int) -> None:
    """End everything before the file operation of this number, counted from 0; none comes after it either."""
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


@pytest.mark.parametrize("operation", range(12))
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
    assert finished == (operation >= 8)
    folder.prepare()
    assert folder.newest(device=CPU)["step"] >= 2
    save(folder, 4)
    assert folder.newest(device=CPU)["step"] == 4


@pytest.mark.parametrize("name", ["last", "best"])
def test_kills_in_two_saves_running_leave_a_good_checkpoint(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    """What the first kill leaves half done must not be what the second save builds on."""
    num_operations = 10
    start = CheckpointFolder(tmp_path / "start")
    start.prepare()
    for step in (1, 2):
        getattr(start, f"save_{name}")(state(float(step)), step=step, fingerprint="f")
    for first, second in itertools.product(range(num_operations), repeat=2):
        folder = CheckpointFolder(tmp_path / f"{first}_{second}")
        shutil.copytree(start.path, folder.path)
        for step, operation in ((3, first), (4, second)):
            with monkeypatch.context() as patch, suppress(Killed):
                kill_at(patch, operation)
                getattr(folder, f"save_{name}")(state(float(step)), step=step, fingerprint="f")
            folder.prepare()
            kept = folder.newest(device=CPU) if name == "last" else folder.load("best.pt", device=CPU)
            assert kept["step"] >= 2, (first, second)


def test_plain_writing_would_fail_that_test(folder: CheckpointFolder, monkeypatch: pytest.MonkeyPatch) -> None:
    """The same kill in the middle of a write on the final name leaves a torn file."""
    save(folder, 1)
    content = (folder.path / "last.pt").read_bytes()
    (folder.path / "last.pt").write_bytes(content[: len(content) // 2])
    with pytest.raises(CheckpointError):
        folder.load("last.pt", device=CPU)


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


class Bomb:
    def __init__(self, marker: Path) -> None:
        self.marker = marker

    def __reduce__(self) -> tuple[Any, ...]:
        return (os.mkdir, (str(self.marker),))


@pytest.mark.parametrize("kind", ["zip", "legacy", "pickle"])
def test_a_checkpoint_that_carries_code_is_refused(folder: CheckpointFolder, tmp_path: Path, kind: str) -> None:
    marker = tmp_path / "executed"
    buffer = io.BytesIO()
    if kind == "pickle":
        pickle.dump(Bomb(marker), buffer)
    else:
        torch.save({"model": Bomb(marker)}, buffer, _use_new_zipfile_serialization=kind == "zip")
    save(folder, 1)
    (folder.path / "last.pt").write_bytes(buffer.getvalue())
    sidecar = json.loads((folder.path / "last.json").read_text())
    sidecar["sha256"] = hashlib.sha256(buffer.getvalue()).hexdigest()  # the attacker writes a fitting sidecar
    (folder.path / "last.json").write_text(json.dumps(sidecar))
    with pytest.raises(CheckpointError, match="refused"):
        folder.load("last.pt", device=CPU)
    assert not marker.exists()


def test_stray_temporary_files_are_swept(folder: CheckpointFolder) -> None:
    (folder.path / ".last.pt.123.tmp").write_bytes(b"half")
    folder.prepare()
    assert not list(folder.path.iterdir())


def test_the_fingerprint_tells_shapes_and_names_apart() -> None:
    layers = [torch.nn.Linear(2, 3), torch.nn.Linear(3, 2), torch.nn.Linear(2, 3, bias=False)]
    assert len({model_fingerprint(layer) for layer in layers}) == 3
    assert model_fingerprint(layers[0]) == model_fingerprint(torch.nn.Linear(2, 3))


def test_a_checkpoint_is_an_ordinary_torch_file(folder: CheckpointFolder) -> None:
    save(folder, 7)
    assert zipfile.is_zipfile(folder.path / "last.pt")
    assert torch.load(folder.path / "last.pt", weights_only=True)["step"] == 7


def test_the_best_weights_are_those_that_the_last_checkpoint_knows(folder: CheckpointFolder) -> None:
    def best() -> int:
        return int(folder.load("best.pt", device=CPU)["step"])

    save(folder, 1)
    folder.newest(device=CPU)
    folder.agree_on_best(None, newest_step=1)
    assert not folder.has("best.pt")
    folder.agree_on_best(1, newest_step=1)  # killed before the first best.pt
    assert best() == 1
    save(folder, 2)
    folder.newest(device=CPU)
    folder.agree_on_best(1, newest_step=2)
    assert best() == 1
    folder.agree_on_best(2, newest_step=2)  # killed before the second one
    assert best() == 2
    assert torch.equal(folder.load("best.pt", device=CPU)["model"]["weight"], torch.full((50,), 2.0))
    folder.agree_on_best(1, newest_step=2)  # last.pt was damaged, and the one before does not know it
    assert not folder.has("best.pt")
    assert folder.has("best.pt.lost")
