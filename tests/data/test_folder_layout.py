"""The meaning of folders: hidden and system folders mean nothing, links count, names of splits are splits."""

import logging
import os
from pathlib import Path

import pytest

from genlab.data.folder_layout import layout_of, natural_order
from genlab.data.image_files import scan
from genlab.errors import DataError

TOP = Path("/pictures")
SYSTEM = (
    *(".ipynb_checkpoints", "@eaDir", "__MACOSX", ".Trash-1000", "lost+found", "$RECYCLE.BIN", "#recycle"),
    *("System Volume Information", ".git", ".cache", ".thumbnails", "__pycache__", "LOST+FOUND", "@Recycle"),
)


def _touch(*paths: Path) -> None:
    for path in paths:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(b"1")


def _layout(*names, labels="auto", splits="auto"):
    return layout_of(names, labels=labels, splits=splits, top=TOP)


@pytest.mark.parametrize("name", SYSTEM)
def test_hidden_and_system_folders_are_passed_over_at_any_depth(tmp_path, name, caplog):
    _touch(tmp_path / "cats" / "a.png", tmp_path / name / "b.png", tmp_path / "cats" / name / "deep" / "c.png")
    with caplog.at_level(logging.WARNING):
        assert [file.name for file in scan(tmp_path, key="dataset.root")] == ["cats/a.png"]
    assert f"ignored: 2 {'hidden' if name.startswith('.') else 'system'} folders" in caplog.text


def test_files_of_systems_are_passed_over(tmp_path, caplog):
    _touch(*(tmp_path / name for name in ("a.png", ".DS_Store", "Thumbs.db", "desktop.ini", "._a.png", "b.gif")))
    os.mkfifo(tmp_path / "pipe.png")
    with caplog.at_level(logging.WARNING):
        assert [file.name for file in scan(tmp_path, key="dataset.root")] == ["a.png"]
    assert "ignored: 1 .gif, 2 hidden files, 1 pipes and devices, 2 system files" in caplog.text


def test_a_suffix_may_be_in_capitals(tmp_path):
    _touch(tmp_path / "a.PNG", tmp_path / "b.JPG")
    assert [file.name for file in scan(tmp_path, key="dataset.root")] == ["a.PNG", "b.JPG"]


def test_linked_folders_are_read_and_circles_end(tmp_path, caplog):
    top, elsewhere = tmp_path / "top", tmp_path / "elsewhere"
    _touch(top / "dogs" / "a.png", elsewhere / "b.png", tmp_path / "c.png")
    (top / "cats").symlink_to(elsewhere)  # a class elsewhere
    (elsewhere / "dogs_again").symlink_to(top / "dogs")  # read under its own name
    (top / "dogs" / "around").symlink_to(top)
    (top / "dogs" / "above").symlink_to(tmp_path)
    (top / "itself").symlink_to("itself")
    (top / "z.png").symlink_to(tmp_path / "c.png")
    (top / "nowhere").symlink_to("missing")
    with caplog.at_level(logging.WARNING):
        names = [file.name for file in scan(top, key="dataset.root")]
    assert names == ["cats/b.png", "dogs/a.png", "z.png"]
    found = "ignored: 2 dangling links, 1 links to folders around them, 2 links to folders read already"
    assert found in caplog.text
    (tmp_path / "link").symlink_to(top)  # the root itself may be one
    assert [file.name for file in scan(tmp_path / "link", key="dataset.root")] == names


def test_a_real_folder_is_read_by_its_own_name_whatever_links_to_it(tmp_path):
    _touch(tmp_path / "a" / "1.png", tmp_path / "z" / "deep" / "2.png")
    (tmp_path / "a" / "link").symlink_to(tmp_path / "z" / "deep")
    assert [file.name for file in scan(tmp_path, key="dataset.root")] == ["a/1.png", "z/deep/2.png"]


def test_a_file_is_one_image_whatever_links_to_it(tmp_path, caplog):
    """Else it would be in two splits. Copies and hard links are files of their own."""
    top = tmp_path / "top"
    _touch(top / "z" / "own.png", tmp_path / "pool" / "1.png", tmp_path / "pool" / "blob")
    (tmp_path / "linked").symlink_to(top)
    for name, target in (
        ("a/again.png", top / "z" / "own.png"),  # before the file itself
        ("a/roundabout.png", tmp_path / "linked" / "z" / "own.png"),
        ("a/1.png", tmp_path / "pool" / "1.png"),
        ("b/1.png", tmp_path / "pool" / "1.png"),
        ("b/2.png", top / "a" / "1.png"),  # a link to a link
        ("b/blob.png", tmp_path / "pool" / "blob"),
    ):
        (top / name).parent.mkdir(exist_ok=True)
        (top / name).symlink_to(target)
    for root in (top, tmp_path / "linked"):
        with caplog.at_level(logging.WARNING):
            names = [file.name for file in scan(root, key="dataset.root")]
        assert names == ["a/1.png", "b/blob.png", "z/own.png"]
        assert "ignored: 4 links to files read already" in caplog.text
        caplog.clear()


