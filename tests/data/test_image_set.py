"""Images of files as they are: their order, their form, their classes, and one line for what cannot be used."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from genlab.data.image_files import scan
from genlab.data.image_set import read_image_set
from genlab.errors import ConfigurationError, DataError

GREY = np.arange(12, dtype=np.uint8).reshape(3, 4)


def save(levels: np.ndarray, path: Path, **options: Any) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(levels).save(path, **options)


def test_files_keep_the_order_of_their_names_across_folders(tmp_path: Path) -> None:
    for index, name in enumerate(("dog/2.png", "cat/3.png", "dog/10.png")):
        save(GREY + index, tmp_path / name)
    (tmp_path / "sampling.json").write_text('{"is_finished": true}')
    images = read_image_set(tmp_path, key="samples")
    assert images.levels.shape == (3, 1, 3, 4)
    assert images.levels[:, 0, 0, 0].tolist() == [0, 1, 2]
    assert images.class_names == ["dog", "cat", "dog"]
    assert images.labels_among(("cat", "dog", "emu")).tolist() == [1, 0, 1]
    assert images.labels_among(("cat", "emu")) is None
    assert [file.name for file in scan(tmp_path, key="x")] == ["cat/3.png", "dog/10.png", "dog/2.png"]


def test_an_npz_is_the_same_images_as_a_folder(tmp_path: Path) -> None:
    colour = np.stack([GREY, GREY + 1, GREY + 2], -1)
    for index in range(2):
        save(colour + index, tmp_path / "a" / f"{index}.png")
    np.savez(tmp_path / "a.npz", np.stack([colour, colour + 1]), np.array([4, 9]))
    folder, npz = (read_image_set(tmp_path / name, key="samples") for name in ("a", "a.npz"))
    assert torch.equal(folder.levels, npz.levels)
    assert folder.fingerprint == npz.fingerprint
    assert (folder.form, folder.class_names, folder.labels_among(("0",))) == ("3x4, in colour", None, None)
    assert npz.labels_among([str(digit) for digit in range(10)]).tolist() == [4, 9]
    assert npz.labels_among(("0", "1")) is None


def test_the_classes_of_samples_are_those_of_their_run(tmp_path: Path) -> None:
    """A run of some classes of a data set counts them from 0."""
    np.savez(tmp_path / "samples.npz", np.zeros((3, 4, 4, 1), np.uint8), np.array([0, 2, 1]))
    record = {"is_finished": True, "class_folders": ["4", "5", "6"]}
    (tmp_path / "sampling.json").write_text(json.dumps(record))
    digits = [str(digit) for digit in range(10)]
    for place in (tmp_path, tmp_path / "samples.npz"):
        assert read_image_set(place, key="samples").labels_among(digits).tolist() == [4, 6, 5]
    (tmp_path / "sampling.json").write_text(json.dumps(record | {"class_folders": ["0", "1", "2"]}))
    assert read_image_set(tmp_path, key="samples").labels_among(["cat", "dog", "emu"]).tolist() == [0, 2, 1]


@pytest.mark.parametrize("kind", ["png", "npz"])
def test_folders_called_by_numbers_are_the_classes_that_the_record_names(tmp_path: Path, kind: str) -> None:
    """As of EMNIST, where a and A would be one folder on some disks; the numbers count the classes of the run."""
    names = ["A", "a", "no\\xa0break"]
    record = {"is_finished": True, "class_folders": ["0", "1", "2"], "class_names": names}
    (tmp_path / "sampling.json").write_text(json.dumps(record))
    if kind == "npz":
        np.savez(tmp_path / "samples.npz", np.zeros((3, 4, 4, 1), np.uint8), np.array([1, 0, 2]))
    else:
        for index, folder in enumerate("102"):
            save(GREY, tmp_path / folder / f"{index}.png")
    images = read_image_set(tmp_path, key="samples")
    assert images.labels_among(["0", "1", "2", "A", "a", "no\xa0break"]).tolist() == [4, 3, 5]
    assert images.labels_among(["0", "1", "2", "3"]) is None


def test_images_in_colour_that_are_grey_are_grey_and_grey_fits_colour(tmp_path: Path) -> None:
    levels = np.stack([np.stack([GREY] * 3, -1)] * 2)
    np.savez(tmp_path / "grey.npz", levels)
    save(levels[0], tmp_path / "a" / "1.png")
    grey, folder = (read_image_set(tmp_path / name, key="samples") for name in ("grey.npz", "a"))
    assert torch.equal(grey.levels[:1], folder.levels)
    assert torch.equal(grey.levels[1, 0], torch.from_numpy(GREY))
    assert torch.equal(grey.fitted((3, 3, 4), to="x").levels.permute(0, 2, 3, 1), torch.from_numpy(levels))
    levels[1, 2, 3, 1] += 1
    np.savez(tmp_path / "colour.npz", levels)
    colour = read_image_set(tmp_path / "colour.npz", key="samples")
    assert torch.equal(colour.fitted((3, 3, 4), to="x").levels, colour.levels)
    with pytest.raises(
        DataError, match=r"^samples must be images like x \(3x4, grey\), got 3x4, in colour in colour\.npz$"
    ):
        colour.fitted((1, 3, 4), to="x")
    with pytest.raises(DataError, match=r"like x \(4x4, in colour\), got 3x4, in colour"):
        colour.fitted((3, 4, 4), to="x")


@pytest.mark.parametrize(
    ("arrays", "message"),
    [
        ({"images": np.zeros((2, 3, 4, 3), np.uint8)}, "must hold the array arr_0 .*, got images in"),
        ({"arr_0": np.zeros((2, 3, 4, 8), np.uint8)}, "1 or 3 channels, got uint8, 2x3x4x8 in"),
        ({"arr_0": np.zeros((2, 3, 4, 3), np.float32)}, "as uint8, .*, got float32, 2x3x4x3 in"),
        ({"arr_0": np.zeros((2, 3, 4), np.uint8)}, "got uint8, 2x3x4 in"),
        ({"arr_0": np.zeros((2, 3, 4, 3), np.uint8), "arr_1": np.zeros(3, int)}, "each of 2 images, got int64, 3 in"),
        ({"arr_0": np.array([{}], dtype=object)}, "cannot be read from .*: Object arrays cannot be loaded"),
        ({}, "got no array in"),
        (None, "cannot be read from .*: it is not a complete .npz file"),
    ],
)
def test_an_npz_of_something_else_is_one_line(tmp_path: Path, arrays: dict[str, Any] | None, message: str) -> None:
    path = tmp_path / "a.npz"
    if arrays is None:
        path.write_bytes(b"PK\x03\x04 and so on")
    else:
        np.savez(path, **arrays)
    with pytest.raises(DataError, match=rf"^reference .*{message}") as refusal:
        read_image_set(path, key="reference")
    assert "\n" not in str(refusal.value)


@pytest.mark.parametrize(
    ("files", "message"),
    [
        ({"a.png": GREY, "b.png": GREY.T}, r"one size and colour, got 3x4, grey \(a.png\) and 4x3, grey \(b.png\)"),
        ({"a.png": GREY, "b.png": np.stack([GREY] * 3, -1)}, r"grey \(a.png\) and 3x4, in colour \(b.png\)"),
        ({"a.png": GREY, "b.png": b"", "c.png": b"x"}, "2 of 3 files in .*: b.png is empty; c.png is not a PNG"),
        ({"a.txt": b""}, r"samples must hold PNG, JPEG or WebP files, .* has none \(it holds 1 .txt\)"),
        ({"a.png": GREY, "sampling.json": b'{"is_finished": false}'}, "samples must be a finished sampling"),
        (None, "samples must be a folder of images or an .npz file, and .* does not exist"),
    ],
)
def test_a_folder_of_something_else_is_one_line(tmp_path: Path, files: dict[str, Any] | None, message: str) -> None:
    top = tmp_path / "a"
    for name, content in (files or {}).items():
        top.mkdir(exist_ok=True)
        save(content, top / name) if isinstance(content, np.ndarray) else (top / name).write_bytes(content)
    with pytest.raises(DataError, match=message) as refusal:
        read_image_set(top, key="samples")
    assert "\n" not in str(refusal.value)


@pytest.mark.parametrize(
    ("record", "message"), [([1], "cannot be read"), ({"a": 1}, "is not the record of a sampling")]
)
def test_a_damaged_record_is_refused(tmp_path: Path, record: Any, message: str) -> None:
    (tmp_path / "sampling.json").write_text(json.dumps(record))
    with pytest.raises(ConfigurationError, match=message):
        read_image_set(tmp_path, key="samples")
