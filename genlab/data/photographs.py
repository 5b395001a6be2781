"""Small colour photographs: CIFAR-10 and SVHN, through torchvision, which verifies their md5 at each read."""

from pathlib import Path
from typing import Any

import torch

from genlab.data.download import DownloadError, exclusive_download, file_md5, torchvision_dataset
from genlab.data.location import describe_root, existing_root
from genlab.data.mnist import DIGIT_NAMES
from genlab.data.preparation import RawDataset, prepared, split_by_index
from genlab.data.store import Store
from genlab.errors import DataError

CIFAR10_CLASSES = ("airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck")


@prepared
def cifar10(*, root: str | None, download: bool, num_validation: int) -> RawDataset:
    """Return CIFAR-10 (Krizhevsky 2009): 50,000 + 10,000 photographs, 32x32 in colour, 256 levels.

    Args:
        root: Folder that holds ``cifar-10-batches-py``; see `existing_root`.
        download: Fetch what is missing or damaged.
        num_validation: The last so many images of the training files are the validation split.

    Raises:
        DataError: A file is missing or damaged and could not be fetched.
    """
    kept = "the unpacked folder cifar-10-batches-py"
    files = [_read("CIFAR10", "CIFAR-10", kept, root, download, train=train) for train in (True, False)]
    whole, test = (
        Store(torch.from_numpy(file.data).permute(0, 3, 1, 2).contiguous(), torch.tensor(file.targets))
        for file in files
    )
    return RawDataset(
        name="cifar10",
        stores=split_by_index(whole, test, num_validation=num_validation),
        num_levels=256,
        class_names=CIFAR10_CLASSES,
        source="CIFAR-10",
    )


@prepared
def svhn(*, root: str | None, download: bool, num_validation: int) -> RawDataset:
    """Return SVHN (Netzer et al. 2011): 73,257 + 26,032 cropped digits, 32x32 in colour, 256 levels.

    Arguments and errors are those of `cifar10`; the files are ``train_32x32.mat`` and ``test_32x32.mat``.
    """
    kept = "train_32x32.mat and test_32x32.mat"
    files = [_read("SVHN", "SVHN", kept, root, download, split=split) for split in ("train", "test")]
    whole, test = (Store(torch.from_numpy(file.data), torch.from_numpy(file.labels).long()) for file in files)
    return RawDataset(
        name="svhn",
        stores=split_by_index(whole, test, num_validation=num_validation),
        num_levels=256,
        class_names=DIGIT_NAMES,
        source="SVHN",
    )


def _read(class_name: str, title: str, kept: str, root: str | None, download: bool, **options: object) -> Any:
    """Return torchvision's data set of the files `kept`, downloaded if necessary and allowed."""
    folder = existing_root(root)
    try:
        return torchvision_dataset(class_name, folder, download=False, **options)
    except DownloadError:
        reason = "dataset.download is false"
    if download:
        try:
            with exclusive_download(folder, class_name):
                return torchvision_dataset(class_name, folder, download=True, **options)
        except DownloadError as error:
            reason = str(error)
    raise DataError(
        f"{title}: {_fault(class_name, folder)} in {describe_root(root)} and was not downloaded ({reason}): put "
        f"{kept} there by hand, or use dataset=digits, which needs no download"
    )


def _fault(class_name: str, folder: Path) -> str:
    """Return the first file that is missing or damaged, and which of the two."""
    from torchvision.datasets import CIFAR10, SVHN

    if class_name == "SVHN":
        files = [(name, md5) for split, (_, name, md5) in SVHN.split_list.items() if split != "extra"]
    else:
        meta = (CIFAR10.meta["filename"], CIFAR10.meta["md5"])
        listed = (*CIFAR10.train_list, *CIFAR10.test_list, meta)
        files = [(f"{CIFAR10.base_folder}/{name}", md5) for name, md5 in listed]
    missing = next((name for name, _ in files if not (folder / name).is_file()), None)
    if missing is not None:
        return f"{missing} is missing"
    damaged = next((name for name, md5 in files if file_md5(folder / name) != md5), "a file")
    return f"{damaged} is damaged"
