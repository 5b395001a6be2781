"""Properties of every autoregressive model: a distribution, its order, its measures, its pictures."""

import functools
import math
from dataclasses import replace
from typing import Any
from unittest import mock

import pytest
import torch
from torch import Tensor

from genlab.checks.autoregressive import completion_keeps_what_is_given, influence
from genlab.checks.likelihood import every_image, log_total_probability
from genlab.checks.subject import Subject
from genlab.models.pixelcnn.autoregressive import AutoregressiveModel
from genlab.models.pixelcnn.blocks import PixelCNNBlocks
from genlab.models.pixelcnn.gated import GatedPixelCNN
from genlab.models.pixelcnn.pixelcnn import PixelCNN
from genlab.models.pixelcnn.plus_plus import PixelCNNPP
from genlab.models.ranges import require_images
from genlab.nn.masked import BatchNorm
from genlab.training.evaluation import average_measures
from genlab.types import UNLABELLED, Batch
from tests.models.pixelcnn.tiny_autoregressive import MODELS, make
from tests.models.tiny import make_batch, make_spec, randomize


@pytest.mark.parametrize("kind", MODELS)
@pytest.mark.parametrize(
    "facts",
    [
        {"height": 2, "width": 2},
        {"height": 2, "width": 4},
        {"height": 2, "width": 2, "num_levels": 4},
        {"height": 2, "width": 2, "channels": 2},
    ],
    ids=str,
)
def test_probabilities_of_all_images_sum_to_one(kind, facts):
    spec = make_spec(**facts)
    model = make(kind, spec)
    nats = model.evaluate(every_image(spec))["nll_nats"]
    assert torch.logsumexp(-nats, 0).item() == pytest.approx(0, abs=2e-5)
    assert log_total_probability(model, spec, "nll_nats") == (pytest.approx(0, abs=2e-5), len(nats))
    assert nats.std() > 0.01  # and not because it is uniform


@pytest.mark.parametrize("kind", [PixelCNN, GatedPixelCNN, PixelCNNPP])
def test_probabilities_of_all_colour_pixels_sum_to_one(kind):
    spec = make_spec(channels=3, height=1, width=2)
    model = make(kind, spec, **({"blocks_down": [1]} if kind is PixelCNNPP else {}))
    assert torch.logsumexp(-model.evaluate(every_image(spec))["nll_nats"], 0).item() == pytest.approx(0, abs=2e-5)


@pytest.mark.parametrize("kind", MODELS)
def test_no_symbol_sees_itself_or_a_later_one_and_all_earlier_rows_matter(kind):
    model = make(kind, make_spec(channels=1 if kind is PixelCNNBlocks else 2, num_levels=3 - (kind is PixelCNNBlocks)))
    batch = make_batch(model.spec, 1)
    moved = influence(model, batch)  # row: the symbol that is touched; column: the prediction
    assert moved.tril().max() <= 1e-5
    first_row = model.grid[1] * model.num_symbols
    assert (moved.triu(1)[:first_row].amax(1) > 1e-5)[: len(moved) - 1].all()


@pytest.mark.parametrize("kind", MODELS)
def test_loss_is_the_mean_of_the_measure_and_names_carry_units(kind):
    model = make(kind)
    batch = make_batch(model.spec, 5)
    (phase,) = model.phases()
    loss = phase.loss(batch)
    measured = model.evaluate(batch)
    assert phase.name == "model"
    assert set(loss.metrics) == set(measured) == {"nll_nats", "bits_per_dim"}
    torch.testing.assert_close(loss.value, measured["nll_nats"].mean())
    torch.testing.assert_close(measured["bits_per_dim"], measured["nll_nats"] / (16 * math.log(2)))
    loss.value.backward()
    assert all(parameter.grad is not None for parameter in model.parameters())


