"""Pairing and packing against a batch of four that is written out by hand."""

import math
import re

import pytest
import torch
from torch import Tensor

from genlab.errors import ConfigurationError
from genlab.models.gan.conditioning import ClassLabels
from genlab.models.gan.gan import GAN
from genlab.models.gan.objectives import Relativistic, SmoothedObjective
from genlab.models.gan.packs import packed
from genlab.models.gan.techniques.zero_centered_penalty import R1Penalty
from genlab.types import Batch
from tests.models.gan.test_infogan import make_codes
from tests.models.gan.tiny import gradients, make_gan
from tests.models.tiny import make_batch, make_spec
from tests.training.conftest import make_settings


def softplus(x: float) -> float:
    return math.log1p(math.exp(x))


def test_a_relativistic_loss_is_of_the_pairs_of_the_batch() -> None:
    real, fake = torch.tensor([1.0, -2.0, 0.5, 3.0]), torch.tensor([0.0, 1.0, 0.5, -1.0])
    expected = (softplus(-1.0) + softplus(3.0) + softplus(0.0) + softplus(-4.0)) / 4
    objective = Relativistic()
    assert objective.discriminator_loss(real, fake).item() == pytest.approx(expected)
    assert objective.discriminator_loss(real + 50, fake + 50).item() == pytest.approx(expected)
    assert objective.margins(real, fake).tolist() == [1.0, -3.0, 0.0, 4.0]
    smoothed = SmoothedObjective(objective, real_target=0.9)
    exchanged = (softplus(1.0) + softplus(-3.0) + softplus(0.0) + softplus(4.0)) / 4
    assert smoothed.discriminator_loss(real, fake).item() == pytest.approx(0.9 * expected + 0.1 * exchanged)


@pytest.mark.parametrize("phase", [0, 1])
def test_both_phases_of_a_relativistic_gan_compare_generated_images_with_real_ones(phase: int) -> None:
    model = make_gan(objective=Relativistic())
    images: list[Tensor] = []
    model.generator.register_forward_hook(lambda _, given, made: images.append(model.output(made)))
    batch = make_batch(model.spec, 4)
    loss = model.phases()[phase].loss(batch)
    empty = torch.empty(4, 0)
    real, fake = (model.discriminator(x, empty).outputs[:, 0] for x in (2 * batch.images - 1, images[0]))
    sign = 1 if phase else -1
    expected = sum(softplus(sign * (r - f)) for r, f in zip(real.tolist(), fake.tolist(), strict=True)) / 4
    assert loss.value.item() == pytest.approx(expected, rel=1e-5)
    found = gradients(model, loss.value)
    assert any(bool(gradient.any()) for name, gradient in found.items() if name.startswith("generator.")) == bool(phase)


def packed_gan(**changes: object) -> GAN:
    return make_gan(make_spec(channels=2, num_classes=3), pack=2, **changes)


def test_a_pack_joins_images_and_conditions_along_the_channels() -> None:
    """Of four images, the first with the third and the second with the fourth."""
    model = packed_gan(conditioning=ClassLabels())
    seen: list[tuple[Tensor, Tensor]] = []
    model.discriminator.network.register_forward_pre_hook(lambda _, given: seen.append(given))
    images = torch.rand(4, 2, 4, 4)
    batch = Batch(images=images, labels=torch.tensor([0, 1, 2, 0]))
    loss = model.phases()[0].loss(batch)
    (seen_images, conditions), x = seen[0], 2 * images - 1
    assert seen_images.shape == (4, 4, 4, 4), "two packs of real images, two of generated ones"
    torch.testing.assert_close(seen_images[:2], torch.stack((torch.cat((x[0], x[2])), torch.cat((x[1], x[3])))))
    assert conditions[:2].tolist() == [[1, 0, 0, 0, 0, 1], [0, 1, 0, 1, 0, 0]]
    assert conditions[2:].equal(conditions[:2])
    scores = model.discriminator(seen_images, conditions).outputs[:, 0].tolist()
    expected = (softplus(-scores[0]) + softplus(-scores[1]) + softplus(scores[2]) + softplus(scores[3])) / 2
    assert loss.value.item() == pytest.approx(expected, rel=1e-5)
    plain = make_gan(make_spec(channels=2, num_classes=3), conditioning=ClassLabels())
    shapes = [{name: p.shape for name, p in gan.named_parameters()} for gan in (model, plain)]
    assert [name for name in shapes[0] if shapes[0][name] != shapes[1][name]] == [
        "discriminator.network.layers.0.weight"
    ]


def test_processes_make_the_packs_of_one() -> None:
    """Process r of two holds the rows r, r + 2, ...: the packs of both are those of the whole batch."""
    rows = torch.arange(8.0)[:, None]
    together = {tuple(pack) for pack in packed(rows, 2).tolist()}
    apart = {tuple(pack) for rank in (0, 1) for pack in packed(rows[rank::2], 2).tolist()}
    assert apart == together


@pytest.mark.parametrize("num_images", [1, 4, 5])
def test_each_image_of_a_pack_is_measured_by_the_score_of_its_pack(num_images: int) -> None:
    model = packed_gan()
    scores = model.evaluate(make_batch(model.spec, num_images))["score_real"]
    assert scores.shape == (num_images,)
    if num_images == 4:
        assert scores[:2].equal(scores[2:])
        assert scores[0] != scores[1]
    assert model.couples_images


def test_a_pack_that_does_not_divide_the_batch_is_refused_with_a_hint() -> None:
    model = packed_gan()
    settings = make_settings(batch_size=6, gradient_accumulation=2)
    rule = "trainer.batch_size must be a multiple of 4 (1 process with trainer.gradient_accumulation=2, groups of 2"
    with pytest.raises(ConfigurationError, match=re.escape(rule) + r".*such as 4 or 8, got 6"):
        settings.require_divisible_batches(1, group_size=model.group_size)
    settings.require_divisible_batches(1)
    with pytest.raises(ValueError, match=r"model\.pack must divide the 5 images of a batch, got 2"):
        model.phases()[0].loss(make_batch(model.spec, 5))


def test_what_needs_single_images_or_fresh_ones_is_refused() -> None:
    with pytest.raises(ValueError, match=r"model\.pack must be 1 with HiddenCodes"):
        packed_gan(conditioning=make_codes())
    with pytest.raises(
        ValueError, match=r"model\.generator_repeats must be 1 with model\.reuses_generated=true, got 2"
    ):
        make_gan(generator_repeats=2, reuses_generated=True)


def test_the_generator_is_updated_as_often_as_asked() -> None:
    assert [phase.repeats for phase in make_gan(n_critic=3, generator_repeats=2).phases()] == [3, 2]


def test_a_penalty_of_packs_is_of_the_slope_by_all_their_images() -> None:
    model = make_gan(make_spec(channels=2), R1Penalty(weight=2.0, interval=1), pack=2)
    batch = make_batch(model.spec, 4)
    x = packed(2 * batch.images - 1, 2).requires_grad_(True)
    (slopes,) = torch.autograd.grad(model.discriminator(x, torch.empty(2, 0)).outputs.sum(), x)
    penalty = model.phases()[0].loss(batch).metrics["r1_penalty_slope_squared"].item()
    assert penalty == pytest.approx(slopes.square().sum().item() / 2, rel=1e-5)
