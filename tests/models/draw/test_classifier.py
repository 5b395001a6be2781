"""The attentive classifier: its gradient, what it learns, what it refuses."""

import math
from dataclasses import replace

import pytest
import torch

from genlab.models.draw.attention import AttentionBias
from genlab.models.draw.classifier import DRAWClassifier
from genlab.types import UNLABELLED, Batch, ImageSpec
from tests.models.tiny import assert_slope, make_batch, make_spec, randomize


def make_classifier(spec: ImageSpec | None = None, **changes: int) -> DRAWClassifier:
    settings = {"num_glimpses": 3, "num_units": 6, "read_size": 2, "learned_states": True} | changes
    start = AttentionBias(0.0, 0.0, 0.0)
    return DRAWClassifier(spec or make_spec(num_classes=3), read_bias=start, forget_bias=1.0, **settings)


def test_gradient_is_that_of_finite_differences() -> None:
    model = make_classifier(make_spec(num_classes=3, channels=2)).double()
    randomize(model, 0.2)
    batch = make_batch(model.spec, 5, dtype=torch.float64)
    model.loss(batch).value.backward()
    for name, parameter in model.named_parameters():
        assert_slope(lambda: model.loss(batch).value, name, parameter)


def test_untrained_classes_are_equally_likely_and_measures_are_per_example() -> None:
    model = make_classifier()
    with torch.no_grad():
        model.classify.weight.zero_()
        model.classify.bias.copy_(torch.tensor([1e-6, 0.0, 0.0]))
    batch = make_batch(model.spec, 7)
    measures = model.evaluate(batch)
    assert measures["cross_entropy_nats"].tolist() == pytest.approx([math.log(3)] * 7, abs=1e-5)
    assert torch.equal(measures["error"], (batch.labels != 0).float())
    metrics = model.loss(batch).metrics
    torch.testing.assert_close(metrics["cross_entropy_nats"], measures["cross_entropy_nats"].mean())
    torch.testing.assert_close(metrics["error"], measures["error"].mean())


def test_it_learns_where_a_bright_pixel_is() -> None:
    images = torch.zeros(4, 1, 6, 6)
    for index, (row, column) in enumerate([(1, 1), (1, 4), (4, 1), (4, 4)]):
        images[index, 0, row, column] = 1
    batch = Batch(images=images, labels=torch.arange(4))
    model = make_classifier(make_spec(num_classes=4, height=6, width=6), num_units=16, read_size=3)
    optimizer = torch.optim.Adam(model.parameters(), lr=0.02)
    for _ in range(150):
        optimizer.zero_grad()
        model.loss(batch).value.backward()
        optimizer.step()
    assert model.evaluate(batch)["error"].sum() == 0


def test_film_shows_one_window_for_each_glimpse_and_needs_a_batch() -> None:
    model = make_classifier()
    batch = make_batch(model.spec, 5)
    film = model.visualize(batch, num_samples=2)["glimpses"]
    assert film.shape == (3, 2, 3, 112, 112)
    assert film.max() <= 1
    assert (film[0, 0, 1] != film[0, 0, 0]).any()  # green on grey
    assert model.visualize(None, num_samples=2) == {}


def test_data_without_a_choice_of_classes_and_windows_larger_than_the_image_are_refused() -> None:
    for num_classes in (0, 1):
        with pytest.raises(ValueError, match=f"at least 2 classes, got {num_classes}"):
            make_classifier(replace(make_spec(), num_classes=num_classes))
    with pytest.raises(ValueError, match=r"model.read_size must be between 1 and 4 \(the image size\), got 9"):
        make_classifier(read_size=9)


def test_images_without_a_label_do_not_count() -> None:
    spec = make_spec(num_classes=3)
    model = make_classifier(spec)
    batch = make_batch(spec, 6)
    hidden = torch.cat((batch.labels[:4], torch.full((2,), UNLABELLED)))
    partly = model.loss(Batch(images=batch.images, labels=hidden))
    labelled = model.loss(Batch(images=batch.images[:4], labels=batch.labels[:4]))
    torch.testing.assert_close(partly.value, labelled.value)
    torch.testing.assert_close(partly.metrics["error"], labelled.metrics["error"])