@pytest.mark.parametrize("kind", [PixelCNN, GatedPixelCNN])
def test_a_uniform_model_has_exactly_8_bits_per_dimension_whatever_the_last_batch(kind):
    """The division by the wrong number of batches printed 2.95 for what was about 2.93."""
    model = make(kind, make_spec(num_levels=256, height=3, width=3))
    for parameter in model.parameters():
        parameter.data.zero_()
    batches = [make_batch(model.spec, size) for size in (4, 4, 1)]
    averages = average_measures(model.evaluate, batches)
    assert averages["bits_per_dim"].mean == pytest.approx(8, abs=1e-5)
    assert averages["bits_per_dim"].num_examples == 9


@pytest.mark.parametrize("num_levels", [2, 3, 17, 256])
def test_levels_are_recovered_by_rounding(num_levels):
    """ceil(x * 255) turns some of 256 levels into their neighbours; any-non-zero-is-one is wrong for two."""
    model = make(PixelCNN, make_spec(num_levels=num_levels, height=16, width=16))
    levels = torch.arange(256).remainder(num_levels).view(1, 1, 16, 16)
    images = levels / (num_levels - 1)
    assert torch.equal(model.to_symbols(images), levels)
    assert torch.equal(model.to_symbols((images + 1e-4).clamp(max=1)), levels)
    assert torch.equal(model.to_images(levels), images)


def test_evaluation_ignores_training_mode_and_puts_it_back():
    model = make(PixelCNN, normalization=BatchNorm).train()
    model.network.blocks[0].eval()
    batch = make_batch(model.spec, 4)
    alone = Batch(images=batch.images[:1], labels=batch.labels[:1])
    torch.testing.assert_close(model.evaluate(batch)["nll_nats"][:1], model.evaluate(alone)["nll_nats"])
    assert model.training
    assert not model.network.blocks[0].training
    assert model.network.blocks[1].training


@pytest.mark.parametrize("kind", MODELS)
def test_samples_have_the_models_probabilities(kind):
    """Frequencies of the sixteen binary 2x2 images among many samples against their exact probabilities."""
    spec = make_spec(height=2, width=2)
    model = make(kind, spec)
    randomize(model, 1.0)
    images = model.sample(4000, generator=torch.Generator().manual_seed(0))
    index = (images.flatten(1).long() * torch.tensor([8, 4, 2, 1])).sum(1)
    expected = (-model.evaluate(every_image(spec))["nll_nats"]).exp()
    observed = index.bincount(minlength=16) / 4000
    assert (expected - 1 / 16).abs().max() > 0.05, "far from equal, so that a sampler without the model would fail"
    assert ((observed - expected).abs() < 4 * (expected * (1 - expected) / 4000).sqrt() + 1e-3).all()


@pytest.mark.parametrize("kind", MODELS)
def test_completion_keeps_given_pixels_and_depends_on_nothing_else(kind):
    subject = Subject(make=functools.partial(make, kind), spec=make_spec(height=4, width=4))
    assert completion_keeps_what_is_given(subject).result == "held"


def test_completion_draws_from_the_conditional_distribution():
    spec = make_spec(height=2, width=2)
    model = make(PixelCNN, spec)
    given = torch.tensor([1.0, 0.0]).view(1, 1, 1, 2)
    images = torch.cat((given, torch.zeros(1, 1, 1, 2)), 2).expand(4000, -1, -1, -1)
    completed = model.complete(images, 1, generator=torch.Generator().manual_seed(0))
    observed = (completed[:, 0, 1].long() * torch.tensor([2, 1])).sum(1).bincount(minlength=4) / 4000
    joint = (-model.evaluate(every_image(spec))["nll_nats"]).exp()[8:12]  # images that begin with 1, 0
    assert (observed - joint / joint.sum()).abs().max() < 4 * (0.25 / 4000) ** 0.5


