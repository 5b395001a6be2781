"""The fixed binarisation of MNIST, for comparable likelihoods.

Salakhutdinov and Murray (2008) drew each pixel once; Larochelle published the draw as text (50,000 training, 10,000
validation and 10,000 test images). The test file is ordered in blocks: its first images are not a fair sample.
"""

from pathlib import Path

import numpy as np
import torch
from jaxtyping import UInt8
from torch import Tensor

from genlab.data.dataset import Dataset, Split
from genlab.data.download import DownloadError, exclusive_download, fetch, file_md5
from genlab.data.location import describe_root, existing_root
from genlab.data.store import Store
from genlab.errors import DataError
from genlab.types import UNLABELLED

URL = "http://www.cs.toronto.edu/~larocheh/public/datasets/binarized_mnist/"
FOLDER = "BinarizedMNIST"
SIDE = 28
FILES: dict[Split, tuple[str, str]] = {
    "train": ("binarized_mnist_train.amat", "db28b1a6ae0fe70cbd3da91acf46e477"),
    "validation": ("binarized_mnist_valid.amat", "bf37822a04e94123630de6a7dfd9c9ef"),
    "test": ("binarized_mnist_test.amat", "14e41ae11040adba6ab8cb291eda0dd8"),
}


def binarized_mnist(*, root: str | None, download: bool) -> Dataset:
    """Return the three published files as splits, each verified by its md5. They have no labels.

    Args:
        root: Folder that holds ``BinarizedMNIST/`` or the files themselves; see `existing_root`.
        download: Fetch a file that is missing or damaged.

    Raises:
        DataError: A file is missing or damaged and could not be fetched.
    """
    stores: dict[Split, Store] = {}
    for split, (filename, md5) in FILES.items():
        path = _verified_file(filename, md5, root=root, download=download)
        images = read_amat(path)
        stores[split] = Store(images, torch.full((len(images),), UNLABELLED))
    return Dataset(
        name="binarized_mnist",
        stores=stores,
        num_levels=2,
        class_names=(),
        binarization="fixed",
        threshold=None,
        source="fixed binarisation (Larochelle/Murray)",
    )


def read_amat(path: Path) -> UInt8[Tensor, "N 1 28 28"]:
    """Return the pixels of a verified file: characters 0 or 1, each followed by one separator."""
    text = np.fromfile(path, dtype=np.uint8)
    return torch.from_numpy(text[::2] - ord("0")).view(-1, 1, SIDE, SIDE)


def _verified_file(filename: str, md5: str, *, root: str | None, download: bool) -> Path:
    """Return the path of a file with the published md5, which is downloaded if necessary."""
    folder = existing_root(root)
    home = folder / FOLDER / filename
    problem = "is missing"
    for path in (home, folder / filename):
        if path.is_file():
            if file_md5(path) == md5:
                return path
            problem = "is damaged (its md5 is not the published one)"
    reason = "dataset.download is false"
    if download:
        try:
            with exclusive_download(folder, FOLDER):
                if not (home.is_file() and file_md5(home) == md5):  # another process may have fetched it meanwhile
                    fetch(URL + filename, home, digest=md5)
            return home
        except DownloadError as error:
            reason = f"{URL + filename}: {error}"
    raise DataError(
        f"{FOLDER}/{filename} {problem} in {describe_root(root)} and was not downloaded ({reason}): put the file there "
        f"by hand (from {URL}), or use dataset=digits, which needs no download"
    )
