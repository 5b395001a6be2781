"""Images of files, unscaled: the samples of any program, and real ones to compare them with.

Dimensions: N images, C channels, H height, W width.
"""

import hashlib
import os
import zipfile
import zlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path, PurePosixPath
from typing import Any

import numpy as np
import torch
from jaxtyping import Int, UInt8
from torch import Tensor
from tqdm import tqdm

from genlab.data.containers import RefusedImage
from genlab.data.decoding import decode_as_stored, decoded
from genlab.data.folder_layout import natural_order
from genlab.data.image_files import scan
from genlab.data.sample_record import IMAGES_KEY, LABELS_KEY, NPZ_NAME, read_record
from genlab.errors import DataError
from genlab.printing import one_line, printable

_CHUNK = 1024  # images at a time: bounds the memory of intermediate results
_MAX_LISTED = 3


@dataclass(frozen=True, kw_only=True)
class ImageSet:
    """Images of one size, with 256 levels.

    Attributes:
        key: The setting that named them, for the errors.
        name: Of the folder or the file.
        levels: Of the images, in one channel where all are grey; those of a folder in the natural order of the file
            names, in whatever folder they lie.
        class_names: The class of each image, by our record or else by its folder; None unless each lies in a folder.
        numbers: The label of each image, from an NPZ; None without labels.
        binarization: As of a dataset; the images have all their levels.
    """

    key: str
    name: str
    levels: UInt8[Tensor, "N C H W"]
    class_names: Sequence[str] | None = None
    numbers: Int[Tensor, " N"] | None = None
    binarization: str = "none"

    @cached_property
    def fingerprint(self) -> str:
        """The SHA-256 of the images, in hex."""
        digest = hashlib.sha256(str(tuple(self.levels.shape)).encode())
        for part in torch.split(self.levels, _CHUNK):
            digest.update(part.contiguous().numpy().data)
        return digest.hexdigest()

    @property
    def has_classes(self) -> bool:
        """True if each image has a label or is in a folder."""
        return self.numbers is not None or self.class_names is not None

    @property
    def form(self) -> str:
        """Description of the size and colour of the images."""
        return form_of(self.levels.shape[1:])

    def labels_among(self, names: Sequence[str]) -> Int[Tensor, " N"] | None:
        """Return the label of each image among the classes of a data set; None unless all are classes of it."""
        if self.class_names is None and self.numbers is not None and len(names) > 0:
            return self.numbers if bool(((self.numbers >= 0) & (self.numbers < len(names))).all()) else None
        labels = {printable(name): label for label, name in enumerate(names)}  # as records have them
        own = [printable(name) for name in self.class_names or ()]
        if self.class_names is None or not set(own) <= set(labels):
            return None
        return torch.tensor([labels[name] for name in own])

    def fitted(self, shape: Sequence[int], *, to: str) -> "ImageSet":
        """Return the images with the channels of others: grey is repeated over them.

        Args:
            shape: Channels, height and width.
            to: What has this shape, for the error.

        Raises:
            DataError: The images differ in their size or their colour.
        """
        channels, *sides = shape
        own_channels, *own_sides = self.levels.shape[1:]
        if own_sides != sides or own_channels not in (1, channels):
            raise DataError(f"{self.key} must be images like {to} ({form_of(shape)}), got {self.form} in {self.name}")
        return replace(self, levels=self.levels.expand(-1, channels, -1, -1))


def form_of(shape: Sequence[int]) -> str:
    """Return a description of channels, height and width."""
    channels, height, width = shape
    colour = {1: "grey", 3: "in colour"}.get(channels, f"with {channels} channels")
    return f"{height}x{width}, {colour}"


def read_image_set(path: Path, *, key: str) -> ImageSet:
    """Read all PNG, JPEG and WebP files below a folder, or the NPZ of an evaluator.

    Args:
        path: The folder, a folder of `genlab sample format=npz`, or the NPZ.
        key: The setting that named it, for the errors.

    Raises:
        DataError: There is no such file or folder, or it does not hold images of one size and number of channels.
    """
    if not path.exists():
        raise DataError(f"{key} must be a folder of images or an .npz file, and {printable(str(path))} does not exist")
    if path.is_file():
        if path.suffix.lower() != ".npz":
            raise DataError(f"{key} must be a folder of images or an .npz file, got {printable(str(path))}")
        return _read_npz(path, key)
    record = read_record(path)
    if record is not None and not record["is_finished"]:
        raise DataError(
            f"{key} must be a finished sampling, got {printable(str(path))}; the same command draws the rest"
        )
    if record is not None and (path / NPZ_NAME).is_file():
        return replace(_read_npz(path / NPZ_NAME, key), name=_name(path))
    return _read_folder(path, key, record or {})