def test_completion_takes_any_prefix_of_the_order_and_nothing_else():
    model = make(PixelCNN)
    images = make_batch(model.spec, 2).images
    prefix = torch.arange(16).view(4, 4) < 6
    assert torch.equal(model.complete(images, prefix)[:, :, prefix], images[:, :, prefix])
    with pytest.raises(
        ValueError, match=r"raster order: the hidden pixel at row 0, column 0 .* at row 1, column 2; given_rows=0"
    ):
        model.complete(images, ~prefix)
    with pytest.raises(ValueError, match="between 0 and 4 rows"):
        model.complete(images, 5)
    with pytest.raises(ValueError, match=r"whole 2x2 blocks.* at row 0, column 0 is partly given"):
        make(PixelCNNBlocks).complete(images, 1)


def test_low_temperature_draws_the_most_probable_levels():
    model = make(PixelCNN, make_spec(num_levels=4))
    cold = model.sample(3, temperature=1e-4)
    logits = model.logits(model.to_symbols(cold), torch.full((3,), UNLABELLED))
    assert torch.equal(logits.argmax(2), model.to_symbols(cold))
    for temperature in (0.0, -1.0, math.inf, math.nan, -1e-40):
        with pytest.raises(ValueError, match="temperature must be positive"):
            model.sample(1, temperature=temperature)


def test_completions_are_as_cold_as_they_are_asked_for():
    model = make(PixelCNN)
    images = make_batch(model.spec, 3).images
    generator = torch.Generator().manual_seed(0)
    for method in ("incremental", "parallel"):
        cold, again, warm, other = (
            model.complete(images, 1, temperature=temperature, generator=generator, method=method)
            for temperature in (1e-4, 1e-4, 1.0, 1.0)
        )
        assert torch.equal(cold, again)
        assert not torch.equal(warm, other)
    pictures = model.visualize_given(Batch(images=images, labels=torch.full((3,), UNLABELLED)), temperature=1e-4)
    _, first, second, _ = pictures["completions"].unflatten(0, (-1, 4)).unbind(1)
    assert torch.equal(first, second)


def test_a_completion_is_of_the_classes_that_are_asked_for():
    spec = make_spec(num_classes=3)
    model = make(GatedPixelCNN, spec, class_conditional=True)
    images, labels = make_batch(spec, 3).images, torch.tensor([2, 0, 1])
    drawn = [
        draw(labels=labels, generator=torch.Generator().manual_seed(0))
        for draw in (functools.partial(model.complete, images, 0), functools.partial(model.sample, 3))
    ]
    assert torch.equal(*drawn)


@pytest.mark.parametrize(("label", "of_table"), [(None, [[0, 0, 1, 1]]), (1, [])])
def test_pictures_are_of_the_class_and_the_given_rows_that_are_asked_for(label: int | None, of_table: list[list[int]]):
    spec = make_spec(num_classes=2)
    model = make(GatedPixelCNN, spec, class_conditional=True)
    with (
        mock.patch.object(model, "sample", wraps=model.sample) as sample,
        mock.patch.object(model, "visualize_given", return_value={}) as completed,
    ):
        model.visualize(make_batch(spec, 4), num_samples=4, label=label, given=1, temperature=0.5)
    of_samples, *others = (call.kwargs["labels"] for call in sample.call_args_list)
    assert of_samples is None if label is None else of_samples.tolist() == [label] * 4
    assert [labels.tolist() for labels in others] == of_table  # a class a row
    assert {call.kwargs["temperature"] for call in (*sample.call_args_list, completed.call_args)} == {0.5}
    assert {key: completed.call_args.kwargs[key] for key in ("label", "given")} == {"label": label, "given": 1}


def test_half_of_an_odd_number_of_blocks_is_whole_blocks():
    model = make(PixelCNNBlocks, make_spec(height=6))
    pictures = model.visualize_given(make_batch(model.spec, 1))
    assert pictures["completions"][0, 0].eq(0.5).all(1).tolist() == [False] * 2 + [True] * 4


