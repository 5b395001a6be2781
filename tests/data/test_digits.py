"""The embedded digits: levels, enlargement, splits."""

import numpy as np
import pytest
import torch
from PIL import Image

from genlab.data.digits import digits
from genlab.errors import ConfigurationError
from tests.data.sources import CPU

CHOICES = {
    "num_validation": 200,
    "num_test": 300,
    "split_seed": 0,
    "threshold": 0.5,
    "classes": None,
    "num_labels_per_class": None,
    "label_seed": 0,
}
SPLITS = ("train", "validation", "test")


def _all(data):
    return torch.cat([b.images for split in SPLITS for b in data.batches(split, batch_size=99, seed=0, device=CPU)])


def test_native_digits_are_the_source_and_every_one_is_in_one_split():
    data = digits(size=8, binarization="none", **CHOICES)
    assert data.spec.num_levels == 17
    assert [data.num_images(split) for split in SPLITS] == [1297, 200, 300]
    from sklearn.datasets import load_digits  # a second to import, in each process of the tests

    source = load_digits().images.astype(int)
    ours = (_all(data)[:, 0] * 16).round().int().numpy()
    assert sorted(map(bytes, source.astype(np.uint8))) == sorted(map(bytes, ours.astype(np.uint8)))


@pytest.mark.parametrize("size", [16, 28])
def test_enlargement_is_bicubic(size):
    ours = digits(size=size, binarization="none", **CHOICES)
    native = digits(size=8, binarization="none", **CHOICES)
    assert ours.spec.num_levels == 256
    large = ours.subset("test", 20, seed=0, device=CPU).images
    small = native.subset("test", 20, seed=0, device=CPU).images
    for ours_image, native_image in zip(large, small, strict=True):
        pillow = Image.fromarray(native_image[0].numpy()).resize((size, size), Image.Resampling.BICUBIC)
        assert np.abs(ours_image[0].numpy() - np.asarray(pillow).clip(0, 1)).max() <= 0.5 / 255 + 1e-5


def test_threshold_cuts_the_enlarged_surface_at_half():
    grey = _all(digits(size=16, binarization="none", **CHOICES))
    assert torch.equal(_all(digits(size=16, binarization="threshold", **CHOICES)), (grey >= 0.5).float())


def test_split_depends_on_its_seed_alone():
    same = digits(size=8, binarization="none", **CHOICES).fingerprint
    assert same == digits(size=8, binarization="none", **CHOICES).fingerprint
    assert same != digits(size=8, binarization="none", **(CHOICES | {"split_seed": 1})).fingerprint


def test_splits_larger_than_the_data_are_refused():
    with pytest.raises(ConfigurationError, match="sum to less than 1797"):
        digits(size=8, binarization="none", **(CHOICES | {"num_test": 1597}))
