"""The MNIST family: verified at every reading, repaired through torchvision's downloader, refused with a hint."""

import gzip
import hashlib
from dataclasses import replace

import numpy as np
import pytest
import torch

from genlab.data import mnist as module
from genlab.data.mnist import (
    FASHION_MNIST,
    KMNIST,
    MNIST,
    emnist,
    emnist_source,
    fashion_mnist,
    kmnist,
    mnist,
    read_idx,
    read_source,
)
from genlab.errors import DataError
from tests.data.servers import serve
from tests.data.sources import write_idx, write_mnist

CHOICES = {
    "download": False,
    "binarization": "none",
    "threshold": 0.5,
    "classes": None,
    "num_labels_per_class": None,
    "label_seed": 0,
}
UNVERIFIED = replace(MNIST, md5={})
FILES = [f"{prefix}-{kind}-ubyte" for prefix in ("train", "t10k") for kind in ("images-idx3", "labels-idx1")]


@pytest.mark.parametrize(
    ("damage", "reason"),
    [
        (lambda content: b"", "0 bytes are less than a header"),
        (lambda content: content[:-1], ".*header announces"),
        (lambda content: content[: len(content) // 3], ".*header announces"),
        (lambda content: content + b"\0", ".*header announces"),
        (lambda content: bytes(len(content)), "it starts with 00000000"),
        (lambda content: np.random.default_rng(0).bytes(len(content)), "it starts with"),
        (lambda content: content[:3] + b"\x01" + content[4:], "it starts with 00000801"),
    ],
)
def test_damaged_file_is_reported_with_its_reason(tmp_path, damage, reason):
    write_mnist(tmp_path)
    path = tmp_path / "MNIST" / "raw" / "t10k-images-idx3-ubyte"
    path.write_bytes(damage(path.read_bytes()))
    with pytest.raises(DataError, match=rf"t10k-images-idx3-ubyte is damaged \({reason}") as caught:
        read_source(UNVERIFIED, root=str(tmp_path), download=False)
    assert "\n" not in str(caught.value)
    assert "train-images" not in str(caught.value)


def test_idx_values_and_shape(tmp_path):
    values = np.arange(24).reshape(2, 3, 4)
    write_idx(tmp_path / "file", values)
    assert np.array_equal(read_idx(tmp_path / "file", num_dimensions=3).numpy(), values)


def test_images_of_another_size_are_refused(tmp_path):
    write_mnist(tmp_path)
    write_idx(tmp_path / "MNIST" / "raw" / FILES[0], np.zeros((60, 27, 28)))
    with pytest.raises(DataError, match="27x28 pixels instead of 28x28"):
        read_source(UNVERIFIED, root=str(tmp_path), download=False)


def test_labels_must_match_the_images(tmp_path):
    write_mnist(tmp_path)
    write_idx(tmp_path / "MNIST" / "raw" / FILES[1], np.zeros(59))
    with pytest.raises(DataError, match="60 images and 59 labels"):
        read_source(UNVERIFIED, root=str(tmp_path), download=False)
    write_idx(tmp_path / "MNIST" / "raw" / FILES[1], np.full(60, 10))
    with pytest.raises(DataError, match="label that is none of its 10 classes"):
        read_source(UNVERIFIED, root=str(tmp_path), download=False)


def test_random_bytes_with_a_right_header_fail_the_published_sum(tmp_path):
    write_mnist(tmp_path)
    with pytest.raises(DataError, match="md5 is not the published one"):
        mnist(root=str(tmp_path), num_validation=10, **CHOICES)


@pytest.fixture
def small_torchvision(monkeypatch, tmp_path):
    """torchvision's MNIST, publishing small files."""
    datasets = pytest.importorskip("torchvision.datasets")
    write_mnist(tmp_path / "published")
    raw = tmp_path / "published" / "MNIST" / "raw"
    archives = {f"{name}.gz": gzip.compress((raw / name).read_bytes(), mtime=0) for name in FILES}
    sums = {name: hashlib.md5((raw / name).read_bytes()).hexdigest() for name in FILES}
    resources = [(name, hashlib.md5(content).hexdigest()) for name, content in archives.items()]
    monkeypatch.setattr(datasets.MNIST, "resources", resources)
    monkeypatch.setattr(module, "MNIST", replace(MNIST, md5=sums))

    def point_at(url):
        monkeypatch.setattr(datasets.MNIST, "mirrors", [url])

    return archives, point_at


def test_damaged_and_missing_files_are_repaired(tmp_path, small_torchvision):
    archives, point_at = small_torchvision
    choices = CHOICES | {"download": True, "num_validation": 10}
    (tmp_path / "root").mkdir()
    root = tmp_path / "root"
    with serve(archives) as (url, asked):
        point_at(url)
        first = mnist(root=str(root), **choices)
        assert len(set(asked)) == 4
        (root / "MNIST" / "raw" / FILES[0]).write_bytes(b"random bytes")
        (root / "MNIST" / "raw" / FILES[3]).unlink()
        assert mnist(root=str(root), **choices).fingerprint == first.fingerprint
        asked.clear()
        mnist(root=str(root), **choices)
        assert asked == []
    assert (root / "MNIST" / "raw" / f"{FILES[0]}.damaged").read_bytes() == b"random bytes"


def test_cut_download_is_repaired_by_the_next_run(tmp_path, small_torchvision):
    archives, point_at = small_torchvision
    choices = CHOICES | {"download": True, "num_validation": 10}
    (tmp_path / "root").mkdir()
    with serve(archives, cut={f"{FILES[0]}.gz": 2}) as (url, _):
        point_at(url)
        # Of torchvision 0.26 none of the files is left.
        with pytest.raises(DataError, match=rf"{FILES[0]}|train,t10k"):
            mnist(root=str(tmp_path / "root"), **choices)
        mnist(root=str(tmp_path / "root"), **choices)


def test_offline_error_leaves_the_damaged_file_in_place(tmp_path, small_torchvision):
    _, point_at = small_torchvision
    point_at("http://127.0.0.1:9/")
    write_idx(tmp_path / "root" / "MNIST" / "raw" / FILES[0], np.ones((3, 28, 28)))
    with pytest.raises(DataError) as caught:
        mnist(root=str(tmp_path / "root"), **(CHOICES | {"download": True, "num_validation": 10}))
    message = str(caught.value)
    for part in (
        f"{FILES[0]} is damaged",
        f"{FILES[1]} is missing",
        "dataset.root",
        "127.0.0.1:9",
        "by hand",
        "dataset=digits",
    ):
        assert part in message
    assert "\n" not in message
    assert (tmp_path / "root" / "MNIST" / "raw" / FILES[0]).exists()


def test_four_missing_files_are_named_in_short(tmp_path):
    told = r"^MNIST: MNIST/raw/\{train,t10k\}-\{images-idx3,labels-idx1\}-ubyte are missing in "
    with pytest.raises(DataError, match=told):
        mnist(root=str(tmp_path), **(CHOICES | {"download": False, "num_validation": 10}))


def test_split_is_by_index(tmp_path, monkeypatch):
    write_mnist(tmp_path)
    monkeypatch.setattr(module, "MNIST", UNVERIFIED)
    data = mnist(root=str(tmp_path), num_validation=15, **CHOICES)
    assert data.provenance == "MNIST, 256 levels, 45/15/20"
    device = torch.device("cpu")
    labels = [b.labels for b in data.batches("validation", batch_size=15, seed=0, device=device)]
    assert torch.cat(labels).tolist() == [index % 10 for index in range(45, 60)]
    batch = data.subset("train", 9, seed=0, device=device)
    assert torch.equal((batch.images[:, 0, 0, 0] * 255).round().long(), batch.labels)


@pytest.mark.parametrize(("build", "source"), [(fashion_mnist, FASHION_MNIST), (kmnist, KMNIST)])
def test_relatives_are_read_from_their_folders(tmp_path, build, source):
    write_mnist(tmp_path, folder=source.folder)
    data = build(root=str(tmp_path), num_validation=10, **CHOICES)
    assert (data.name, data.spec.num_classes, len(set(data.class_names))) == (source.name, 10, 10)


@pytest.mark.parametrize(
    ("variant", "count"),
    [("byclass", 62), ("bymerge", 47), ("balanced", 47), ("letters", 26), ("digits", 10), ("mnist", 10)],
)
def test_emnist_is_turned_upright_and_named(tmp_path, variant, count):
    source = emnist_source(variant)
    images = np.zeros((count, 28, 28))
    images[:, 3, 20] = 9  # row 20, column 3 of the upright image
    for prefix in (source.train, source.test):
        write_idx(tmp_path / "EMNIST" / "raw" / f"{prefix}-images-idx3-ubyte", images)
        write_idx(tmp_path / "EMNIST" / "raw" / f"{prefix}-labels-idx1-ubyte", np.arange(count) + source.first_label)
    data = emnist(variant=variant, root=str(tmp_path), num_validation=0, **CHOICES)
    assert data.spec.num_classes == len(set(data.class_names)) == count
    batch = data.subset("train", count, seed=0, device=torch.device("cpu"))
    assert sorted(batch.labels.tolist()) == list(range(count))
    assert batch.images[0, 0].nonzero().tolist() == [[20, 3]]