@pytest.mark.parametrize("kind", MODELS)
def test_extreme_temperatures_draw_the_likeliest_and_any_levels(kind):
    """Logits divided by 1e-40 overflow, and softmax makes NaN of them: every pixel the last level."""
    model = make(kind, make_spec(height=2, width=2))
    modes = model.sample(3, temperature=1e-3)
    for temperature in (1e-30, 1e-40, 1e-300, 5e-324):
        assert torch.equal(model.sample(3, temperature=temperature), modes)
    generator = [torch.Generator().manual_seed(0) for _ in range(3)]
    hot, hotter, hottest = (
        model.sample(20, temperature=temperature, generator=g)
        for temperature, g in zip((1e20, 1e40, 1e300), generator, strict=True)
    )
    assert torch.equal(hot, hotter)
    assert torch.equal(hot, hottest)
    assert len(hot.unique()) == model.spec.num_levels


@pytest.mark.parametrize("kind", MODELS)
def test_entropy_is_bounded_and_that_of_the_prediction(kind):
    model = make(kind)
    batch = make_batch(model.spec, 2)
    entropy = model.entropy_map(batch)
    logits = model.logits(model.to_symbols(batch.images), batch.labels)
    expected = torch.distributions.Categorical(logits=logits.movedim(2, -1)).entropy()
    torch.testing.assert_close(entropy, expected, atol=1e-5, rtol=1e-4)
    assert (entropy <= math.log(model.num_values) + 1e-6).all()


@pytest.mark.parametrize("kind", [GatedPixelCNN, PixelCNNPP])
def test_labels_are_used_where_asked_for_and_refused_elsewhere(kind):
    spec = make_spec(num_classes=3)
    model = make(kind, spec, class_conditional=True)
    images = make_batch(spec, 1).images.expand(4, -1, -1, -1)
    labels = torch.tensor([0, 1, 2, UNLABELLED])
    nats = model.evaluate(Batch(images=images, labels=labels))["nll_nats"]
    assert len(nats.unique()) == 4
    assert model.measures["nll_nats"].quantity == "nll_nats_given_class", "ranked with none of the image alone"
    assert make(kind, spec).measures["nll_nats"].quantity == "nll_nats"
    with pytest.raises(ValueError, match="classes between 0 and 2"):
        model.sample(2, labels=torch.tensor([0, 3]))
    with pytest.raises(ValueError, match="not class-conditional"):
        make(kind, spec).sample(2, labels=torch.tensor([0, 1]))
    with pytest.raises(ValueError, match="needs images with labels"):
        make(kind, make_spec(), class_conditional=True)


