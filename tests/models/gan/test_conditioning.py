"""Class labels reach both networks; semi-supervised learning is a softmax over K + 1 classes."""

import functools
import math
from dataclasses import replace

import pytest
import torch
import torch.nn.functional as F
from torch import Generator, Tensor, nn

from genlab.metrics.quality_observer import is_measured_by_samples
from genlab.models.gan.acgan import AuxiliaryClassifier
from genlab.models.gan.conditioning import (
    ClassInputs,
    ClassLabels,
    ClassPrediction,
    ClassProjection,
    Conditioning,
    Unconditional,
)
from genlab.models.gan.dcgan import DCGANDiscriminator, DCGANGenerator
from genlab.models.gan.gan import GAN
from genlab.models.gan.pictures import class_grid
from genlab.models.gan.techniques.feature_matching import FeatureMatching
from genlab.models.gan.techniques.spectral_normalization import SpectralNormalization
from genlab.types import UNLABELLED, Batch
from tests.models.gan.tiny import gradients, make_gan
from tests.models.tiny import make_batch, make_spec

SPEC = make_spec(num_classes=3)
CONVOLUTIONAL = {
    "generator": functools.partial(DCGANGenerator, channels=2, normalization=None),
    "discriminator": functools.partial(DCGANDiscriminator, channels=2, num_hidden=None, normalization=None, leak=0.2),
}


def supervised_gan(**changes: object) -> GAN:
    torch.manual_seed(0)
    return make_gan(SPEC, **({"conditioning": ClassPrediction(game_weight=1.0)} | changes))


def with_labels(labels: list[int]) -> Batch:
    images = make_batch(SPEC, len(labels)).images
    return Batch(images=images, labels=torch.tensor(labels))


@pytest.mark.parametrize("networks", [{}, CONVOLUTIONAL], ids=["mlp", "dcgan"])
def test_the_label_changes_images_and_scores(networks: dict[str, object]) -> None:
    model = make_gan(SPEC, conditioning=ClassLabels(), **networks)
    images = [
        model.sample(2, labels=torch.full((2,), label), generator=Generator().manual_seed(1)) for label in range(3)
    ]
    batch = make_batch(SPEC, 4)
    scores = [
        model.evaluate(Batch(images=batch.images, labels=torch.full((4,), label)))["score_real"] for label in range(3)
    ]
    for values in (images, scores):
        for first, second in ((0, 1), (0, 2), (1, 2)):
            assert not torch.isclose(values[first], values[second], rtol=1e-6).all()


def test_both_phases_pair_an_image_with_its_own_class() -> None:
    """The generator and the discriminator get the label of the same row."""
    model = make_gan(SPEC, conditioning=ClassLabels())
    batch = make_batch(SPEC, 5)
    one_hot = F.one_hot(batch.labels, 3).float()
    seen: dict[str, list[Tensor]] = {"generator": [], "network": []}
    model.generator.register_forward_pre_hook(lambda _, given: seen["generator"].append(given[0][:, 3:]))
    model.discriminator.network.register_forward_pre_hook(lambda _, given: seen["network"].append(given[1]))
    for phase in model.phases():
        phase.loss(batch)
    assert [torch.equal(given, one_hot) for given in seen["generator"]] == [True, True]
    for given in seen["network"]:
        assert all(torch.equal(part, one_hot) for part in given.split(5))


def test_an_image_without_a_label_has_no_class() -> None:
    conditioning = ClassLabels()
    conditioning.sizes(SPEC)
    assert conditioning.conditions(torch.tensor([2, UNLABELLED])).tolist() == [[0.0, 0.0, 1.0], [0.0, 0.0, 0.0]]


def test_classes_are_drawn_uniformly_where_none_are_given() -> None:
    conditioning = ClassLabels()
    conditioning.sizes(SPEC)
    drawn = conditioning.draw(3000, labels=None, generator=Generator().manual_seed(0), device=torch.device("cpu"))
    assert torch.equal(drawn.sum(1), torch.ones(3000))
    torch.testing.assert_close(drawn.mean(0), torch.full((3,), 1 / 3), atol=0.04, rtol=0)


