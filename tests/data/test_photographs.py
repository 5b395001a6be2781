"""CIFAR-10 and SVHN offline: the error and its hint."""

import pytest

from genlab.data.photographs import cifar10, svhn
from genlab.errors import DataError


@pytest.mark.parametrize(("build", "title"), [(cifar10, "CIFAR-10"), (svhn, "SVHN")])
def test_missing_files_are_reported(tmp_path, monkeypatch, build, title):
    datasets = pytest.importorskip("torchvision.datasets")
    monkeypatch.setattr(datasets.CIFAR10, "url", "http://127.0.0.1:9/")
    monkeypatch.setattr(datasets.SVHN, "split_list", {"train": ["http://127.0.0.1:9/", "train_32x32.mat", "0"]})
    for download, reason in ((False, r"dataset\.download is false"), (True, "refused")):
        with pytest.raises(DataError, match=rf"{title} is missing .*{reason}.*dataset=digits") as caught:
            build(
                root=str(tmp_path),
                download=download,
                num_validation=5,
                binarization="none",
                threshold=0.5,
                classes=None,
                num_labels_per_class=None,
                label_seed=0,
            )
        assert "\n" not in str(caught.value)
