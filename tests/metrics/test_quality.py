"""Samples measured as a whole: known generators get the values that they must have."""

import math
from collections.abc import Callable, Mapping

import pytest
import torch

from genlab.data.dataset import Split
from genlab.data.digits import digits
from genlab.data.image_set import ImageSet
from genlab.errors import ConfigurationError
from genlab.functional import to_bytes
from genlab.measures import Measure
from genlab.metrics import quality
from genlab.metrics.features import ClassifierFeatures, Description, describe_all
from genlab.metrics.generation import (
    IMAGES_AT_ONCE,
    Generated,
    draw_images,
    draw_labels,
    generated_images,
    training_classes,
)
from genlab.metrics.manifold import manifold_scores
from genlab.metrics.parzen import ParzenEstimate
from genlab.metrics.quality import Comparison, Protocol, Reference, Report
from genlab.metrics.sample_estimates import class_estimates, distribution_estimates
from genlab.metrics.sample_measure import SampleMeasure
from genlab.models.base import GenerativeModel
from genlab.models.classifier import Classifier
from genlab.nn.convolution.layers import builtin_layers
from genlab.types import Batch, Phase
from tests.data.sources import CPU, SMALL_DIGITS


@pytest.fixture(name="data", scope="module")
def small_digits():
    return digits(**(SMALL_DIGITS | {"binarization": "none"}))


@pytest.fixture(name="classifier", scope="module")
def trained_classifier(data) -> Classifier:
    torch.manual_seed(0)
    model = Classifier(data.spec, width=8, num_features=16, dropout=0.0, per_channel=False, layers=builtin_layers())
    optimizer = torch.optim.Adam(model.parameters(), lr=1e-2)
    stream = data.stream(batch_size=128, seed=0, device=CPU)
    for step in range(60):
        optimizer.zero_grad()
        model.loss(stream.batch(step)).value.backward()
        optimizer.step()
    return model.eval()


class Parrot(GenerativeModel):
    """Draws training images, of one class, of a given class, or of any."""

    def __init__(self, data, *, only: int | None = None, num_classes: int = 0) -> None:
        super().__init__()
        batch = data.subset("train", 2000, seed=0, device=CPU)
        self.images, self.labels = batch.images, batch.labels
        self.only = only
        self.num_classes = num_classes

    def phases(self) -> tuple[Phase, ...]:
        return ()

    def evaluate(self, batch: Batch) -> dict[str, torch.Tensor]:
        return {}

    def sample(self, num_samples, *, labels=None, generator=None):
        if labels is not None:
            rows = torch.stack([(self.labels == label).nonzero()[0, 0] for label in labels])
            return self.images[rows]
        pool = self.images if self.only is None else self.images[self.labels == self.only]
        return pool[torch.randint(len(pool), (num_samples,), generator=generator)]


def measure(
    data,
    classifier: Classifier,
    model: Parrot,
    *,
    measures: Mapping[str, SampleMeasure] | None = None,
    **changes: object,
) -> tuple[Report, dict[str, float]]:
    settings = {"num_generated": 300, "reference_split": "test", "num_reference": None, "parzen": False} | changes
    reference = Reference.of_split(data, settings["reference_split"], settings["num_reference"], seed=0)
    generated = generated_images(model, data, settings["num_generated"], seed=0, device=CPU)
    extractors = [] if classifier is None else [ClassifierFeatures(classifier, weights_id="0")]
    nearest_training = bool(settings.get("nearest_training", True))
    protocol = Protocol(seed=0, batch_size=100, parzen=settings["parzen"], nearest_training=nearest_training)
    report = Comparison(
        generated, reference, extractors, protocol, dataset=data, device=CPU, measures=measures or {}
    ).report()
    return report, {estimate.name: estimate.value for estimate in [*report.estimates, *report.baselines]}