def _read_folder(top: Path, key: str, record: Mapping[str, Any]) -> ImageSet:
    # By their own names first: samples that are numbered across the folders of their classes keep their order.
    names = sorted((file.name for file in scan(top, key=key)), key=lambda name: (natural_order(Path(name).name), name))
    levels = _without_needless_colour(torch.from_numpy(_decoded(top, names, key)))
    folders = [PurePosixPath(name).parent.name for name in names]
    names_of = dict(zip(_listed(record, "class_folders"), _listed(record, "class_names"), strict=False))
    class_names = [names_of.get(folder, folder) for folder in folders] if all(folders) else None
    return ImageSet(key=key, name=_name(top), levels=levels, class_names=class_names)


def _decoded(top: Path, names: Sequence[str], key: str) -> UInt8[np.ndarray, "N C H W"]:
    refused: list[str] = []
    forms: dict[tuple[int, ...], str] = {}  # the first file of each
    levels = np.empty(0, np.uint8)
    with tqdm(total=len(names), desc=f"reading {printable(top.name)}", unit="image", leave=False, disable=None) as bar:
        results = decoded(names, lambda name: decode_as_stored(top / name), num_workers=os.cpu_count() or 1, bar=bar)
        for index, (name, image) in enumerate(results):
            if isinstance(image, RefusedImage):
                refused.append(f"{printable(name)} {image}")
                continue
            forms.setdefault(image.shape, name)
            if not levels.size:
                levels = np.empty((len(names), *image.shape), np.uint8)
            if len(forms) == 1:
                levels[index] = image
    if refused:
        more = f"; and {len(refused) - _MAX_LISTED} more" if len(refused) > _MAX_LISTED else ""
        listed = "; ".join(refused[:_MAX_LISTED])
        raise DataError(
            f"{key}: {len(refused)} of {len(names)} files in {printable(str(top))} cannot be used: {listed}{more}"
        )
    if len(forms) > 1:
        listed = " and ".join(
            f"{form_of(shape)} ({printable(name)})" for shape, name in list(forms.items())[:_MAX_LISTED]
        )
        raise DataError(f"{key} must be images of one size and colour, got {listed} in {printable(str(top))}")
    return levels


def _read_npz(path: Path, key: str) -> ImageSet:
    shown = printable(str(path))
    try:
        if not zipfile.is_zipfile(path):
            raise ValueError("it is not a complete .npz file")
        with np.load(path) as arrays:
            if IMAGES_KEY not in arrays:
                raise DataError(
                    f"{key} must hold the array {IMAGES_KEY} (uint8, images x height x width x channels), got "
                    f"{', '.join(map(printable, arrays)) or 'no array'} in {shown}"
                )
            levels, numbers = arrays[IMAGES_KEY], arrays.get(LABELS_KEY)
    except DataError:
        raise
    except (OSError, ValueError, EOFError, KeyError, zipfile.BadZipFile, zlib.error) as error:
        raise DataError(f"{key} cannot be read from {shown}: {one_line(str(error))}") from error
    if levels.dtype != np.uint8 or levels.ndim != 4 or levels.shape[3] not in (1, 3):
        raise DataError(
            f"{key} must hold {IMAGES_KEY} as uint8, images x height x width x 1 or 3 channels, got {levels.dtype}, "
            f"{'x'.join(map(str, levels.shape))} in {shown}"
        )
    if numbers is not None and (numbers.shape != levels.shape[:1] or numbers.dtype.kind not in "iu"):
        raise DataError(
            f"{key} must hold {LABELS_KEY} as one whole number for each of {len(levels):,} images, got "
            f"{numbers.dtype}, {'x'.join(map(str, numbers.shape))} in {shown}"
        )
    return ImageSet(
        key=key,
        name=_name(path),
        levels=_without_needless_colour(torch.from_numpy(levels).permute(0, 3, 1, 2)).contiguous(),
        class_names=None if numbers is None else _named(path, numbers.tolist()),
        numbers=None if numbers is None else torch.from_numpy(numbers.astype(np.int64)),
    )


def _named(path: Path, numbers: Sequence[int]) -> list[str] | None:
    """Return the class of each image by the record beside an NPZ of ours: a run may know a part of the classes.

    None for an NPZ of others, and for classes without names, whose folders are called by their numbers.
    """
    record = (read_record(path.parent) if path.name == NPZ_NAME else None) or {}
    names = _listed(record, "class_names")
    folders = _listed(record, "class_folders")
    if not names and not all(name.isdecimal() and int(name) == number for number, name in enumerate(folders)):
        names = folders
    return [names[number] for number in numbers] if all(0 <= number < len(names) for number in numbers) else None


def _listed(record: Mapping[str, Any], key: str) -> list[str]:
    texts = record.get(key)
    return [str(text) for text in texts] if isinstance(texts, list) else []


def _without_needless_colour(levels: UInt8[Tensor, "N C H W"]) -> UInt8[Tensor, "N _ H W"]:
    """Return one channel of images whose channels are all equal, as evaluators store grey images."""
    is_grey = all(torch.equal(levels[:, 0], levels[:, other]) for other in range(1, levels.shape[1]))
    return levels[:, :1] if is_grey else levels


def _name(path: Path) -> str:
    return printable(path.absolute().name)
