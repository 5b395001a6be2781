"""A folder of images as a data set: decoded once, in parallel, into one memory-mapped file of bytes."""

import os
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from logging import getLogger
from pathlib import Path
from typing import Literal

import torch
from torch import Tensor

from genlab.data.assembly import assemble
from genlab.data.dataset import Dataset, Split
from genlab.data.decoding import PILLOW_MAX_PIXELS, Crop, PictureRules
from genlab.data.folder_cache import FolderCache
from genlab.data.location import require_folder
from genlab.data.randomness import permutation
from genlab.data.store import Store
from genlab.errors import ConfigurationError, DataError
from genlab.paths import expanded, user_cache
from genlab.printing import printable
from genlab.randomness import derive_seed
from genlab.types import UNLABELLED

SUFFIXES = frozenset({".png", ".jpg", ".jpeg", ".jpe", ".jfif", ".mpo", ".webp"})
_log = getLogger(__name__)


@dataclass(frozen=True, kw_only=True)
class ImageFile:
    """One file, by what tells that it changed.

    Attributes:
        name: Relative to the folder, with forward slashes.
        num_bytes: Its size.
        modified_ns: Its time of modification, nanoseconds.
    """

    name: str
    num_bytes: int
    modified_ns: int


def folder(
    *,
    root: str | None,
    size: int,
    crop: Crop,
    channels: Literal[1, 3],
    background: int,
    max_pixels: int,
    labels: Literal["auto", "folders", "none"],
    validation_fraction: float,
    test_fraction: float,
    split_seed: int,
    on_error: Literal["fail", "skip"],
    max_skipped: int,
    cache: str | None,
    num_workers: int,
    binarization: Literal["none", "threshold", "stochastic"],
    threshold: float,
    classes: Sequence[int] | None,
    num_labels_per_class: int | None,
    label_seed: int,
) -> Dataset:
    """All PNG, JPEG and WebP files below a folder, split by a seeded permutation.

    Args:
        root: The folder.
        size: See `PictureRules`.
        crop: See `PictureRules`.
        channels: See `PictureRules`.
        background: See `PictureRules`.
        max_pixels: See `PictureRules`.
        labels: ``folders``: the class of an image is the folder below `root` that it lies in; ``none``: no labels;
            ``auto``: the first where all images lie in folders, the second where none does.
        validation_fraction: Share of the images to validate on, rounded down.
        test_fraction: Share of the images to test on, rounded down.
        split_seed: Seed of the permutation.
        on_error: What happens when a file cannot be used: ``fail`` or ``skip`` it and say so.
        max_skipped: More than so many files are not skipped.
        cache: Folder of the decoded bytes; null is ``~/.cache/genlab/folders``.
        num_workers: Threads that decode; 0 is one per core.
        binarization: See `Dataset`.
        threshold: See `Dataset`.
        classes: See `assemble`.
        num_labels_per_class: See `assemble`.
        label_seed: See `assemble`.

    Raises:
        ConfigurationError: A setting is out of range.
        DataError: The folder does not exist, holds no image, or files that cannot be used.
    """
    rules = PictureRules(size=size, crop=crop, channels=channels, background=background, max_pixels=max_pixels)
    _check_settings(rules, validation_fraction, test_fraction, max_skipped, num_workers)
    if root is None:
        raise ConfigurationError("dataset.root must name the folder of images, got null")
    top = Path(expanded(root, "dataset.root")).absolute()
    files = scan(top, key="dataset.root")
    class_names = _class_names(files, labels, top)
    decoded = FolderCache(
        Path(expanded(cache, "dataset.cache")).absolute() if cache else user_cache() / "folders",
        rules=rules,
        max_skipped=max_skipped if on_error == "skip" else 0,
        num_workers=num_workers or os.cpu_count() or 1,
    ).read(top, [(file.name, file.num_bytes, file.modified_ns) for file in files])
    kept = [file for file in files if file.name not in decoded.skipped]
    numbers = {name: index for index, name in enumerate(class_names)}
    targets = torch.tensor([numbers[_top_folder(file.name)] if class_names else UNLABELLED for file in kept])
    store = Store(decoded.images, targets)
    skipped = f", {len(decoded.skipped)} files skipped" if decoded.skipped else ""
    return assemble(
        name="folder",
        stores=_split(store, validation_fraction, test_fraction, split_seed),
        num_levels=256,
        class_names=class_names,
        binarization=binarization,
        threshold=threshold,
        classes=classes,
        num_labels_per_class=num_labels_per_class,
        label_seed=label_seed,
        source=f"folder {printable(top.name)} {size}x{size}{skipped}",
    )


