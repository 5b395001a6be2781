"""Samples as files that other programs read: one PNG each, or all of them in one NPZ.

Both are written batch by batch, and what exists says where an interrupted sampling is to be resumed.

Dimensions: N images, B batch, C channels, H height, W width.
"""

import io
import os
import shutil
from abc import ABC, abstractmethod
from collections.abc import Sequence
from pathlib import Path
from zipfile import ZIP_STORED, ZipFile, ZipInfo

import numpy as np
from jaxtyping import Int, UInt8
from PIL import Image
from torch import Tensor

from genlab.data.sample_record import IMAGES_KEY, LABELS_KEY, NPZ_NAME
from genlab.storage import remove_temporaries, replace_atomically, require_space

_LEAST_DIGITS = 6
_CHUNK_BYTES = 2**24


class SampleFiles(ABC):
    """The files of N samples.

    Args:
        folder: An existing folder.
        num_samples: N.
    """

    def __init__(self, folder: Path, num_samples: int) -> None:
        self.folder = folder
        self.num_samples = num_samples

    @abstractmethod
    def missing(self, batch_size: int) -> list[int]:
        """Return the indices of the first images of the batches that are not yet complete."""

    @abstractmethod
    def write(self, start: int, levels: UInt8[Tensor, "B C H W"]) -> None:
        """Write a batch whose first image has the index `start`, the missing batches in order.

        Raises:
            StorageError: The disk is full.
        """

    @abstractmethod
    def finish(self) -> Path:
        """Complete the files and return their path, after the last batch or again later.

        Raises:
            StorageError: The disk is full.
        """


class PNGFolder(SampleFiles):
    """One PNG for each sample, named by its index, in a folder of its class where there are classes.

    Args:
        folder: An existing folder.
        num_samples: N.
        class_folders: Folder of each image; None puts all images into `folder`.
    """

    def __init__(self, folder: Path, num_samples: int, *, class_folders: Sequence[str] | None) -> None:
        super().__init__(folder, num_samples)
        self._class_folders = class_folders
        self._num_digits = max(_LEAST_DIGITS, len(str(num_samples - 1)))

    def missing(self, batch_size: int) -> list[int]:
        return [
            start
            for start in range(0, self.num_samples, batch_size)
            if not all(map(self._is_written, range(start, min(start + batch_size, self.num_samples))))
        ]

    def write(self, start: int, levels: UInt8[Tensor, "B C H W"]) -> None:
        for index, image in enumerate(levels, start):
            path = self._path(index)
            path.parent.mkdir(exist_ok=True)
            pixels = image[0] if len(image) == 1 else image.permute(1, 2, 0)
            content = io.BytesIO()
            Image.fromarray(pixels.contiguous().numpy()).save(content, "PNG")
            replace_atomically(path, content.getvalue(), is_synchronised=False)

    def finish(self) -> Path:
        for place in {self.folder, *(self.folder / name for name in self._class_folders or ())}:
            remove_temporaries(place)
        return self.folder

    def _path(self, index: int) -> Path:
        place = self.folder if self._class_folders is None else self.folder / self._class_folders[index]
        return place / f"{index:0{self._num_digits}d}.png"

    def _is_written(self, index: int) -> bool:
        try:
            return self._path(index).stat().st_size > 0
        except FileNotFoundError:
            return False


class NPZFile(SampleFiles):
    """One NPZ with the images as ``arr_0``, uint8 in the order NHWC, and the labels as ``arr_1``, int64.

    Evaluators such as that of guided-diffusion take three channels only, so grey images are repeated over them. The
    levels are appended to a plain file and are copied into the NPZ at the end.

    Args:
        folder: An existing folder.
        num_samples: N.
        shape: Channels, height and width.
        labels: Classes of the images; None leaves ``arr_1`` out.
    """

    def __init__(
        self, folder: Path, num_samples: int, *, shape: tuple[int, int, int], labels: Int[Tensor, " N"] | None
    ) -> None:
        super().__init__(folder, num_samples)
        channels, height, width = shape
        self._shape = (num_samples, height, width, 3 if channels == 1 else channels)
        self._image_bytes = height * width * self._shape[3]
        self._labels = labels
        self.path = folder / NPZ_NAME
        self._levels = folder / f".{NPZ_NAME}.levels"

    def missing(self, batch_size: int) -> list[int]:
        if self.path.exists():
            return []
        num_bytes = self._levels.stat().st_size if self._levels.exists() else 0
        num_written = min(num_bytes // self._image_bytes, self.num_samples)
        first = self.num_samples if num_written == self.num_samples else num_written // batch_size * batch_size
        # The levels lie on the disk twice while they are copied.
        require_space(self.path, self._image_bytes * (2 * self.num_samples - first))
        return list(range(first, self.num_samples, batch_size))

    def write(self, start: int, levels: UInt8[Tensor, "B C H W"]) -> None:
        content = levels.permute(0, 2, 3, 1).expand(-1, -1, -1, self._shape[3]).contiguous().numpy().data
        self._levels.touch()
        try:
            with self._levels.open("r+b") as file:
                file.seek(start * self._image_bytes)
                file.write(content)
                file.flush()
                os.fsync(file.fileno())
        except BaseException:
            os.truncate(self._levels, start * self._image_bytes)  # its size says how many images are there
            raise

    def finish(self) -> Path:
        if not self.path.exists():
            self._pack()
        self._levels.unlink(missing_ok=True)
        remove_temporaries(self.folder)
        return self.path

    def _pack(self) -> None:
        packed = self.path.with_name(f".{NPZ_NAME}.tmp")
        header = {"descr": "|u1", "fortran_order": False, "shape": self._shape}
        try:
            with packed.open("wb") as file:
                with ZipFile(file, "w", ZIP_STORED) as archive:
                    with archive.open(ZipInfo(f"{IMAGES_KEY}.npy"), "w", force_zip64=True) as member:
                        np.lib.format.write_array_header_1_0(member, header)
                        with self._levels.open("rb") as levels:
                            shutil.copyfileobj(levels, member, _CHUNK_BYTES)
                    if self._labels is not None:
                        with archive.open(ZipInfo(f"{LABELS_KEY}.npy"), "w") as member:
                            np.lib.format.write_array(member, self._labels.numpy())
                file.flush()
                os.fsync(file.fileno())
            packed.replace(self.path)
        except BaseException:
            packed.unlink(missing_ok=True)
            raise