def test_classes_are_in_natural_order():
    names = [f"{number}/x.png" for number in range(12)]
    layout = _layout(*sorted(names))
    assert layout.class_names == tuple(map(str, range(12)))
    assert layout.classes[2] == "10"  # of the file 10/x.png, which is the third as text
    assert sorted(["b10", "b9", "a", "b01", "b1", "10", "9", "B2"], key=natural_order) == [
        *("9", "10", "B2", "a", "b01", "b1", "b9", "b10")
    ]


@pytest.mark.parametrize(
    ("train", "validation", "test"),
    [
        ("train", "val", "test"),
        ("Training", "VALID", "Testing"),
        ("TRAIN", "validation", "eval"),
        ("train", "dev", None),
    ],
)
@pytest.mark.parametrize("has_classes", [False, True])
def test_folders_named_like_splits_are_splits(train, validation, test, has_classes):
    folders = {"train": train, "validation": validation} | ({"test": test} if test else {})
    names = [
        f"{folder}/{kind}{number}.png"
        for folder in folders.values()
        for kind in (("cats/", "dogs/deep/") if has_classes else ("",))
        for number in range(2)
    ]
    layout = _layout(*names)
    assert dict(layout.split_folders) == folders
    of_names = {folder: split for split, folder in folders.items()}
    assert list(layout.splits) == [of_names[name.split("/")[0]] for name in names]
    assert layout.class_names == (("cats", "dogs") if has_classes else ())
    plain = _layout(*names, splits="none")
    assert plain.class_names == tuple(sorted(folders.values()))
    assert set(plain.splits) == {"train"}


def test_training_images_alone_are_enough():
    layout = _layout("train/a/1.png", "train/b/1.png")
    assert (dict(layout.split_folders), layout.class_names) == ({"train": "train"}, ("a", "b"))


@pytest.mark.parametrize(
    ("names", "found", "way"),
    [
        (["train/a.png", "cats/b.png"], "train/ beside cats/", "move cats/ into"),
        (["train/cats/a.png", "test/cats/a.png", "b.png"], "test/, train/ beside 1 images", "move the images into"),
        (["train/a.png", "Training/b.png"], "Training/, train/ for one split", "join them"),
        (["train/a.png", "val/b.png", "dev/b.png"], "dev/, val/ for one split", "join them"),
        (["test/a.png", "val/b.png"], "test/, val/ without train/", "put the training images into train/"),
        (["cats/train/a.png", "cats/test/b.png"], "cats/train/, cats/test/", "set dataset.root=/pictures/cats or"),
        (["a/b/train/a.png", "a/b/test/b.png"], "a/b/train/, a/b/test/", "set dataset.root=/pictures/a/b or"),
        (["a/train/x/a.png", "a/val/x/b.png", "b/c.png"], "a/train/, a/val/", "name them train/a/, val/a/"),
    ],
)
def test_what_is_ambiguous_names_both_readings(names, found, way):
    with pytest.raises(DataError) as caught:
        _layout(*sorted(names), labels="none")
    message = str(caught.value)
    assert f"got {found}" in message
    assert way in message
    assert message.endswith("set dataset.splits=none")
    assert "\n" not in message
    _layout(*sorted(names), labels="none", splits="none")


def test_classes_named_like_one_split_are_classes_where_they_lie_below():
    assert _layout("a/train/1.png", "a/wagon/1.png", "b/2.png").class_names == ("a", "b")


def test_splits_must_have_the_same_classes():
    with pytest.raises(DataError, match="same classes, got no dogs/ in val/"):
        _layout("train/cats/a.png", "train/dogs/a.png", "val/cats/a.png")
    with pytest.raises(DataError, match="same classes, got no birds/ in train/"):
        _layout("train/cats/a.png", "test/birds/a.png", "test/cats/a.png")
    with pytest.raises(DataError, match="1 of 2 lie in the folder of their split itself"):
        _layout("train/cats/a.png", "test/a.png")
    with pytest.raises(DataError, match="2 of 2 lie in the folder of their split itself"):
        _layout("train/a.png", "test/a.png", labels="folders")
    assert _layout("train/cats/a.png", "test/a.png", labels="none").class_names == ()
