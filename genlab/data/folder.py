"""A folder of images as a data set: decoded once, in parallel, into one memory-mapped file of bytes."""

import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Literal

import torch

from genlab.data.dataset import SPLITS, Split
from genlab.data.decoding import PILLOW_MAX_PIXELS, Crop, PictureRules, Size
from genlab.data.folder_cache import decoded_folder
from genlab.data.folder_layout import Labels, Splits, layout_of
from genlab.data.image_files import scan
from genlab.data.preparation import RawDataset, prepared
from genlab.data.randomness import permutation
from genlab.data.store import Store
from genlab.errors import ConfigurationError
from genlab.paths import expanded, user_cache
from genlab.printing import printable
from genlab.randomness import derive_seed
from genlab.types import UNLABELLED


@prepared
def folder(
    *,
    root: str | None,
    size: Size,
    crop: Crop,
    channels: Literal[1, 3],
    background: int,
    max_pixels: int,
    labels: Labels,
    splits: Splits,
    validation_fraction: float,
    test_fraction: float,
    split_seed: int,
    on_error: Literal["fail", "skip"],
    max_skipped: int,
    cache: str | None,
    num_workers: int,
) -> RawDataset:
    """Return all PNG, JPEG and WebP files below a folder, split by folders or by a seeded permutation.

    Args:
        root: The folder.
        size: See `PictureRules`.
        crop: See `PictureRules`.
        channels: See `PictureRules`.
        background: See `PictureRules`.
        max_pixels: See `PictureRules`.
        labels: ``folders``: the class of an image is the folder that it lies in, below `root` or the folder of its
            split; ``none``: no labels; ``auto``: the first where all images lie in folders, the second where none does.
        splits: ``auto``: folders of the root named train, validation and test, or usual spellings of them, are the
            splits; ``none``: they are like any other.
        validation_fraction: Share of the training images to validate on, rounded down, where no folder holds others.
        test_fraction: Share of the training images to test on, rounded down, where no folder holds others.
        split_seed: Seed of the permutation.
        on_error: Treatment of a file that cannot be used: ``fail``, or ``skip`` it with a warning.
        max_skipped: More than so many files are not skipped.
        cache: Folder of the decoded bytes; null is ``~/.cache/genlab/folders``.
        num_workers: Threads that decode; 0 is one per core.

    Raises:
        ConfigurationError: A setting is out of range.
        DataError: The folder does not exist, or holds no image, files that cannot be used, or folders that can be
            understood in more than one way.
    """
    rules = PictureRules(size=size, crop=crop, channels=channels, background=background, max_pixels=max_pixels)
    _check_settings(rules, validation_fraction, test_fraction, max_skipped, num_workers)
    if root is None:
        raise ConfigurationError("dataset.root must name the folder of images, got null")
    top = Path(expanded(root, "dataset.root")).absolute()
    files = scan(top, key="dataset.root")
    layout = layout_of([file.name for file in files], labels=labels, splits=splits, top=top)
    images, skipped = decoded_folder(
        top,
        files,
        place=Path(expanded(cache, "dataset.cache")).absolute() if cache else user_cache() / "folders",
        rules=rules,
        max_skipped=max_skipped if on_error == "skip" else 0,
        num_workers=num_workers or os.cpu_count() or 1,
    )
    if skipped:  # a folder may have no file left, which makes it neither a class nor a split
        kept = [file.name for file in files if file.name not in skipped]
        layout = layout_of(kept, labels=labels, splits=splits, top=top)
    numbers = {name: number for number, name in enumerate(layout.class_names)}
    targets = torch.tensor([numbers.get(name, UNLABELLED) for name in layout.classes])
    store = Store(images, targets)
    height, width = rules.sides
    of_folders = f", splits {' '.join(layout.split_folders.values())}" if layout.split_folders else ""
    left_out = f", {len(skipped)} files skipped" if skipped else ""
    fractions: dict[Split, float] = {"validation": validation_fraction, "test": test_fraction}
    for split in layout.split_folders:
        fractions.pop(split, None)
    return RawDataset(
        name="folder",
        stores=_split(store, layout.splits, fractions, split_seed),
        num_levels=256,
        class_names=layout.class_names,
        source=f"folder {printable(top.name)} {height}x{width}{of_folders}{left_out}",
        logs_classes=True,
    )


def _split(store: Store, split_of: Sequence[Split], fractions: Mapping[Split, float], seed: int) -> dict[Split, Store]:
    """Return the store of each split: its own images, or a fraction of the training images."""
    rows = {
        split: torch.tensor([row for row, own in enumerate(split_of) if own == split], dtype=torch.int64)
        for split in SPLITS
    }
    given = rows["train"]
    order = permutation(len(given), seed=derive_seed(seed, "folder"))
    start = 0
    for split, fraction in fractions.items():
        # A product of floats may fall short of a whole number: 0.7 of 90 is 62.99999999999999.
        end = start + int(len(given) * fraction + 1e-6)
        rows[split], start = given[order[start:end]], end
    rows["train"] = given[order[start:]]
    # Sorted, so that reading in index order moves forward through the file.
    return {split: store.select(chosen.sort().values) for split, chosen in rows.items()}


def _check_settings(
    rules: PictureRules, validation_fraction: float, test_fraction: float, max_skipped: int, num_workers: int
) -> None:
    if min(rules.sides) < 1:
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