@pytest.mark.parametrize(
    "conditioning",
    [
        ClassLabels(),
        ClassProjection(),
        ClassPrediction(game_weight=1.0),
        AuxiliaryClassifier(real_weight=1.0, fake_weight=1.0, generator_weight=1.0),
    ],
)
def test_images_without_labels_are_refused(conditioning: Conditioning) -> None:
    with pytest.raises(ValueError, match=r"model\.conditioning needs images with labels.*use model=gan"):
        make_gan(make_spec(num_classes=0), conditioning=conditioning)
    if isinstance(conditioning, ClassInputs):  # the semi-supervised classes are one class and fake
        with pytest.raises(ValueError, match=r"model\.conditioning needs images of at least two classes"):
            make_gan(make_spec(num_classes=1), conditioning=conditioning)


@pytest.mark.parametrize(
    "conditioning",
    [ClassPrediction(game_weight=1.0), AuxiliaryClassifier(real_weight=1.0, fake_weight=1.0, generator_weight=1.0)],
)
def test_an_image_without_a_label_has_no_class_error_and_changes_that_of_no_other(conditioning: Conditioning) -> None:
    """As training images do that fill a batch of evaluation up."""
    model = make_gan(SPEC, conditioning=conditioning)
    batch = with_labels([0, UNLABELLED, 2, 1])
    whole, labelled = model.evaluate(batch), model.evaluate(replace(batch, labels=torch.tensor([0, 0, 2, 1])))
    for name in ("cross_entropy_nats", "error"):
        assert whole[name].isnan().tolist() == [False, True, False, False]
        assert torch.equal(whole[name][[0, 2, 3]], labelled[name][[0, 2, 3]])


def test_a_score_is_the_logit_of_not_being_the_last_of_k_plus_one_classes() -> None:
    logits = 3 * torch.randn(20, 3, dtype=torch.float64)
    joint = torch.cat((logits, torch.zeros(20, 1, dtype=torch.float64)), 1).softmax(1)
    scores = ClassPrediction(game_weight=1.0).scores(logits)
    torch.testing.assert_close(scores.sigmoid(), 1 - joint[:, 3])
    total = logits.exp().sum(1)
    torch.testing.assert_close(scores.sigmoid(), total / (total + 1))
    # The joint probability factors into the probability of real and the class given real.
    torch.testing.assert_close(joint[:, :3], logits.softmax(1) * scores.sigmoid()[:, None])
    assert ClassPrediction(game_weight=1.0).scores(torch.full((1, 3), 500.0)).item() == pytest.approx(500 + math.log(3))


def test_labelled_rows_serve_the_classifier_and_unlabelled_ones_the_weighted_game() -> None:
    model = supervised_gan(conditioning=ClassPrediction(game_weight=0.5))
    batch = with_labels([2, UNLABELLED, 0, UNLABELLED, UNLABELLED])
    torch.manual_seed(1)
    loss = model.phases()[0].loss(batch)
    rows = {"labelled": [0, 2], "unlabelled": [1, 3, 4]}
    outputs = {
        name: model.discriminator(2 * batch.images[chosen] - 1, torch.empty(len(chosen), 0)).outputs
        for name, chosen in rows.items()
    }
    cross_entropy = F.cross_entropy(outputs["labelled"], torch.tensor([2, 0]))
    torch.testing.assert_close(loss.metrics["cross_entropy_nats"], cross_entropy.detach())
    torch.manual_seed(1)
    fake = model.generator(model.latent.draw(3, generator=None, device=torch.device("cpu")))
    fake_scores = model.discriminator(fake.tanh(), torch.empty(3, 0)).outputs.logsumexp(1)
    game = F.softplus(-outputs["unlabelled"].logsumexp(1)).mean() + F.softplus(fake_scores).mean()
    torch.testing.assert_close(loss.metrics["adversarial_nats"], game.detach())
    torch.testing.assert_close(loss.value, 0.5 * game + cross_entropy)


