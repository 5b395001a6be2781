"""The classifier that measures samples: what it computes, what it learns, what it refuses."""

import math

import pytest
import torch

from genlab.data.digits import digits
from genlab.models.classifier import Classifier
from genlab.nn.convolution.layers import builtin_layers
from genlab.types import UNLABELLED, Batch, ImageSpec
from tests.data.sources import CPU, SMALL_DIGITS
from tests.models.tiny import assert_slope, make_batch, make_spec, randomize


def make_classifier(spec: ImageSpec | None = None, **changes: object) -> Classifier:
    settings = {
        "width": 4,
        "num_features": 6,
        "dropout": 0.0,
        "per_channel": False,
        "layers": builtin_layers(),
    } | changes
    return Classifier(spec or make_spec(num_classes=3, height=8, width=12), **settings)


def test_gradient_is_that_of_finite_differences() -> None:
    model = make_classifier(make_spec(num_classes=3, channels=2, height=8, width=8, num_levels=256)).double()
    randomize(model, 0.2)
    batch = make_batch(model.spec, 5, dtype=torch.float64)
    model.loss(batch).value.backward()
    for name, parameter in model.named_parameters():
        assert_slope(lambda: model.loss(batch).value, name, parameter, step=1e-7, rtol=1e-4, atol=1e-7)


@pytest.mark.parametrize(
    ("height", "width", "num_blocks"), [(8, 8, 1), (15, 40, 1), (28, 28, 2), (32, 32, 3), (64, 80, 4)]
)
def test_the_image_is_halved_until_its_shorter_side_is_below_eight(height: int, width: int, num_blocks: int) -> None:
    model = make_classifier(make_spec(channels=3, height=height, width=width, num_classes=5))
    assert len(model.blocks) == num_blocks
    assert model.features(torch.rand(2, 3, height, width)).shape == (2, 6)
    assert model.logits(torch.rand(2, 3, height, width)).shape == (2, 5)


def test_measures_are_per_example_and_logits_are_those_of_the_features() -> None:
    model = make_classifier().eval()
    batch = make_batch(model.spec, 7)
    with torch.no_grad():
        torch.testing.assert_close(model.logits(batch.images), model.classify(model.features(batch.images)))
        model.classify.weight.zero_()
        model.classify.bias.copy_(torch.tensor([1e-6, 0.0, 0.0]))
    measures = model.evaluate(batch)
    assert measures["cross_entropy_nats"].tolist() == pytest.approx([math.log(3)] * 7, abs=1e-5)
    assert torch.equal(measures["error"], (batch.labels != 0).float())
    assert model.predict(batch.images).tolist() == [0] * 7


def test_images_without_a_label_count_for_nothing() -> None:
    model = make_classifier().eval()
    batch = make_batch(model.spec, 6)
    labelled = model.loss(Batch(images=batch.images[:4], labels=batch.labels[:4]))
    hidden = torch.cat((batch.labels[:4], torch.full((2,), UNLABELLED)))
    mixed = model.loss(Batch(images=batch.images, labels=hidden))
    torch.testing.assert_close(mixed.value, labelled.value)
    torch.testing.assert_close(mixed.metrics["error"], labelled.metrics["error"])
    none = model.loss(Batch(images=batch.images, labels=torch.full((6,), UNLABELLED)))
    assert none.value == 0


def test_classes_of_channels_multiply_to_the_probability_of_the_picture() -> None:
    """Brute force over all 27 triples: digit c of the class, in base 3, is the class of channel c."""
    spec = make_spec(channels=3, height=8, width=8, num_classes=27)
    model = make_classifier(spec, per_channel=True).eval()
    one = make_classifier(make_spec(height=8, width=8, num_classes=3)).eval()
    one.load_state_dict(model.state_dict())
    images = torch.rand(4, 3, 8, 8)
    channels = [one.logits(images[:, c : c + 1]).softmax(1) for c in range(3)]
    joint = model.logits(images).softmax(1)
    for label in range(27):
        first, second, third = label // 9, label // 3 % 3, label % 3
        expected = channels[0][:, first] * channels[1][:, second] * channels[2][:, third]
        torch.testing.assert_close(joint[:, label], expected)
    torch.testing.assert_close(model.features(images)[:, 6:12], one.features(images[:, 1:2]))
    assert model.num_features == 18


def test_bad_arguments_are_refused_in_one_line() -> None:
    with pytest.raises(ValueError, match="at least 2 classes, got 0"):
        make_classifier(make_spec(height=8, width=8))
    with pytest.raises(ValueError, match="at least 2 classes, got 1"):
        make_classifier(make_spec(height=8, width=8, num_classes=1))
    with pytest.raises(ValueError, match="at least 8 pixels a side, got 8x7"):
        make_classifier(make_spec(height=8, width=7, num_classes=2))
    with pytest.raises(ValueError, match=r"model.dropout must be at least 0 and below 1, got 1.0"):
        make_classifier(dropout=1.0)
    with pytest.raises(ValueError, match=r"model.width must be"):
        make_classifier(width=0)
    with pytest.raises(ValueError, match="got 10 classes"):
        make_classifier(make_spec(channels=3, height=8, width=8, num_classes=10), per_channel=True)


@pytest.mark.slow
def test_better_than_logistic_regression_on_digits() -> None:
    """Same split, on 8x8; logistic regression gets the best of four penalties by looking at the test images itself."""
    from sklearn.linear_model import LogisticRegression

    torch.manual_seed(0)
    data = digits(**(SMALL_DIGITS | {"binarization": "none"}))
    train, test = (data.subset(split, 2000, seed=0, device=CPU) for split in ("train", "test"))
    baselines = [LogisticRegression(C=c, max_iter=1000) for c in (0.1, 1.0, 10.0, 100.0)]
    inputs, targets = train.images.flatten(1).numpy(), train.labels.numpy()
    errors = [1 - b.fit(inputs, targets).score(test.images.flatten(1).numpy(), test.labels.numpy()) for b in baselines]

    model = make_classifier(data.spec, width=16, num_features=64, dropout=0.3)
    optimizer = torch.optim.Adam(model.parameters(), lr=3e-3)
    stream = data.stream(batch_size=128, seed=0, device=CPU)
    for step in range(200):
        optimizer.zero_grad()
        model.loss(stream.batch(step)).value.backward()
        optimizer.step()
    error = model.eval().evaluate(test)["error"].mean().item()
    assert error < min(errors) - 0.01


def test_a_batch_without_labels_has_a_loss_of_zero_and_no_error() -> None:
    model = make_classifier()
    batch = make_batch(model.spec, 4)
    unlabelled = Batch(images=batch.images, labels=torch.full((4,), UNLABELLED))
    loss = model.loss(unlabelled)
    assert loss.value == 0
    assert all(value.isnan() for value in loss.metrics.values())
