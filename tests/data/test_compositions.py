"""Pictures composed of digits: deterministic, and what they claim to be."""

import numpy as np
import pytest
import torch

from genlab.data import composition
from genlab.data.cluttered_mnist import clutter, cluttered_mnist
from genlab.data.composition import crop, draw, paste
from genlab.data.mnist import IdxSource
from genlab.data.stacked_mnist import stacked_mnist
from genlab.data.store import Store
from genlab.data.two_digit_mnist import PAIRS, two_digit_mnist
from genlab.errors import ConfigurationError
from tests.data.sources import CPU, write_idx

LEVEL = 20  # digit d is a square of level 20 (d + 1): a picture then tells what it was made of
CHOICES = {
    "download": False,
    "num_validation_digits": 10,
    "num_train": 30,
    "num_validation": 7,
    "num_test": 20,
    "seed": 0,
    "binarization": "none",
    "threshold": 0.5,
    "classes": None,
    "num_labels_per_class": None,
    "label_seed": 0,
}


@pytest.fixture
def root(tmp_path, monkeypatch):
    monkeypatch.setattr(
        composition, "MNIST", IdxSource(name="mnist", title="MNIST", folder="MNIST", class_names=tuple("0123456789"))
    )
    for prefix, count in (("train", 40), ("t10k", 20)):
        labels = np.arange(count) % 10
        images = np.zeros((count, 28, 28))
        images[:, 4:24, 4:24] = LEVEL * (labels[:, None, None] + 1)
        write_idx(tmp_path / "MNIST" / "raw" / f"{prefix}-images-idx3-ubyte", images)
        write_idx(tmp_path / "MNIST" / "raw" / f"{prefix}-labels-idx1-ubyte", labels)
    return str(tmp_path)


def _test_split(data):
    batch = next(data.batches("test", batch_size=data.num_images("test"), seed=0, device=CPU))
    return (batch.images * 255).round().int(), batch.labels


def _builders(root):
    return {
        "stacked": lambda **changes: stacked_mnist(root=root, **(CHOICES | changes)),
        "two": lambda **changes: two_digit_mnist(root=root, size=60, **(CHOICES | changes)),
        "cluttered": lambda **changes: cluttered_mnist(
            root=root, size=100, **({"num_distractors": 8, "distractor_size": 9} | CHOICES | changes)
        ),
    }


@pytest.mark.parametrize("name", ["stacked", "two", "cluttered"])
def test_pictures_depend_on_the_seed_alone(root, name):
    build = _builders(root)[name]
    assert build().fingerprint == build().fingerprint
    assert build().fingerprint != build(seed=1).fingerprint
    few, many = _test_split(build(num_test=9)), _test_split(build(num_test=20))
    assert torch.equal(few[0], many[0][:9])
    assert torch.equal(few[1], many[1][:9])
    assert build(num_validation=0, num_validation_digits=0).num_images("validation") == 0


def test_channels_of_a_stacked_picture_are_the_digits_of_its_class(root):
    data = _builders(root)["stacked"]()
    images, labels = _test_split(data)
    assert (data.spec.channels, data.spec.num_classes) == (3, 1000)
    digits = images[:, :, 14, 14] // LEVEL - 1
    assert torch.equal(digits[:, 0] * 100 + digits[:, 1] * 10 + digits[:, 2], labels.int())
    assert data.class_names[7] == "007"


def test_two_digits_add_up_and_are_named(root):
    data = _builders(root)["two"]()
    images, labels = _test_split(data)
    assert data.spec.num_classes == len(PAIRS) == 55
    for image, label in zip(images, labels, strict=True):
        low, high = PAIRS[int(label)]
        levels = {LEVEL * (low + 1), LEVEL * (high + 1)}
        assert set(image.unique().tolist()) <= {0} | levels | {min(sum(levels), 255), min(2 * LEVEL * (low + 1), 255)}
        overlap = (image == min(LEVEL * (low + high + 2), 255)).sum() if low != high else None
        if overlap == 0:
            assert image.sum() == 400 * sum(levels)  # both whole, nothing cut at the border


def test_places_reach_every_corner(root):
    data = _builders(root)["two"](num_train=2000)
    images = data.subset("train", 2000, seed=0, device=CPU).images.amax(0)[0]
    rows, columns = (images > 0).nonzero().unbind(1)
    assert (rows.min(), rows.max(), columns.min(), columns.max()) == (4, 55, 4, 55)


def test_cluttered_picture_shows_each_test_digit_once_with_its_class(root):
    data = _builders(root)["cluttered"]()
    _, labels = _test_split(data)
    assert labels.tolist() == [index % 10 for index in range(20)]
    clean = cluttered_mnist(root=root, size=100, num_distractors=0, distractor_size=9, **CHOICES)
    images, labels = _test_split(clean)
    assert images.sum((1, 2, 3)).tolist() == [400 * LEVEL * (int(label) + 1) for label in labels]