def test_the_labels_of_the_game_are_never_looked_at() -> None:
    """Hidden labels do not reach the loss, and each labelled one does."""
    model = supervised_gan()
    losses = []
    for labels in ([0, UNLABELLED], [1, UNLABELLED]):
        torch.manual_seed(1)
        images = torch.linspace(0, 1, 32).view(2, 1, 4, 4)
        losses.append(model.phases()[0].loss(Batch(images=images, labels=torch.tensor(labels))))
    torch.testing.assert_close(*[loss.metrics["adversarial_nats"] for loss in losses])
    assert not torch.isclose(*[loss.metrics["cross_entropy_nats"] for loss in losses])


@pytest.mark.parametrize("labels", [[UNLABELLED] * 4, [0, 1, 2, 1]], ids=["unlabelled", "labelled"])
def test_batches_of_one_kind(labels: list[int]) -> None:
    model = supervised_gan(techniques={"matching": FeatureMatching(weight=1.0, replaces_objective=True)})
    batch = with_labels(labels)
    for phase in model.phases():
        loss = phase.loss(batch)
        assert torch.isfinite(loss.value)
        found = gradients(model, loss.value)
        assert all(bool(torch.isfinite(gradient).all()) for gradient in found.values())
        if phase.name == "discriminator":
            assert ("cross_entropy_nats" in loss.metrics) == (labels[0] >= 0)
            assert "score_real" in loss.metrics
            assert torch.isfinite(loss.metrics["score_real"])


def test_feature_matching_looks_at_the_unlabelled_images() -> None:
    model = supervised_gan(techniques={"matching": FeatureMatching(weight=1.0, replaces_objective=True)})
    batch = with_labels([1, UNLABELLED, UNLABELLED])
    changed = Batch(images=torch.cat((torch.zeros(1, 1, 4, 4), batch.images[1:])), labels=batch.labels)
    values = []
    for given in (batch, changed):
        torch.manual_seed(1)
        values.append(model.phases()[1].loss(given).value)
    assert torch.equal(*values)


def test_measures_are_those_of_a_classifier() -> None:
    model = supervised_gan()
    batch = make_batch(SPEC, 6)
    measures = model.evaluate(batch)
    logits = model.discriminator(2 * batch.images - 1, torch.empty(6, 0)).outputs
    torch.testing.assert_close(measures["cross_entropy_nats"], F.cross_entropy(logits, batch.labels, reduction="none"))
    assert torch.equal(measures["error"], (logits.argmax(1) != batch.labels).float())
    with pytest.raises(ValueError, match="not class-conditional"):
        model.sample(2, labels=torch.zeros(2, dtype=torch.long))


def test_a_semi_supervised_gan_is_chosen_by_its_error_and_others_by_their_samples() -> None:
    semi_supervised, plain = supervised_gan(), make_gan()
    assert (semi_supervised.selection_measure, plain.selection_measure) == ("error", None)
    assert is_measured_by_samples(semi_supervised)
    assert is_measured_by_samples(plain)


def test_without_conditioning_the_networks_see_images_and_noise_alone() -> None:
    model = make_gan(SPEC, conditioning=Unconditional())
    assert model.num_classes == 0
    assert model.generator(torch.zeros(2, 3)).shape == (2, 1, 4, 4)
    assert model.discriminator.output.out_features == 1


def test_a_known_number_of_labels_divides_a_batch_as_the_labels_do():
    """Without a look at the labels, for which the host would wait for a device."""
    conditioning = ClassPrediction(game_weight=1.0)
    labels = torch.tensor([3, 1, UNLABELLED, UNLABELLED, UNLABELLED])
    batch = Batch(images=torch.rand(5, 1, 2, 2), labels=labels)
    by_labels = conditioning.divided(batch)
    by_number = conditioning.divided(replace(batch, num_labelled=2))
    for rows, others in zip(by_labels, by_number, strict=True):
        assert torch.equal(labels[rows], labels[others])


# ---- projection (arXiv:1802.05637)


