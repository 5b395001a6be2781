"""Files that a user names come back as the very images that a run's data would deliver."""

import dataclasses
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor

from genlab.data.dataset import Dataset
from genlab.data.digits import digits
from genlab.data.folder import folder
from genlab.data.given_images import GivenImages, read_images, reading_of
from genlab.errors import ConfigurationError, DataError
from genlab.types import ImageSpec
from tests.data.sources import CPU, SMALL_DIGITS

DIGITS = {**SMALL_DIGITS, "size": 28, "num_validation": 10, "num_test": 20}
FOLDER = {
    "size": 6,
    "crop": "center",
    "channels": 1,
    "background": 0,
    "max_pixels": 10_000,
    "labels": "none",
    "splits": "auto",
    "validation_fraction": 0.0,
    "test_fraction": 0.0,
    "split_seed": 0,
    "on_error": "fail",
    "max_skipped": 0,
    "num_workers": 1,
    "binarization": "none",
    "threshold": 0.5,
    "classes": None,
    "num_labels_per_class": None,
    "label_seed": 0,
}
BINARY = ImageSpec(channels=1, height=8, width=8, num_levels=2, num_classes=0)
COLOUR = ImageSpec(channels=3, height=8, width=8, num_levels=256, num_classes=0)
PHOTOGRAPHS = {"_target_": "genlab.data.photographs.cifar10", "binarization": "none", "threshold": 0.5}
FIXED = {"_target_": "genlab.data.binarized_mnist.binarized_mnist"}


def _images(dataset: Dataset, split: Any) -> Tensor:
    return torch.cat([batch.images for batch in dataset.batches(split, batch_size=7, seed=0, device=CPU)])


def _save(images: Tensor, top: Path) -> None:
    top.mkdir()
    for index, image in enumerate(images):
        levels = image.mul(255).round().byte().permute(1, 2, 0).squeeze(2).numpy()
        Image.fromarray(levels).save(top / f"{index:02}.png")


def _noise(*shape: int) -> Image.Image:
    return Image.fromarray(np.random.default_rng(0).integers(0, 256, shape, dtype=np.uint8))


def _read(path: Path, node: dict[str, Any], spec: ImageSpec) -> GivenImages:
    return read_images(path, reading_of(node, spec))


@pytest.mark.parametrize(
    ("changes", "account"),
    [
        ({"binarization": "none"}, "20 given images, 28x28, grey, 256 levels"),
        ({"binarization": "none", "size": 8}, "20 given images, 8x8, grey, 256 levels rounded to 17"),
        (
            {"threshold": 0.2},
            "20 given images, 28x28, grey, binarised at grey value 0.2 as the run's data are (binary already: 0)",
        ),
    ],
)
def test_files_of_a_data_set_are_its_images(tmp_path: Path, changes: dict[str, Any], account: str) -> None:
    settings = DIGITS | changes
    data = digits(**settings)
    _save(_images(digits(**settings | {"binarization": "none"}), "test"), tmp_path / "given")
    given = _read(tmp_path / "given", {"_target_": "genlab.data.digits.digits", **settings}, data.spec)
    assert torch.equal(_images(given.dataset, "train"), _images(data, "test"))
    assert given.names == [f"{index:02}.png" for index in range(20)]
    assert given.account == account
    assert given.dataset.spec == dataclasses.replace(data.spec, num_classes=0)


@pytest.mark.parametrize(
    ("node", "said"),
    [
        (FIXED, "0.5 where the run's data are binary in their files (binary already: 1)"),
        (
            # The threshold has no effect on such a run.
            {"_target_": "genlab.data.mnist.mnist", "binarization": "stochastic", "threshold": 0.9},
            "0.5 where the run's data are binarised stochastically (binary already: 1)",
        ),
    ],
)
def test_binary_runs_without_a_threshold_cut_in_the_middle(tmp_path: Path, node: dict[str, Any], said: str) -> None:
    shades = torch.tensor([[0, 255], [127, 128]]).repeat_interleave(32, 1).view(2, 1, 8, 8) / 255
    _save(shades, tmp_path / "given")
    given = _read(tmp_path / "given", node, BINARY)
    first, second = _images(given.dataset, "train")
    assert torch.equal(first, second)
    assert first.unique(return_counts=True)[1].tolist() == [32, 32]
    assert said in given.account