def test_a_parrot_is_good_a_collapsed_one_is_not(data, classifier: Classifier) -> None:
    _, good = measure(data, classifier, Parrot(data), parzen=True)
    report, collapsed = measure(data, classifier, Parrot(data, only=3), parzen=True)
    shorter, fewer = measure(data, classifier, Parrot(data), parzen=True, nearest_training=False)
    assert fewer == {name: value for name, value in good.items() if "nearest_training" not in name}
    assert "nearest_neighbours" not in shorter.pictures
    assert good["frechet_distance_classifier"] < collapsed["frechet_distance_classifier"] / 5
    assert good["kernel_distance_classifier"] < collapsed["kernel_distance_classifier"] / 5
    for name in ("recall", "coverage", "inception_style_score"):
        assert good[f"{name}_classifier"] > 1.5 * collapsed[f"{name}_classifier"]
    assert good["parzen_log_likelihood_nats"] > collapsed["parzen_log_likelihood_nats"] + 5
    assert good["modes_covered_classifier"] == 10
    assert collapsed["modes_covered_classifier"] <= 2
    assert collapsed["modes_kl_to_uniform_nats_classifier"] == pytest.approx(math.log(10), abs=0.1)
    assert good["modes_kl_to_training_nats_classifier"] < 0.05
    assert report.histogram.argmax() == 3
    assert sum(collapsed["class_histogram_classifier"]) == pytest.approx(1)
    # A parrot is what the distance to the nearest training image is there to find.
    assert good["nearest_training_distance_pixels"] == pytest.approx(0, abs=1e-6)
    assert good["baseline_real_nearest_training_distance_pixels"] > 0.5


def test_the_baseline_is_the_measure_of_other_real_images(data, classifier: Classifier) -> None:
    report, values = measure(data, classifier, Parrot(data))
    _, collapsed = measure(data, classifier, Parrot(data, only=3))
    assert values["baseline_real_frechet_distance_classifier"] < collapsed["frechet_distance_classifier"] / 5
    names = {estimate.name for estimate in report.estimates}
    assert {estimate.name for estimate in report.baselines} == {f"baseline_real_{name}" for name in names}
    counts = {estimate.name: (estimate.num_generated, estimate.num_reference) for estimate in report.baselines}
    assert counts["baseline_real_frechet_distance_classifier"] == (200, 300)  # all validation images, all test images
    assert report.remarks == []
    report, _ = measure(digits(**(SMALL_DIGITS | {"num_validation": 40})), classifier, Parrot(data))
    assert report.remarks == ["of real: training images, since the other splits have too few"]


def some_of(data, split: Split, limit: int) -> torch.Tensor:
    """Return images of a split with the levels of files."""
    (batch,) = data.batches(split, batch_size=limit, seed=0, device=CPU, limit=limit)
    return to_bytes(batch.images)


@pytest.mark.parametrize(
    ("split", "num_validation", "num_test", "of_real"),
    [
        ("test", 50, 60, "validation"),
        ("train", 50, 60, "validation"),
        ("validation", 50, 60, "test"),
        ("test", 49, 60, "train"),
        ("train", 49, 60, "test"),
    ],
)
def test_as_many_real_images_as_samples_are_of_the_first_other_split_with_enough(
    split: Split, num_validation: int, num_test: int, of_real: Split
) -> None:
    settings = {"binarization": "none", "num_validation": num_validation, "num_test": num_test}
    data = digits(**(SMALL_DIGITS | settings))
    generated = Generated(levels=torch.zeros(40, 1, 8, 8, dtype=torch.uint8), labels=None)
    protocol = Protocol(seed=0, batch_size=100, parzen=False, nearest_training=False)
    reference = Reference.of_split(data, split, None, seed=0)
    real = Comparison(generated, reference, [], protocol, dataset=data, device=CPU).real
    assert torch.equal(real, some_of(data, of_real, 40))


