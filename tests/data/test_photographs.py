"""CIFAR-10 and SVHN offline: the error and its hint."""

import pytest

from genlab.data.photographs import cifar10, svhn
from genlab.errors import DataError


@pytest.mark.parametrize(
    ("build", "first", "second"),
    [
        (cifar10, "cifar-10-batches-py/data_batch_1", "cifar-10-batches-py/data_batch_2"),
        (svhn, "train_32x32.mat", "test_32x32.mat"),
    ],
)
def test_the_missing_or_damaged_file_is_named(tmp_path, monkeypatch, build, first, second):
    datasets = pytest.importorskip("torchvision.datasets")
    monkeypatch.setattr(datasets.CIFAR10, "url", "http://127.0.0.1:9/")
    urls = {name: ["http://127.0.0.1:9/", f"{name}_32x32.mat", "0"] for name in ("train", "test")}
    monkeypatch.setattr(datasets.SVHN, "split_list", urls)

    def refusal(*, download):
        with pytest.raises(DataError) as caught:
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
        return str(caught.value)

    for download, reason in ((False, "dataset.download is false"), (True, "refused")):
        told = refusal(download=download)
        assert f"{first} is missing in" in told
        assert reason in told
        assert "dataset=digits" in told
    (tmp_path / first).parent.mkdir(exist_ok=True)
    (tmp_path / first).write_bytes(b"truncated")
    assert f"{second} is missing in" in refusal(download=False)
    for name in ("data_batch_2", "data_batch_3", "data_batch_4", "data_batch_5", "test_batch", "batches.meta"):
        (tmp_path / first).with_name(name).touch()
    (tmp_path / second).touch()
    assert f"{first} is damaged in" in refusal(download=False)