def test_a_projection_adds_the_inner_product_of_features_and_embedding() -> None:
    model = make_gan(SPEC, conditioning=ClassProjection())
    batch = make_batch(SPEC, 5)
    critic, images = model.discriminator, 2 * batch.images - 1
    network_sees: list[Tensor] = []
    critic.network.register_forward_pre_hook(lambda _, given: network_sees.append(given[1]))
    features, outputs = critic(images, F.one_hot(batch.labels, 3).float())
    assert network_sees[0].shape == (5, 0), "the class is no input of the network"
    psi = features @ critic.output.weight[0] + critic.output.bias
    embedded = critic.embedding.weight.t()[batch.labels]  # (B, F)
    torch.testing.assert_close(outputs[:, 0], psi + (embedded * features).sum(1))
    torch.testing.assert_close(model.evaluate(batch)["score_real"], outputs[:, 0])
    unlabelled = critic(images, torch.zeros(5, 3)).outputs[:, 0]
    torch.testing.assert_close(unlabelled, psi)


def test_a_pack_projects_the_sum_of_its_embeddings() -> None:
    model = make_gan(SPEC, conditioning=ClassProjection(), pack=2)
    critic, images = model.discriminator, torch.randn(4, 2, 4, 4)
    conditions = F.one_hot(torch.tensor([[0, 2], [1, 1], [2, 0], [2, 2]]), 3).float().flatten(1)
    features, outputs = critic(images, conditions)
    first, second = critic.embedding.weight.t().split(3)
    embedded = conditions[:, :3] @ first + conditions[:, 3:] @ second
    expected = critic.output(features)[:, 0] + (embedded * features).sum(1)
    torch.testing.assert_close(outputs[:, 0], expected)
    for phase in model.phases():
        assert torch.isfinite(phase.loss(make_batch(SPEC, 4)).value)


def test_the_embedding_is_spectrally_normalised_as_every_layer_is() -> None:
    model = make_gan(
        SPEC, conditioning=ClassProjection(), techniques={"sn": SpectralNormalization(num_power_iterations=20)}
    )
    model.discriminator.train()(torch.randn(2, 1, 4, 4), torch.zeros(2, 3))
    largest = torch.linalg.svdvals(model.discriminator.embedding.weight).max()
    torch.testing.assert_close(largest, torch.tensor(1.0), rtol=1e-3, atol=0)


def test_feature_matching_takes_the_features_that_no_class_has_moved() -> None:
    matching = {"matching": FeatureMatching(weight=1.0, replaces_objective=True)}
    model = make_gan(SPEC, conditioning=ClassProjection(), techniques=matching)
    batch = make_batch(SPEC, 4)
    values = []
    for scale in (0.0, 100.0):
        nn.init.constant_(model.discriminator.embedding.weight, scale)
        torch.manual_seed(1)
        values.append(model.phases()[1].loss(batch).value)
    assert torch.equal(*values)


# ---- auxiliary classifier (arXiv:1610.09585)


@pytest.mark.parametrize("labels", [[0, 2, 1, 1], [0, UNLABELLED, 1, 1]], ids=["labelled", "one unlabelled"])
def test_both_networks_maximise_the_class_term(labels: list[int]) -> None:
    """A written-out batch of four: L_S of the objective, L_C over the images with a label."""
    conditioning = AuxiliaryClassifier(real_weight=2.0, fake_weight=0.5, generator_weight=0.1)
    model = make_gan(SPEC, conditioning=conditioning)
    batch = with_labels(labels)
    empty = torch.empty(4, 0)
    torch.manual_seed(1)
    noise = model.latent.draw(4, generator=None, device=torch.device("cpu"))
    told = torch.stack([torch.eye(3)[label] if label >= 0 else torch.zeros(3) for label in labels])
    fake = model.generator(torch.cat((noise, told), 1)).tanh()
    outputs = {"real": model.discriminator(2 * batch.images - 1, empty).outputs}
    outputs["fake"] = model.discriminator(fake, empty).outputs
    named = [row for row, label in enumerate(labels) if label >= 0]
    nats = {
        kind: -sum(rows[:, 1:].log_softmax(1)[row, labels[row]] for row in named) / len(named)
        for kind, rows in outputs.items()
    }
    game = F.softplus(-outputs["real"][:, 0]).mean() + F.softplus(outputs["fake"][:, 0]).mean()
    expected = (
        game + 2 * nats["real"] + 0.5 * nats["fake"],
        F.softplus(-outputs["fake"][:, 0]).mean() + 0.1 * nats["fake"],
    )
    for phase, value in zip(model.phases(), expected, strict=True):
        torch.manual_seed(1)
        loss = phase.loss(batch)
        torch.testing.assert_close(loss.value, value)
        torch.testing.assert_close(loss.metrics["cross_entropy_fake_nats"], nats["fake"].detach())