def test_a_single_file_and_grey_in_either_form(tmp_path: Path) -> None:
    grey = _noise(8, 8)
    grey.save(tmp_path / "grey.png")
    grey.convert("RGB").save(tmp_path / "colour.png")
    levels = torch.from_numpy(np.array(grey))
    grey_run = dataclasses.replace(COLOUR, channels=1)
    for name in ("grey.png", "colour.png"):
        given = _read(tmp_path / name, PHOTOGRAPHS, grey_run)
        assert given.names == [name]
        assert given.account.startswith("1 given image, 8x8, grey")
        assert torch.equal(_images(given.dataset, "train"), levels.view(1, 1, 8, 8) / 255)
        in_colour = _read(tmp_path / name, PHOTOGRAPHS, COLOUR)
        assert in_colour.account.startswith("1 given image, 8x8, in colour (1 from grey)")
        assert torch.equal(_images(in_colour.dataset, "train"), levels.expand(1, 3, 8, 8) / 255)


@pytest.mark.parametrize("size", [6, [4, 8]])
def test_a_run_of_pictures_reads_by_its_own_rules(tmp_path: Path, size: int | list[int]) -> None:
    for name in ("a", "b"):
        (tmp_path / name).mkdir()
    _noise(9, 14, 3).save(tmp_path / "a" / "wide.png")
    _noise(12, 10, 4).save(tmp_path / "b" / "transparent.webp", lossless=True)
    settings = FOLDER | {"size": size if isinstance(size, int) else tuple(size)}
    data = folder(root=str(tmp_path), cache=str(tmp_path / "cache"), **settings)
    node = {"_target_": "genlab.data.folder.folder", "root": "elsewhere", "cache": None, **FOLDER, "size": size}
    given = _read(tmp_path, node, data.spec)
    assert given.names == ["a/wide.png", "b/transparent.webp"]
    assert torch.equal(_images(given.dataset, "train"), _images(data, "train"))


def test_what_would_change_the_picture_is_refused_in_one_line(tmp_path: Path) -> None:
    _noise(8, 8, 3).save(tmp_path / "a_colour.png")
    _noise(8, 9).save(tmp_path / "b_wide.png")
    content = (tmp_path / "a_colour.png").read_bytes()
    (tmp_path / "c_cut.png").write_bytes(content[: len(content) // 2])
    Image.new("L", (8, 8)).save(tmp_path / "d_good.png")
    with pytest.raises(DataError) as caught:
        _read(tmp_path, FIXED, BINARY)
    message = str(caught.value)
    assert "\n" not in message
    assert message.startswith("3 of 4 files in ")
    for part in (
        "(8x8, grey): a_colour.png is in colour;",
        "b_wide.png has height 8 and width 9 instead of 8 and 8;",
        "c_cut.png is",
    ):
        assert part in message
    for index in range(4):
        (tmp_path / f"e{index}.jpg").write_bytes(b"")
    with pytest.raises(DataError, match=r"^7 of 8 files .*e0.jpg is empty \(and 3 more\)$"):
        _read(tmp_path, FIXED, BINARY)


def test_missing_and_empty_folders_are_refused(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"images must be a picture or a folder of pictures, and .* does not exist"):
        _read(tmp_path / "nowhere", FIXED, BINARY)
    (tmp_path / "notes.txt").write_text("none")
    with pytest.raises(DataError, match=r"^images must hold PNG, JPEG or WebP files, .* \(it holds 1 \.txt\)"):
        _read(tmp_path, FIXED, BINARY)
    with pytest.raises(DataError, match=r"notes\.txt is not a PNG, JPEG or WEBP image"):
        _read(tmp_path / "notes.txt", FIXED, BINARY)


def test_of_an_animation_the_first_frame_is_taken_and_said(tmp_path: Path) -> None:
    frames = [Image.new("L", (8, 8), shade) for shade in (255, 0)]
    frames[0].save(tmp_path / "film.png", save_all=True, append_images=frames[1:])
    given = _read(tmp_path, FIXED, BINARY)
    assert _images(given.dataset, "train").min() == 1
    assert given.account.endswith("; of 1 animated files the first frame")


def test_runs_of_other_forms_are_refused() -> None:
    with pytest.raises(ConfigurationError, match="its images are 8x8, of 2 channels"):
        reading_of(FIXED, dataclasses.replace(BINARY, channels=2))