@pytest.mark.parametrize(
    ("split", "chooser", "centres"), [("test", "validation", "train"), ("validation", "train", None)]
)
def test_the_bandwidth_is_chosen_by_images_that_are_not_scored(
    data, monkeypatch: pytest.MonkeyPatch, split: Split, chooser: Split, centres: Split | None
) -> None:
    """A window on real images, for comparison, is on those of training where these have not chosen."""
    asked = []

    def noted(samples: torch.Tensor, **others: torch.Tensor) -> ParzenEstimate:
        asked.append({"samples": samples, **others})
        return ParzenEstimate(log_likelihood_nats=0.0, standard_error=0.0, bandwidth=0.1)

    monkeypatch.setattr(quality, "parzen_estimate", noted)
    changes = {"reference_split": split, "num_generated": 60, "parzen": True, "nearest_training": False}
    report, _ = measure(data, None, Parrot(data), **changes)
    generated = generated_images(Parrot(data), data, 60, seed=0, device=CPU).levels
    expected = [generated, *([] if centres is None else [some_of(data, centres, 60)])]
    torch.testing.assert_close([to_bytes(call["samples"]) for call in asked], expected)
    for call in asked:
        assert torch.equal(to_bytes(call["validation"]), some_of(data, chooser, 1000))
        assert torch.equal(to_bytes(call["test"]), some_of(data, split, data.num_images(split)))
    directions = {estimate.name: estimate.measure.direction for estimate in report.estimates}
    assert directions == {"parzen_log_likelihood_nats": "higher", "parzen_bandwidth": "neither"}


def test_a_reference_of_files_is_a_random_choice_of_them() -> None:
    images = ImageSet(key="reference", name="some", levels=torch.arange(40, dtype=torch.uint8).view(40, 1, 1, 1))

    def chosen(limit: int | None, seed: int) -> list[int]:
        return Reference.of_files(images, limit, seed=seed).levels.flatten().tolist()

    assert chosen(None, 0) == chosen(40, 0) == list(range(40))
    first, other = chosen(8, 0), chosen(8, 1)
    assert len({*first}) == len({*other}) == 8
    assert first != other
    assert max(first) >= 8, "files may be ordered by class"
    assert chosen(8, 0) == first == sorted(first)


class Gap(SampleMeasure):
    declaration = Measure(unit="1", kind="estimate", direction="lower")

    def __init__(self, *, of_features: bool) -> None:
        self.of_features = of_features

    def compute(self, generated: torch.Tensor, reference: torch.Tensor) -> float:
        return generated.mean() - 2 * reference.mean()  # type: ignore[return-value] # as users forget to convert it


def test_a_further_measure_of_pixels_or_of_features_stands_beside_its_value_for_real_images(
    data, classifier: Classifier
) -> None:
    further = {"gap": Gap(of_features=False), "feature_gap": Gap(of_features=True)}
    report, values = measure(data, classifier, Parrot(data), measures=further)
    entries = {entry.name: entry for entry in (*report.estimates, *report.baselines)}
    reference = data.subset("test", 300, seed=0, device=CPU).images
    real = torch.cat([batch.images for batch in data.batches("validation", batch_size=100, seed=0, device=CPU)])
    drawn = generated_images(Parrot(data), data, 300, seed=0, device=CPU).levels / 255
    assert values["gap"] == pytest.approx(float(drawn.mean() - 2 * reference.mean()), abs=1e-4)
    assert values["baseline_real_gap"] == pytest.approx(float(real.mean() - 2 * reference.mean()), abs=1e-4)
    assert entries["gap"].measure is Gap.declaration
    assert {type(entry.value) for entry in entries.values()} <= {float, list}
    assert (entries["gap"].features, entries["feature_gap_classifier"].features) == (None, "classifier 0")
    assert entries["baseline_real_feature_gap_classifier"].num_generated == len(real)


class InTurn(Parrot):
    """Draws training images first and grey ones after them, as a model may draw its classes."""

    def sample(self, num_samples, *, labels=None, generator=None):
        images = super().sample(num_samples, generator=generator)
        self.num_drawn = getattr(self, "num_drawn", 0) + num_samples
        return images if self.num_drawn <= 1000 else torch.full_like(images, 0.5)


def test_what_is_measured_of_some_samples_is_of_random_ones(data) -> None:
    far = float((data.subset("train", 300, seed=0, device=CPU).images - 0.5).flatten(1).norm(dim=1).min())
    _, values = measure(data, None, InTurn(data), num_generated=2000)
    assert values["nearest_training_distance_pixels"] == pytest.approx(far / 2, rel=0.3)  # 0 of the first thousand


