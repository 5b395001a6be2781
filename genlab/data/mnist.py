"""MNIST and the data sets that copy its format: Fashion-MNIST, Kuzushiji-MNIST, EMNIST.

Files lie where torchvision keeps them (``<root>/MNIST/raw`` and so on) and are fetched by torchvision. It never looks
at an extracted file again, and takes random bytes for images; so every file is verified here each time it is read.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

import numpy as np
import torch
from jaxtyping import UInt8
from torch import Tensor

from genlab.data.download import DownloadError, exclusive_download, file_md5, torchvision_dataset
from genlab.data.location import describe_root, existing_root
from genlab.data.preparation import RawDataset, prepared, split_by_index
from genlab.data.store import Store
from genlab.errors import DataError

SIDE = 28
EmnistSplit = Literal["byclass", "bymerge", "balanced", "letters", "digits", "mnist"]


@dataclass(frozen=True, kw_only=True)
class IdxSource:
    """One data set of the family.

    Attributes:
        name: As in ``dataset=<name>``.
        title: As people write it.
        folder: torchvision's class, which is also the name of its folder.
        class_names: One per class.
        train: Name of the training files up to ``-images-idx3-ubyte``.
        test: The same of the test files.
        md5: Of the uncompressed files, where they were published; the others are verified by their structure alone.
        first_label: The label in the file that is class 0.
        transposed: True if the file holds each image transposed.
        options: Further arguments of torchvision's class.
    """

    name: str
    title: str
    folder: str
    class_names: tuple[str, ...]
    train: str = "train"
    test: str = "t10k"
    md5: Mapping[str, str] = field(default_factory=dict)
    first_label: int = 0
    transposed: bool = False
    options: Mapping[str, str] = field(default_factory=dict)


DIGIT_NAMES = tuple(str(digit) for digit in range(10))
MNIST = IdxSource(
    name="mnist",
    title="MNIST",
    folder="MNIST",
    class_names=DIGIT_NAMES,
    md5={
        "train-images-idx3-ubyte": "6bbc9ace898e44ae57da46a324031adb",
        "train-labels-idx1-ubyte": "a25bea736e30d166cdddb491f175f624",
        "t10k-images-idx3-ubyte": "2646ac647ad5339dbf082846283269ea",
        "t10k-labels-idx1-ubyte": "27ae3e4e09519cfbb04c329615203637",
    },
)
FASHION_MNIST = IdxSource(
    name="fashion_mnist",
    title="Fashion-MNIST",
    folder="FashionMNIST",
    class_names=(
        *("T-shirt", "trouser", "pullover", "dress", "coat"),
        *("sandal", "shirt", "sneaker", "bag", "ankle boot"),
    ),
)
KMNIST = IdxSource(
    name="kmnist",
    title="Kuzushiji-MNIST",
    folder="KMNIST",
    class_names=("o", "ki", "su", "tsu", "na", "ha", "ma", "ya", "re", "wo"),
)


@prepared
def mnist(*, root: str | None, download: bool, num_validation: int) -> RawDataset:
    """Return MNIST (LeCun, Cortes, Burges): 60,000 + 10,000 digits, 28x28, 256 levels.

    Args:
        root: Folder that holds ``MNIST/raw``; see `existing_root`.
        download: Fetch what is missing or damaged.
        num_validation: The last so many images of the training file (customarily 10,000) are the validation split.

    Raises:
        DataError: A file is missing or damaged and could not be fetched.
    """
    return _split(MNIST, root=root, download=download, num_validation=num_validation)


@prepared
def fashion_mnist(*, root: str | None, download: bool, num_validation: int) -> RawDataset:
    """Return Fashion-MNIST (Xiao et al. 2017, 1708.07747): 60,000 + 10,000 pictures of clothes, 28x28, 256 levels.

    Arguments and errors are those of `mnist`; the folder is ``FashionMNIST/raw``.
    """
    return _split(FASHION_MNIST, root=root, download=download, num_validation=num_validation)


@prepared
def kmnist(*, root: str | None, download: bool, num_validation: int) -> RawDataset:
    """Return Kuzushiji-MNIST (Clanuwat et al. 2018, 1812.01718): 60,000 + 10,000 cursive characters, 28x28.

    Arguments and errors are those of `mnist`; the folder is ``KMNIST/raw``.
    """
    return _split(KMNIST, root=root, download=download, num_validation=num_validation)


@prepared
def emnist(*, variant: EmnistSplit, root: str | None, download: bool, num_validation: int) -> RawDataset:
    """Return EMNIST (Cohen et al. 2017, 1702.05373): handwritten letters and digits, 28x28, upright.

    The other arguments and the errors are those of `mnist`; the folder is ``EMNIST/raw``.

    Args:
        variant: One of the six published selections; ``balanced`` has 47 classes of equal size.
        root: See `mnist`.
        download: See `mnist`.
        num_validation: See `mnist`.
    """
    return _split(emnist_source(variant), root=root, download=download, num_validation=num_validation)


def emnist_source(variant: EmnistSplit) -> IdxSource:
    """Return the files and classes of a variant; two of them merge the 15 letters whose cases look alike."""
    letters = "ABCDEFGHIJKLMNOPQRSTUVWXYZ"
    names = {
        "byclass": (*DIGIT_NAMES, *letters, *letters.lower()),
        "bymerge": (*DIGIT_NAMES, *letters, *"abdefghnqrt"),
        "balanced": (*DIGIT_NAMES, *letters, *"abdefghnqrt"),
        "letters": tuple(letters.lower()),
        "digits": DIGIT_NAMES,
        "mnist": DIGIT_NAMES,
    }
    return IdxSource(
        name="emnist",
        title=f"EMNIST {variant}",
        folder="EMNIST",
        class_names=names[variant],
        train=f"emnist-{variant}-train",
        test=f"emnist-{variant}-test",
        first_label=1 if variant == "letters" else 0,
        transposed=True,
        options={"split": variant},
    )


def read_source(source: IdxSource, *, root: str | None, download: bool) -> tuple[Store, Store]:
    """Return the training and the test file, verified, and repaired if allowed.

    Raises:
        DataError: A file is missing or damaged and could not be fetched.
    """
    folder = existing_root(root)
    raw = folder / source.folder / "raw"
    problems = find_problems(source, raw)
    if problems:
        reason = _repair(source, folder, problems) if download else "dataset.download is false"
        problems = find_problems(source, raw)
    if problems:
        listed = ", ".join(f"{source.folder}/raw/{filename} {problem}" for filename, problem in problems.items())
        if [*problems.values()] == ["is missing"] * 4:
            names = f"{{{source.train},{source.test}}}-{{images-idx3,labels-idx1}}-ubyte"
            listed = f"{source.folder}/raw/{names} are missing"
        raise DataError(
            f"{source.title}: {listed} in {describe_root(root)} and not downloaded ({reason}): put all of them there "
            "by hand, uncompressed, as torchvision keeps them, or use dataset=digits, which needs no download"
        )
    return _read_split(source, raw, source.train), _read_split(source, raw, source.test)


def find_problems(source: IdxSource, raw: Path) -> dict[str, str]:
    """Return the problem of each file that is missing or damaged."""
    problems = {}
    for prefix in (source.train, source.test):
        for filename, num_dimensions in ((f"{prefix}-images-idx3-ubyte", 3), (f"{prefix}-labels-idx1-ubyte", 1)):
            problem = _find_problem(raw / filename, num_dimensions, source.md5.get(filename))
            if problem:
                problems[filename] = problem
    return problems


def _find_problem(path: Path, num_dimensions: int, md5: str | None) -> str | None:
    if not path.is_file():
        return "is missing"
    if md5 is not None:
        return None if file_md5(path) == md5 else "is damaged (its md5 is not the published one)"
    try:
        shape = read_idx(path, num_dimensions=num_dimensions).shape
    except ValueError as error:
        return f"is damaged ({error})"
    if num_dimensions == 3 and shape[1:] != (SIDE, SIDE):
        return f"is damaged (its images have {shape[1]}x{shape[2]} pixels instead of {SIDE}x{SIDE})"
    return None


def _repair(source: IdxSource, root: Path, problems: Mapping[str, str]) -> str:
    """Fetch the damaged and missing files; return the reason of a failure, if any.

    torchvision fetches only what does not exist, so damaged files step aside; nothing of the user's is deleted, and
    they come back when the download fails.
    """
    raw = root / source.folder / "raw"
    try:
        with exclusive_download(root, source.folder):
            for filename in find_problems(source, raw):
                if (raw / filename).exists():
                    (raw / filename).replace(raw / f"{filename}.damaged")
            for train in (True, False):
                torchvision_dataset(source.folder, root, train=train, download=True, **source.options)
    except DownloadError as error:
        for filename in problems:
            aside = raw / f"{filename}.damaged"
            if aside.exists() and not (raw / filename).exists():
                aside.replace(raw / filename)
        return str(error)
    return "the downloaded file is not the published one"


def read_idx(path: Path, *, num_dimensions: int) -> UInt8[Tensor, "..."]:
    """Read a file of unsigned bytes in IDX, the format of the MNIST family (Y. LeCun, the MNIST page).

    Two zero bytes, the type (8 is unsigned byte), the number of dimensions, each dimension as a big-endian 32-bit
    integer, then the values, the last dimension fastest.

    Args:
        path: An uncompressed file.
        num_dimensions: 3 for images, 1 for labels.

    Raises:
        ValueError: The header or the length is not that of such a file; the message is the reason alone.
    """
    content = np.fromfile(path, dtype=np.uint8)
    header_size = 4 + 4 * num_dimensions
    if len(content) < header_size:
        raise ValueError(f"{len(content)} bytes are less than a header")
    if tuple(content[:4]) != (0, 0, 8, num_dimensions):
        raise ValueError(f"it starts with {content[:4].tobytes().hex()} instead of 000008{num_dimensions:02x}")
    shape = [int(size) for size in content[4:header_size].view(">u4")]
    expected = header_size + math.prod(shape)
    if len(content) != expected:
        raise ValueError(f"it has {len(content)} bytes where its header announces {expected}")
    return torch.from_numpy(content[header_size:]).view(shape)


def _read_split(source: IdxSource, raw: Path, prefix: str) -> Store:
    images = read_idx(raw / f"{prefix}-images-idx3-ubyte", num_dimensions=3)
    labels = read_idx(raw / f"{prefix}-labels-idx1-ubyte", num_dimensions=1).long() - source.first_label
    if len(images) != len(labels):
        raise DataError(f"{source.title}: {prefix} has {len(images)} images and {len(labels)} labels in {raw}")
    if len(labels) and not (int(labels.min()) >= 0 and int(labels.max()) < len(source.class_names)):
        raise DataError(f"{source.title}: {prefix} has a label that is none of its {len(source.class_names)} classes")
    if source.transposed:
        images = images.transpose(1, 2).contiguous()
    return Store(images[:, None], labels)


def _split(source: IdxSource, *, root: str | None, download: bool, num_validation: int) -> RawDataset:
    whole, test = read_source(source, root=root, download=download)
    return RawDataset(
        name=source.name,
        stores=split_by_index(whole, test, num_validation=num_validation),
        num_levels=256,
        class_names=source.class_names,
        source=source.title,
    )
