"""The survey of a data set against the same numbers by NumPy."""

import math

import numpy as np
import pytest
import torch
from sklearn.datasets import load_digits

from genlab.data import survey as module
from genlab.data.dataset import SPLITS, Dataset
from genlab.data.digits import digits
from genlab.data.store import Store
from genlab.data.survey import describe, survey
from genlab.types import UNLABELLED
from tests.data.sources import SMALL_DIGITS


def of_levels(images: np.ndarray, labels: np.ndarray, *, num_classes: int) -> Dataset:
    whole = Store(torch.from_numpy(images), torch.from_numpy(labels))
    none = whole.select(torch.arange(0))
    return Dataset(
        name="levels",
        stores={"train": whole, "validation": none, "test": none},
        num_levels=256,
        class_names=tuple(f"class {index}" for index in range(num_classes)),
        binarization="none",
        threshold=None,
        source="levels",
    )


@pytest.mark.parametrize("pixels_at_once", [1, 700, 2**22])
def test_moments_and_counts_are_those_of_all_images(monkeypatch: pytest.MonkeyPatch, pixels_at_once: int) -> None:
    monkeypatch.setattr(module, "_PIXELS_AT_ONCE", pixels_at_once)
    generator = np.random.default_rng(0)
    images = generator.integers(0, 256, (101, 3, 5, 4), dtype=np.uint8)
    labels = generator.integers(UNLABELLED, 4, 101)
    dataset = of_levels(images, labels, num_classes=5)
    seen = survey(dataset, "train")
    assert seen.mean == pytest.approx((images / 255).mean(), abs=1e-7)
    assert seen.deviation == pytest.approx((images / 255).std(), abs=1e-7)
    assert seen.class_counts.tolist() == [int((labels == index).sum()) for index in range(5)]
    assert seen.class_counts[4] == 0  # a class without images is counted too
    assert seen.num_unlabelled == (labels == UNLABELLED).sum() > 0
    empty = survey(dataset, "test")
    assert (empty.num_images, empty.class_counts.tolist()) == (0, [0] * 5)
    assert math.isnan(empty.mean)
    assert math.isnan(empty.deviation)


def test_pixels_are_those_that_a_model_is_given() -> None:
    thresholded = load_digits().images >= 8
    for binarization, mean in (("threshold", thresholded.mean()), ("none", load_digits().images.mean() / 16)):
        dataset = digits(**{**SMALL_DIGITS, "num_validation": 0, "num_test": 0, "binarization": binarization})
        assert survey(dataset, "train").mean == pytest.approx(mean, abs=1e-7)


def test_few_classes_are_listed_and_many_are_one_line() -> None:
    few = "\n".join(describe(digits(**{**SMALL_DIGITS, "num_labels_per_class": 10}))).splitlines()
    assert few[0].endswith("10 labels per class, label seed 0, binarised at grey value 0.5, 1,297/200/300")
    assert few[1] == "8x8 pixels, channels 1, levels 2, classes 10"
    table = few[few.index(next(line for line in few if line.startswith("class"))) + 2 :]
    test = load_digits().target
    rows = [line.split() for line in table[:10]]
    assert [row[:3] for row in rows] == [[str(digit), str(digit), "10"] for digit in range(10)]
    shown = digits(**SMALL_DIGITS)
    assert [int(row[4]) for row in rows] == survey(shown, "test").class_counts.tolist()
    assert sum(sum(survey(shown, split).class_counts.tolist()) for split in SPLITS) == len(test)
    assert table[10].split() == ["-1", "(no", "label)", "1,197", "0", "0"]

    labels = np.repeat(np.arange(21), 2)[1:]
    images = np.zeros((len(labels), 1, 2, 2), dtype=np.uint8)
    many = list(describe(of_levels(images, labels, num_classes=21)))
    assert many[3].endswith(", 19 = class 19, 20 = class 20\n")
    assert "21 classes, class 0 to class 20; images of a class: 1 to 2 in train, 0 to 0 in validation" in many[3]
    assert many[-1] == f"fingerprint {of_levels(images, labels, num_classes=21).fingerprint}"