def test_the_class_errors_of_real_and_generated_images_are_told_apart() -> None:
    """A classifier that takes every real image for class 2, and every generated one for class 0."""
    model = make_gan(SPEC, conditioning=AuxiliaryClassifier(real_weight=1.0, fake_weight=1.0, generator_weight=1.0))
    batch = with_labels([0, 2, 1, 2])
    answers = F.one_hot(torch.tensor([3] * 4 + [1] * 4), 4).float()  # behind the score, for both in one pass
    model.discriminator.output.register_forward_hook(lambda _, __, outputs: outputs * 0 + answers)
    metrics = model.phases()[0].loss(batch).metrics
    assert (metrics["class_error_real"].item(), metrics["class_error_fake"].item()) == (0.5, 0.75)


def test_the_auxiliary_classifier_is_measured_as_a_classifier_and_reads_single_images() -> None:
    conditioning = AuxiliaryClassifier(real_weight=1.0, fake_weight=1.0, generator_weight=1.0)
    model = make_gan(SPEC, conditioning=conditioning)
    batch = make_batch(SPEC, 6)
    measures = model.evaluate(batch)
    outputs = model.discriminator(2 * batch.images - 1, torch.empty(6, 0)).outputs
    torch.testing.assert_close(measures["score_real"], outputs[:, 0])
    assert torch.equal(measures["error"], (outputs[:, 1:].argmax(1) != batch.labels).float())
    with pytest.raises(ValueError, match=r"model\.pack must be 1 with AuxiliaryClassifier"):
        make_gan(SPEC, conditioning=conditioning, pack=2)
    with pytest.raises(ValueError, match=r"conditioning\.fake_weight must be between 0"):
        AuxiliaryClassifier(real_weight=1.0, fake_weight=-1.0, generator_weight=1.0)


@pytest.mark.parametrize(
    "conditioning",
    [
        ClassLabels(),
        ClassProjection(),
        AuxiliaryClassifier(real_weight=1.0, fake_weight=1.0, generator_weight=1.0),
    ],
)
def test_a_class_grid_has_one_class_in_each_row_and_one_noise_in_each_column(conditioning: Conditioning) -> None:
    model = make_gan(SPEC, conditioning=conditioning)
    rows = class_grid(model.latent, conditioning, 9, generator=None, device=torch.device("cpu")).view(3, 3, 6)
    assert torch.equal(rows[:, :, 3:], torch.eye(3)[:, None].expand(3, 3, 3))
    assert torch.equal(rows[:, :, :3], rows[:1, :, :3].expand(3, 3, 3))
    assert model.visualize(None, num_samples=9)["class_grid"].shape == (9, 1, 4, 4)


def _course(labelled_error: float, distances: list[float], errors: list[float]) -> list[dict[str, float]]:
    tags = ClassPrediction.followed
    return [
        dict(zip(tags, (labelled_error, distance, error), strict=True))
        for distance, error in zip(distances, errors, strict=True)
    ]


def test_a_game_that_teaches_nothing_is_warned_of() -> None:
    """The courses of docs/gans.md: a generator that saturates, one that settles, and labels that are still learned."""
    conditioning = ClassPrediction(game_weight=0.5)
    diverging, settled = [400.0, 835.0, 866.0], [39.0, 39.0, 35.0]
    warning = conditioning.warning_in_training(_course(0.0, diverging, [0.27, 0.28, 0.275]))
    assert warning is not None
    assert "validation/error has not fallen (0.27, now 0.275)" in warning
    assert conditioning.warning_in_training(_course(0.0, diverging[:2], [0.27, 0.28])) is None
    assert conditioning.warning_in_training(_course(0.0, diverging, [0.27, 0.2, 0.15])) is None
    assert conditioning.warning_in_training(_course(0.0, settled, [0.2, 0.2, 0.2])) is None
    assert conditioning.warning_in_training(_course(0.3, diverging, [0.27, 0.28, 0.275])) is None