def test_images_in_the_order_of_their_classes_are_measured_as_shuffled_ones(data, classifier: Classifier) -> None:
    """Both sets, as a folder of classes gives them; the errors are those over draws of both sets."""
    extractor = ClassifierFeatures(classifier, weights_id="0")
    images = [data.subset(split, 200, seed=0, device=CPU).images for split in ("test", "validation")]
    looked = [describe_all(extractor, [part]) for part in images]
    by_class = [Description(*(part[look.logits.argmax(1).argsort()] for part in look)) for look in looked]
    found = [
        {estimate.name: estimate for estimate in distribution_estimates(extractor, *pair)}
        for pair in (looked, by_class)
    ]
    for name, estimate in found[0].items():
        assert found[1][name].value == pytest.approx(estimate.value, rel=0.1), name
    scores = manifold_scores(looked[0].features, looked[1].features)
    for name, error in scores.standard_errors.items():
        assert found[0][f"{name}_classifier"].standard_error == error


def test_labels_asked_for_are_found_again(data, classifier: Classifier) -> None:
    model = Parrot(data, num_classes=10)
    model.images = torch.cat([model.images[model.labels == k][:1] for k in range(10)])
    model.labels = torch.arange(10)
    model.images[[0, 1]] = model.images[[1, 0]]
    right = (classifier.predict(model.images) == model.labels).double()
    labels = draw_labels(training_classes(data), 300, seed=0)
    report, values = measure(data, classifier, model)
    share = right[labels].mean().item()
    assert values["conditional_accuracy_classifier"] == pytest.approx(share)
    accuracy = next(each for each in report.estimates if each.name == "conditional_accuracy_classifier")
    assert accuracy.measure.direction == "higher"
    assert accuracy.standard_error == pytest.approx(math.sqrt(share * (1 - share) / 299))


def test_the_divergence_from_training_is_left_out_only_where_it_is_infinite(classifier: Classifier) -> None:
    """Of a class that training lacks; one that the samples lack adds nothing."""
    extractor, predictions = ClassifierFeatures(classifier, weights_id="0"), torch.tensor([0, 0, 1, 1])
    counts = torch.tensor([3, 3, *[0] * 8])
    name = "modes_kl_to_training_nats_classifier"
    for seen, expected in ((predictions, 0.0), (torch.tensor([0, 0, 1, 2]), None)):
        found = {
            each.name: each.value for each in class_estimates(extractor, seen, training_counts=counts, labels=None)
        }
        assert found.get(name) == expected


def test_without_a_classifier_only_pixels_are_measured(data) -> None:
    report, values = measure(data, None, Parrot(data), reference_split="train", num_reference=400)
    assert set(values) == {"nearest_training_distance_pixels"}
    assert report.histogram is None
    assert set(report.pictures) == {"real_beside_generated", "nearest_neighbours"}


def test_the_seed_alone_decides_the_samples(data) -> None:
    count = IMAGES_AT_ONCE + 30
    drawn = [draw_images(Parrot(data), count, labels=None, seed=seed, device=CPU) for seed in (1, 1, 2)]
    assert torch.equal(drawn[0], drawn[1])
    assert not torch.equal(drawn[0], drawn[2])
    assert not torch.equal(drawn[0][:30], drawn[0][IMAGES_AT_ONCE:])


def test_labels_are_drawn_as_often_as_in_training() -> None:
    counts = torch.tensor([0, 30, 10])
    shares = torch.bincount(draw_labels(counts, 20000, seed=3), minlength=3) / 20000
    torch.testing.assert_close(shares, counts / 40, atol=0.02, rtol=0)


@pytest.mark.parametrize("change", [lambda x: x * 2 - 1, lambda x: x.mul(255).to(torch.uint8), lambda x: x[1:]])
def test_samples_that_are_no_images_between_0_and_1_are_refused(
    data, monkeypatch: pytest.MonkeyPatch, change: Callable[[torch.Tensor], torch.Tensor]
) -> None:
    parrot = Parrot(data)
    sample = parrot.sample
    monkeypatch.setattr(parrot, "sample", lambda count, **options: change(sample(count, **options)))
    with pytest.raises(ConfigurationError, match=r"Parrot\.sample must return 4 images in \[0, 1\], got "):
        draw_images(parrot, 4, labels=None, seed=0, device=CPU)
