"""The meaning of folders of images: the splits at the top, if any, and the classes."""

import re
from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Literal

from genlab.data.dataset import SPLITS, Split
from genlab.errors import DataError
from genlab.printing import printable

Labels = Literal["auto", "folders", "none"]
Splits = Literal["auto", "none"]
# As Hugging Face's imagefolder has them; in any case.
_SPELLINGS: Mapping[str, Split] = {
    **dict.fromkeys(("train", "training"), "train"),
    **dict.fromkeys(("val", "valid", "validation", "dev"), "validation"),
    **dict.fromkeys(("test", "testing", "eval", "evaluation"), "test"),
}
_MAX_LISTED = 5
_IN_ROOT = ""


@dataclass(frozen=True, kw_only=True)
class Layout:
    """The class and the split of each file.

    Attributes:
        class_names: In natural order; empty where there are no labels.
        split_folders: The folder of each split that has one.
        classes: The class of each file, in the order of the files; "" where there are no labels.
        splits: The split whose folder each file lies in; all are of the training split where no split has one.
    """

    class_names: tuple[str, ...]
    split_folders: Mapping[Split, str]
    classes: Sequence[str]
    splits: Sequence[Split]


def layout_of(names: Sequence[str], *, labels: Labels, splits: Splits, top: Path) -> Layout:
    """Return the classes and splits of files, from their folders.

    Args:
        names: Of the files, relative, with forward slashes.
        labels: ``folders``: the class of an image is its folder; ``none``; ``auto``: the first where all images lie in
            folders, the second where none does.
        splits: ``auto``: folders on top that are named like splits are splits; ``none``: they are like any other.
        top: The folder of all files, for messages.

    Raises:
        DataError: There is more than one way to understand the folders, or the splits have different classes.
    """
    parts = [PurePosixPath(name).parts for name in names]
    split_folders = {} if splits == "none" else _split_folders([part[:-1] for part in parts], top)
    split_of = {folder: split for split, folder in split_folders.items()}
    depth = 1 if split_folders else 0
    classes = [part[depth] if len(part) > depth + 1 else _IN_ROOT for part in parts]
    if labels == "none":
        classes = [_IN_ROOT] * len(parts)
    elif labels == "folders" or any(classes):
        _require_folders(classes, labels, printable(str(top)) if not split_folders else "the folder of their split")
    split_of_files: list[Split] = [split_of.get(part[0], "train") for part in parts]
    _require_same_classes(classes, split_of_files, split_folders)
    return Layout(
        class_names=tuple(sorted({name for name in classes if name}, key=natural_order)),
        split_folders=split_folders,
        classes=classes,
        splits=split_of_files,
    )


def natural_order(name: str) -> tuple[list[tuple[int, int, str]], str]:
    """Return a sort key in which digits are numbers: 2 before 10."""
    parts = re.split(r"([0-9]+)", name)
    return [(0, int(part), "") if part.isdecimal() else (1, 0, part) for part in parts if part], name


def _split_folders(folders: Sequence[tuple[str, ...]], top: Path) -> dict[Split, str]:
    """Return the folder of each split, if top-level folders are named like splits."""
    on_top = Counter(folder[0] if folder else _IN_ROOT for folder in folders)
    found: dict[Split, list[str]] = defaultdict(list)
    for name in sorted(on_top):
        if (split := _SPELLINGS.get(name.lower())) is not None:
            found[split].append(name)
    if not found:
        _refuse_splits_inside(folders, top)
        return {}
    named = [name for names in found.values() for name in names]
    others = sorted(name for name in on_top if name not in named and name != _IN_ROOT)
    for split, names in found.items():
        if len(names) > 1:
            raise _ambiguous(f"{_listed(names)} for one split", top, f"if they are the split {split}, join them")
    listed = _listed(named)
    condition = f"if {listed} are splits"
    if others:
        raise _ambiguous(f"{listed} beside {_listed(others)}", top, f"{condition}, move {_listed(others)} into them")
    if on_top[_IN_ROOT]:
        raise _ambiguous(f"{listed} beside {on_top[_IN_ROOT]} images", top, f"{condition}, move the images into them")
    if "train" not in found:
        raise _ambiguous(f"{listed} without train/", top, f"{condition}, put the training images into train/")
    return {split: found[split][0] for split in SPLITS if split in found}


def _refuse_splits_inside(folders: Sequence[tuple[str, ...]], top: Path) -> None:
    """Refuse splits below the top level, which would be merged and divided anew."""
    inside: dict[tuple[str, ...], dict[Split, str]] = defaultdict(dict)
    for folder in folders:
        for depth in range(1, len(folder)):
            if (split := _SPELLINGS.get(folder[depth].lower())) is not None:
                inside[folder[:depth]][split] = folder[depth]
    for place, splits in sorted(inside.items()):
        if "train" in splits and len(splits) > 1:
            found = [splits[split] for split in SPLITS if split in splits]
            below = [str(PurePosixPath(*place, name)) for name in found]
            above = [str(PurePosixPath(name, *place)) for name in found]
            root = printable(str(top.joinpath(*place)))
            way = f"if they are splits, set dataset.root={root} or name them {_listed(above)}"
            raise _ambiguous(_listed(below), top, way)


def _ambiguous(found: str, top: Path, way: str) -> DataError:
    return DataError(
        f"dataset.root must hold either splits or classes, got {found} in {printable(str(top))}: {way}; "
        "if all are classes or plain folders, set dataset.splits=none"
    )


def _require_folders(classes: Sequence[str], labels: Labels, place: str) -> None:
    num_direct = sum(not name for name in classes)
    if num_direct:
        raise DataError(
            f"dataset.labels={labels} needs each image in a folder of its class, and {num_direct} of {len(classes)} "
            f"lie in {place} itself: move them, or set dataset.labels=none"
        )


def _require_same_classes(classes: Sequence[str], splits: Sequence[Split], split_folders: Mapping[Split, str]) -> None:
    of_split: dict[Split, set[str]] = {split: set() for split in SPLITS}
    for name, split in zip(classes, splits, strict=True):
        of_split[split].add(name)
    for split, folder in split_folders.items():
        for here, there, lacking in (
            (of_split["train"], of_split[split], folder),
            (of_split[split], of_split["train"], split_folders["train"]),
        ):
            if missing := sorted(here - there, key=natural_order):
                raise DataError(
                    f"all splits must have the same classes, got no {_listed(missing)} in {printable(lacking)}/: add "
                    "images of them, remove them from the other splits, or set dataset.labels=none"
                )


def _listed(names: Sequence[str]) -> str:
    more = [f"{len(names) - _MAX_LISTED} more"] if len(names) > _MAX_LISTED else []
    return ", ".join([*(f"{printable(name)}/" for name in names[:_MAX_LISTED]), *more])