def scan(top: Path, *, key: str) -> list[ImageFile]:
    """The image files below a folder, sorted by name; what is passed over is logged.

    Args:
        top: The folder.
        key: The setting that named it, for the errors.

    Raises:
        DataError: The folder does not exist, cannot be listed or holds no image.
    """
    require_folder(top, key=key)
    files, ignored = [], Counter[str]()
    for folder_path, folder_names, file_names in os.walk(top, onerror=_refuse_folder):
        ignored["linked folders"] += sum(Path(folder_path, name).is_symlink() for name in folder_names)
        for file_name in file_names:
            path = Path(folder_path, file_name)
            suffix = path.suffix.lower()
            if file_name.startswith(".") or suffix not in SUFFIXES:
                ignored["hidden files" if file_name.startswith(".") else suffix or "files without suffix"] += 1
                continue
            try:
                status = path.stat()
            except OSError:
                status = path.lstat()  # a dangling link, which is refused when it is read
            name = path.relative_to(top).as_posix()
            files.append(ImageFile(name=name, num_bytes=status.st_size, modified_ns=status.st_mtime_ns))
    passed_over = ", ".join(f"{count} {printable(kind)}" for kind, count in sorted(ignored.items()) if count)
    if not files:
        found = f" (it holds {passed_over})" if passed_over else ""
        raise DataError(f"{key} must hold PNG, JPEG or WebP files, {printable(str(top))} has none{found}")
    if passed_over:
        _log.warning("%s: passed over, being no PNG, JPEG or WebP: %s", top, passed_over)
    return sorted(files, key=lambda file: file.name)


def _refuse_folder(error: OSError) -> None:
    raise DataError(f"the folder {printable(str(error.filename))} cannot be listed ({error.strerror})") from error


def _top_folder(name: str) -> str:
    """The folder directly below the root, or nothing for a file that lies in the root itself."""
    return name.split("/", 1)[0] if "/" in name else ""


def _class_names(files: Sequence[ImageFile], labels: Literal["auto", "folders", "none"], top: Path) -> tuple[str, ...]:
    if labels == "none":
        return ()
    names = sorted({_top_folder(file.name) for file in files})
    if names == [""] and labels == "auto":
        return ()
    if "" in names:
        num_direct = sum(not _top_folder(file.name) for file in files)
        raise DataError(
            f"dataset.labels={labels} needs each image in a folder of its class, and {num_direct} of {len(files)} lie "
            f"in {printable(str(top))} itself: move them, or set dataset.labels=none"
        )
    return tuple(names)


def _split(store: Store, validation_fraction: float, test_fraction: float, seed: int) -> dict[Split, Store]:
    order = permutation(len(store), seed=derive_seed(seed, "folder"))
    num_validation = int(len(store) * validation_fraction)
    num_test = int(len(store) * test_fraction)
    boundary = num_validation + num_test
    rows: dict[Split, Tensor] = {
        "train": order[boundary:],
        "validation": order[:num_validation],
        "test": order[num_validation:boundary],
    }
    # Sorted, so that reading in index order moves forward through the file.
    return {split: store.select(chosen.sort().values) for split, chosen in rows.items()}


def _check_settings(
    rules: PictureRules, validation_fraction: float, test_fraction: float, max_skipped: int, num_workers: int
) -> None:
    if rules.size < 1:
        raise ConfigurationError(f"dataset.size must be at least 1 (pixels), got {rules.size}")
    if not 0 <= rules.background <= 255:
        raise ConfigurationError(f"dataset.background must be between 0 and 255 (a grey level), got {rules.background}")
    if not 1 <= rules.max_pixels <= PILLOW_MAX_PIXELS:
        raise ConfigurationError(
            f"dataset.max_pixels must be between 1 and {PILLOW_MAX_PIXELS}, got {rules.max_pixels}"
        )
    if not (validation_fraction >= 0 and test_fraction >= 0 and validation_fraction + test_fraction < 1):
        raise ConfigurationError(
            "dataset.validation_fraction and dataset.test_fraction must be at least 0 and sum to less than 1, got "
            f"{validation_fraction} and {test_fraction}"
        )
    if max_skipped < 0 or num_workers < 0:
        raise ConfigurationError(
            f"dataset.max_skipped and dataset.num_workers must be at least 0, got {max_skipped} and {num_workers}"
        )