@pytest.mark.parametrize("kind", MODELS)
def test_pictures(kind):
    spec = make_spec(height=4, width=4, num_classes=0 if kind in (PixelCNN, PixelCNNBlocks) else 2)
    conditional = {"class_conditional": True} if spec.num_classes else {}
    model = make(kind, spec, **conditional)
    batch = make_batch(spec, 8)
    pictures = model.visualize(batch, num_samples=8, generator=torch.Generator().manual_seed(0))
    assert set(pictures) == {"samples", "film", "completions", "entropy"} | ({"class_grid"} if conditional else set())
    assert all(picture.min() >= 0 and picture.max() <= 1 for picture in pictures.values())
    film = pictures["film"]
    assert torch.equal(film[-1], pictures["samples"])
    assert film[0].eq(0.5).all()
    assert torch.equal(film[len(film) // 2][:, :, :2], pictures["samples"][:, :, :2])
    assert film[len(film) // 2][:, :, 2:].eq(0.5).all()
    shown, first, second, original = pictures["completions"].unflatten(0, (-1, 4)).unbind(1)
    assert torch.equal(original, batch.images[:2])
    for completed in (shown, first, second):
        assert torch.equal(completed[:, :, :2], original[:, :, :2])
    assert set(model.visualize(None, num_samples=2)) >= {"samples", "film"}
    given = torch.arange(4)[:, None].lt(2) | (torch.arange(16).view(4, 4) < 10) & (kind is not PixelCNNBlocks)
    pictures = model.visualize_given(batch, given=given)
    shown, first, _, original = pictures["completions"].unflatten(0, (-1, 4)).unbind(1)
    assert torch.equal(original, batch.images)
    assert shown[:, :, ~given].eq(0.5).all()
    assert torch.equal(first[:, :, given], original[:, :, given])
    assert len(pictures["entropy"]) == 16


def test_an_unlabelled_image_leaves_the_classes_of_the_others_in_completions() -> None:
    spec = make_spec(num_classes=3)
    model = make(GatedPixelCNN, spec, class_conditional=True)
    asked: list[Tensor] = []
    complete = model.complete

    def noted(*arguments: Any, labels: Tensor, **options: Any) -> Tensor:
        asked.append(labels)
        return complete(*arguments, labels=labels, **options)

    model.complete = noted  # type: ignore[method-assign]
    labels = torch.tensor([2, 0, UNLABELLED, 1] + [UNLABELLED] * 20)
    images = make_batch(spec, len(labels)).images
    model.visualize_given(Batch(images=images, labels=labels), generator=torch.Generator().manual_seed(0))
    (classes,) = asked
    known = labels.repeat_interleave(2) != UNLABELLED
    assert classes[known].tolist() == [2, 2, 0, 0, 1, 1]
    assert set(classes[~known].tolist()) == {0, 1, 2}


def test_entropies_of_a_class_conditional_model_are_those_of_images_with_a_class() -> None:
    spec = make_spec(num_classes=3)
    model = make(GatedPixelCNN, spec, class_conditional=True)
    images, labels = make_batch(spec, 3).images, torch.tensor([2, UNLABELLED, 1])
    pictures = model.visualize_given(Batch(images=images, labels=labels))
    assert torch.equal(pictures["entropy"][::2], images[[0, 2]])
    expected = model.visualize_given(Batch(images=images[[0, 2]], labels=labels[[0, 2]]))
    assert torch.equal(pictures["entropy"], expected["entropy"])
    unlabelled = Batch(images=images, labels=torch.full((3,), UNLABELLED))
    assert set(model.visualize_given(unlabelled)) == {"completions"}
    assert len(model.visualize_given(unlabelled, label=1)["entropy"]) == 6
    assert len(make(GatedPixelCNN, spec).visualize_given(unlabelled)["entropy"]) == 6


def test_progress_is_shown_when_asked_for(capsys):
    model = make(PixelCNN)
    model.sample(2)
    assert capsys.readouterr().err == ""
    model.sample(2, progress=True)
    assert "2 images" in capsys.readouterr().err


@pytest.mark.parametrize("kind", [GatedPixelCNN, PixelCNNPP])
def test_images_of_another_size_and_labels_of_no_class_are_refused(kind: type[AutoregressiveModel]) -> None:
    spec = make_spec(num_classes=3)
    model = make(kind, spec, class_conditional=True)
    batch = make_batch(spec, 2)
    for label in (-2, 3, 5):
        with pytest.raises(ValueError, match="labels must be between 0 and 2, or -1 without a class"):
            model.evaluate(replace(batch, labels=torch.full((2,), label)))
    with pytest.raises(ValueError, match="images must be of the shape"):
        model.evaluate(replace(batch, images=batch.images.repeat(1, 1, 2, 2)))
    with pytest.raises(ValueError, match=r"images must be in \[0, 1\]"):
        model.evaluate(replace(batch, images=batch.images * 2 - 1))
    with pytest.raises(ValueError, match="some values lie between two levels"):
        model.evaluate(replace(batch, images=batch.images * 0.9))


def test_every_level_of_256_is_one() -> None:
    levels = torch.arange(256).view(1, 1, 16, 16)
    spec = make_spec(height=16, width=16, num_levels=256)
    for images in (levels / 255, levels.float() * (1 / 255), (levels.double() / 255).float()):
        require_images(images, spec)
    with pytest.raises(ValueError, match=r"some values lie between two levels$"):
        require_images((levels / 255 + 1e-3).clamp(max=1), spec)