def test_fresh_clutter_is_a_function_of_seed_and_step_and_of_training_alone(root):
    build = _builders(root)["cluttered"]
    data, stored = build(fresh_clutter=True), build()
    choices = {"batch_size": 15, "device": CPU}

    def batch(data, index, *, seed=0, **share):
        return data.stream(seed=seed, **choices, **share).batch(index)

    first, again, fixed = batch(data, 0), batch(data, 0), batch(stored, 0)
    assert torch.equal(first.images, again.images)
    assert torch.equal(first.labels, fixed.labels)
    assert not torch.isclose(first.images, fixed.images).flatten(1).all(1).any()
    # 30 pictures: batches 0 and 1 are one epoch, 2 and 3 the next, in which no picture is the same again.
    epochs = [torch.cat([batch(data, index).images for index in pair]).flatten(1) for pair in ((0, 1), (2, 3))]
    assert torch.cdist(*epochs).min() > 0
    assert not torch.equal(first.images, batch(data, 0, seed=1).images)
    half = batch(data, 3, rank=1, num_processes=3)
    assert torch.equal(half.images, batch(data, 3).images[1::3])
    assert torch.equal(_test_split(data)[0], _test_split(stored)[0])
    assert data.fingerprint == stored.fingerprint
    assert "composed anew each time in training" in data.provenance


def test_fresh_clutter_keeps_the_class_of_chosen_digits(root):
    data = _builders(root)["cluttered"](fresh_clutter=True, num_distractors=0, classes=[7, 3])
    batch = data.stream(batch_size=6, seed=0, device=CPU).batch(0)
    levels = (batch.images * 255).round().int().amax((1, 2, 3))
    assert levels.tolist() == [LEVEL * ((7, 3)[label] + 1) for label in batch.labels]


def test_fresh_clutter_shows_no_digit_of_the_test_split(root, tmp_path):
    """Digits of the test split fill their pictures here, whole ones and fragments alike; the others fill half."""
    write_idx(tmp_path / "MNIST" / "raw" / "t10k-images-idx3-ubyte", np.full((20, 28, 28), 250))
    data = cluttered_mnist(root=root, size=28, num_distractors=1, distractor_size=28, fresh_clutter=True, **CHOICES)
    images = data.stream(batch_size=30, seed=0, device=CPU).batch(0).images
    assert (images == 0).flatten(1).any(1).all()


def test_fragments_have_their_size(root):
    one = cluttered_mnist(root=root, size=100, num_distractors=1, distractor_size=3, **CHOICES)
    none = cluttered_mnist(root=root, size=100, num_distractors=0, distractor_size=3, **CHOICES)
    difference = _test_split(one)[0] - _test_split(none)[0]
    assert (difference >= 0).all()
    counts = (difference > 0).sum((1, 2, 3))
    assert counts.max() == 9
    assert set(counts.tolist()) <= {0, 1, 2, 3, 4, 6, 9}


def test_fragments_reach_the_last_corner_and_digits_come_in_turn():
    """Digit 0 is blank, digit 1 one pixel in a corner; every draw is the largest."""
    images = torch.zeros(2, 1, 28, 28, dtype=torch.uint8)
    images[1, 0, 27, 27] = 255
    store = Store(images, torch.tensor([0, 1]))

    def largest(num_choices, num_draws):
        return torch.full((num_draws,), num_choices - 1)

    whole, labels = clutter(store, torch.arange(5), largest, size=28, num_distractors=0, distractor_size=9)
    assert labels.tolist() == [0, 1, 0, 1, 0]
    assert torch.equal(whole, images[labels])
    cluttered, _ = clutter(store, torch.tensor([0]), largest, size=40, num_distractors=1, distractor_size=9)
    assert cluttered.nonzero().tolist() == [[0, 0, 39, 39]]


def test_paste_and_crop_by_loops():
    generator = torch.Generator().manual_seed(0)
    canvas = draw(generator, 256, 5, 9, 8).to(torch.uint8)
    patches = draw(generator, 256, 5, 3, 2).to(torch.uint8)
    top, left = draw(generator, 7, 5), draw(generator, 7, 5)
    expected = canvas.int()
    for index in range(5):
        row, column = int(top[index]), int(left[index])
        expected[index, row : row + 3, column : column + 2] += patches[index]
        cut = crop(canvas[index : index + 1], 2, top[index : index + 1], left[index : index + 1])
        assert torch.equal(cut[0], canvas[index, row : row + 2, column : column + 2])
    paste(canvas, patches, top, left)
    assert torch.equal(canvas.int(), expected.clamp(max=255))


def test_impossible_compositions_are_refused(root):
    with pytest.raises(ConfigurationError, match=r"dataset\.size must be at least 28"):
        two_digit_mnist(root=root, size=27, **CHOICES)
    with pytest.raises(ConfigurationError, match=r"dataset\.distractor_size must be between 1 and 28"):
        cluttered_mnist(root=root, size=100, num_distractors=8, distractor_size=29, **CHOICES)
    with pytest.raises(ConfigurationError, match=r"dataset\.num_distractors must be at least 0"):
        cluttered_mnist(root=root, size=100, num_distractors=-1, distractor_size=9, **CHOICES)
    with pytest.raises(ConfigurationError, match=r"dataset\.num_validation must be"):
        stacked_mnist(root=root, **(CHOICES | {"num_validation_digits": 0}))


def test_only_a_stacked_picture_of_all_classes_has_a_class_per_channel(root):
    builders = _builders(root)
    assert builders["stacked"]().has_class_per_channel
    assert not builders["stacked"](classes=list(range(500))).has_class_per_channel
    assert not builders["two"]().has_class_per_channel
