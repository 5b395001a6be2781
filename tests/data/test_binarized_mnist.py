"""The fixed binarisation: parsed, verified, fetched, and refused with a hint."""

import hashlib
import os
from pathlib import Path

import numpy as np
import pytest
import torch

from genlab.data import binarized_mnist as module
from genlab.data.binarized_mnist import FILES, binarized_mnist, read_amat
from genlab.errors import DataError, StorageError
from tests.data.servers import serve
from tests.data.sources import CPU

UNREACHABLE = "http://127.0.0.1:9/"


def _amat(count: int, seed: int) -> tuple[bytes, np.ndarray]:
    pixels = np.random.default_rng(seed).integers(0, 2, (count, 784))
    return "".join(" ".join(map(str, row)) + "\n" for row in pixels).encode(), pixels


@pytest.fixture
def published(monkeypatch):
    """Three small files under the published names, with their sums in place of the published ones."""
    contents, sums = {}, {}
    for seed, (split, (name, _)) in enumerate(FILES.items()):
        contents[name], _ = _amat(4 + seed, seed)
        sums[split] = (name, hashlib.md5(contents[name]).hexdigest())
    monkeypatch.setattr(module, "FILES", sums)
    monkeypatch.setattr(module, "URL", UNREACHABLE)
    monkeypatch.delenv("GENLAB_DATA", raising=False)
    return contents


def _write(folder, contents):
    folder.mkdir(parents=True, exist_ok=True)
    for name, content in contents.items():
        (folder / name).write_bytes(content)


def test_every_second_byte_is_a_pixel(tmp_path):
    content, pixels = _amat(3, 0)
    (tmp_path / "file").write_bytes(content)
    assert np.array_equal(read_amat(tmp_path / "file").numpy().reshape(3, 784), pixels)


@pytest.mark.parametrize("subfolder", ["BinarizedMNIST", "."])
def test_files_are_found_offline_in_both_places(tmp_path, published, subfolder):
    _write(tmp_path / subfolder, published)
    data = binarized_mnist(root=str(tmp_path), download=False)
    assert [data.num_images(split) for split in FILES] == [4, 5, 6]
    assert data.binarization == "fixed"
    assert data.spec.num_levels == 2
    assert data.spec.num_classes == 0
    assert data.provenance == "fixed binarisation (Larochelle/Murray), 4/5/6"
    batch = data.subset("test", 6, seed=0, device=CPU)
    assert set(batch.images.unique().tolist()) == {0.0, 1.0}
    assert batch.labels.tolist() == [-1] * 6


def test_root_comes_from_the_environment(tmp_path, published, monkeypatch):
    _write(tmp_path / "BinarizedMNIST", published)
    monkeypatch.setenv("GENLAB_DATA", str(tmp_path))
    assert binarized_mnist(root=None, download=False).num_images("train") == 4


def test_offline_error_says_all_in_one_line(tmp_path, published):
    with pytest.raises(DataError) as caught:
        binarized_mnist(root=str(tmp_path), download=True)
    message = str(caught.value)
    for part in (
        "binarized_mnist_train.amat is missing",
        str(tmp_path),
        "dataset.root",
        UNREACHABLE,
        "refused",
        "by hand",
        "dataset=digits",
    ):
        assert part in message
    assert "\n" not in message
    assert caught.value.exit_code == 3


def test_error_names_the_setting_that_was_used(tmp_path, published, monkeypatch):
    monkeypatch.setenv("GENLAB_DATA", str(tmp_path))
    with pytest.raises(DataError, match="GENLAB_DATA"):
        binarized_mnist(root=None, download=False)
    monkeypatch.delenv("GENLAB_DATA")
    monkeypatch.setenv("HOME", str(tmp_path))
    with pytest.raises(DataError, match=r"\.cache/genlab .*neither dataset\.root nor GENLAB_DATA is set"):
        binarized_mnist(root=None, download=False)


def test_damaged_file_is_refused_offline_and_fetched_again_online(tmp_path, published, monkeypatch):
    _write(tmp_path / "BinarizedMNIST", published)
    name = FILES["test"][0]
    damaged = bytearray(published[name])
    damaged[0] ^= 1  # still zeros and ones: only the sum can tell
    (tmp_path / "BinarizedMNIST" / name).write_bytes(damaged)
    with pytest.raises(DataError, match=f"{name} is damaged"):
        binarized_mnist(root=str(tmp_path), download=False)
    with serve(published) as (url, asked):
        monkeypatch.setattr(module, "URL", url)
        binarized_mnist(root=str(tmp_path), download=True)
    assert asked == [name]
    assert (tmp_path / "BinarizedMNIST" / name).read_bytes() == published[name]


def test_cut_download_is_never_accepted_and_repaired_by_the_next_run(tmp_path, published, monkeypatch):
    name = FILES["train"][0]
    with serve(published, cut={name: 1}) as (url, asked):
        monkeypatch.setattr(module, "URL", url)
        with pytest.raises(DataError, match=name):
            binarized_mnist(root=str(tmp_path), download=True)
        assert not list((tmp_path / "BinarizedMNIST").glob("*"))
        data = binarized_mnist(root=str(tmp_path), download=True)
        num_requests = len(asked)
        binarized_mnist(root=str(tmp_path), download=True)
    assert num_requests == len(asked) == 4  # a run with the data present asks for nothing
    assert torch.equal(data.stream(batch_size=4, seed=0, device=CPU).batch(0).labels, torch.full((4,), -1))


def test_missing_page_is_reported(tmp_path, published, monkeypatch):
    with serve({}) as (url, _):
        monkeypatch.setattr(module, "URL", url)
        with pytest.raises(DataError, match="Not Found"):
            binarized_mnist(root=str(tmp_path), download=True)


def test_unwritable_root_is_a_storage_error(tmp_path, published, monkeypatch):
    (tmp_path / "BinarizedMNIST").write_text("a file where a folder should be")
    with serve(published) as (url, _):
        monkeypatch.setattr(module, "URL", url)
        with pytest.raises(StorageError, match=r"cannot write .*: dataset\.root for"):
            binarized_mnist(root=str(tmp_path), download=True)


def test_a_read_only_root_is_reported_with_what_is_missing_and_stays_as_it_is(tmp_path, published, monkeypatch):
    monkeypatch.setattr("os.access", lambda path, mode: not (Path(path) == tmp_path and mode == os.W_OK))
    with pytest.raises(DataError, match=f"binarized_mnist_train.amat is missing .*{tmp_path} cannot be written"):
        binarized_mnist(root=str(tmp_path), download=True)
    assert list(tmp_path.iterdir()) == []
