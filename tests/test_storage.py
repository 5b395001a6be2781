"""Reading from a folder that somebody else may have made."""

import tracemalloc
from pathlib import Path

import pytest

from genlab.storage import read_within


def test_a_generous_limit_takes_no_memory(tmp_path: Path) -> None:
    (tmp_path / "small").write_bytes(b"abc")
    tracemalloc.start()
    try:
        assert read_within(tmp_path, "small", limit=10**9) == b"abc"
        assert tracemalloc.get_traced_memory()[1] < 10**6
    finally:
        tracemalloc.stop()
    with pytest.raises(ValueError, match="3 bytes, and at most 2"):
        read_within(tmp_path, "small", limit=2)


def test_a_folder_in_the_place_of_a_file_is_named(tmp_path: Path) -> None:
    (tmp_path / "config.yaml").mkdir()
    with pytest.raises(IsADirectoryError) as refusal:
        read_within(tmp_path, "config.yaml", limit=100)
    assert refusal.value.filename == str(tmp_path / "config.yaml")
