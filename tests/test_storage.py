"""Reading from an untrusted folder, and making a complete one."""

import fcntl
import json
import os
from pathlib import Path

import pytest

from genlab.errors import StorageError
from genlab.storage import json_bytes, read_within, remove_temporaries, whole_folder


def test_a_folder_in_the_place_of_a_file_is_named(tmp_path: Path) -> None:
    (tmp_path / "config.yaml").mkdir()
    with pytest.raises(IsADirectoryError) as refusal:
        read_within(tmp_path, "config.yaml")
    assert refusal.value.filename == str(tmp_path / "config.yaml")


def test_json_has_no_other_numbers_than_finite_ones() -> None:
    content = {"a": [1.5, float("nan"), {"b": float("-inf")}], "c": (2, float("inf")), "d": "NaN"}
    assert json.loads(json_bytes(content)) == {"a": [1.5, None, {"b": None}], "c": [2, None], "d": "NaN"}
    json.loads(json_bytes(content), parse_constant=pytest.fail)


def test_a_folder_appears_whole_or_not_at_all(tmp_path: Path) -> None:
    target = tmp_path / "new" / "[x]"
    with pytest.raises(FileNotFoundError), whole_folder(target) as folder:
        (folder / "file").write_bytes((folder / "missing").read_bytes())
    assert list(target.parent.iterdir()) == []
    with whole_folder(target) as folder:
        (folder / "file").touch()
        assert not target.exists()
    assert [path.name for path in target.iterdir()] == ["file"]
    assert [path.name for path in target.parent.iterdir()] == ["[x]"]
    (tmp_path / "empty").mkdir()
    (tmp_path / "link").symlink_to("empty")
    with whole_folder(tmp_path / "link") as folder:
        (folder / "file").touch()
    assert [path.name for path in (tmp_path / "link").iterdir()] == ["file"]
    assert (tmp_path / "link").is_symlink()


def test_what_a_killed_process_left_of_a_folder_goes_and_what_another_fills_stays(tmp_path: Path) -> None:
    target, stray, other = tmp_path / "export", tmp_path / ".export.0.tmp", tmp_path / ".export-2.0.tmp"
    for folder in (stray, other):
        folder.mkdir()
        (folder / "model.safetensors").touch()
    remove_temporaries(tmp_path)
    assert stray.exists()
    descriptor = os.open(stray, os.O_RDONLY)
    fcntl.flock(descriptor, fcntl.LOCK_EX)
    with whole_folder(target):
        assert stray.exists()
    target.rmdir()
    os.close(descriptor)  # as a kill does
    with whole_folder(target):
        assert not stray.exists()
        assert other.exists()


def test_a_folder_that_cannot_be_replaced_is_named(tmp_path: Path) -> None:
    target = tmp_path / "taken"
    target.mkdir()
    with pytest.raises(StorageError, match=r"taken cannot be replaced \(Directory not empty\)"), whole_folder(target):
        (target / "precious").touch()
    assert [path.name for path in tmp_path.iterdir()] == ["taken"]
    with pytest.raises(StorageError, match="cannot be made: "), whole_folder(target / "precious" / "export"):
        pass
