"""Augmentation of the images that the discriminator sees: distribution, gradient, and adaptive probability."""

from collections.abc import Callable

import pytest
import torch
from torch import Tensor

from genlab.models.gan.output import Sigmoid
from genlab.models.gan.techniques.adaptive_augment import AdaptiveAugment
from genlab.models.gan.techniques.augmentation import cut_out, rounded_shifts, translated, turned, whole_shifts
from genlab.models.gan.techniques.base import ImageTechnique
from genlab.models.gan.techniques.diff_augment import DiffAugment
from genlab.models.gan.techniques.instance_noise import InstanceNoise
from tests.models.gan.tiny import make_gan
from tests.models.tiny import make_batch, make_spec


def diff_augment(**changes: float) -> DiffAugment:
    settings = {"brightness": 0.5, "saturation": 1.0, "contrast": 0.5, "translation": 0.125, "cutout": 0.5}
    return DiffAugment(**(settings | changes))


def adaptive_augment(probability: float = 0.0, **changes: float) -> AdaptiveAugment:
    settings = {"target": 0.6, "images_to_one": 100, "max_probability": 0.8}
    technique = AdaptiveAugment(**(settings | changes))  # type: ignore[arg-type]
    technique.probability.fill_(probability)
    return technique


EVERY: list[Callable[[], ImageTechnique]] = [
    diff_augment,
    lambda: adaptive_augment(0.7),
    lambda: InstanceNoise(std=0.3),
]


@pytest.mark.parametrize("make", EVERY)
def test_gradients_flow_through_to_the_generated_images(make: Callable[[], ImageTechnique]) -> None:
    technique = make()

    def transform(images: Tensor) -> Tensor:
        torch.manual_seed(3)
        return technique.transform(images)

    images = torch.randn(3, 3, 8, 8, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(transform, images, fast_mode=True)


@pytest.mark.parametrize("make", EVERY)
def test_each_image_gets_draws_of_its_own_by_one_law(make: Callable[[], ImageTechnique]) -> None:
    technique, image = make(), torch.rand(1, 3, 8, 8) * 2 - 1
    first, second = (technique.transform(image.expand(4000, -1, -1, -1)) for _ in range(2))
    assert not torch.equal(first, second)
    assert (first.flatten(1).std(0) > 0.05).all()
    for moment in (1, 2):
        difference = first.pow(moment).mean(0) - second.pow(moment).mean(0)
        error = (first.pow(moment).var(0) + second.pow(moment).var(0)).div(4000).sqrt()
        assert (difference.abs() < 5 * error).all()


class Marked(ImageTechnique):
    """Adds 10, by which everything that was transformed is known."""

    def transform(self, images: Tensor) -> Tensor:
        return images + 10


def test_all_that_the_discriminator_sees_in_training_is_transformed_and_nothing_else() -> None:
    model = make_gan(None, Marked())
    seen: list[Tensor] = []
    model.discriminator.network.register_forward_pre_hook(lambda _, given: seen.append(given[0]))
    batch = make_batch(model.spec, 5)
    for phase in model.phases():
        phase.loss(batch)
    assert [len(images) for images in seen] == [10, 5], "real and generated ones, then generated ones"
    assert all(bool((images > 8.9).all()) for images in seen)
    seen.clear()
    model.evaluate(batch)
    assert all(bool((images < 1.1).all()) for images in seen)
    assert model.sample(3).max() <= 1


def test_a_network_whose_black_is_zero_gets_the_same_pictures() -> None:
    spec = make_spec(num_levels=5)
    plain, shifted = make_gan(spec, diff_augment()), make_gan(spec, diff_augment(), output=Sigmoid())
    batch, seen = make_batch(plain.spec, 4), []
    for model in (plain, shifted):
        torch.manual_seed(1)
        images, _, _ = model._split(batch)[0]
        seen.append(model.output.to_unit(images))
    torch.testing.assert_close(seen[0], seen[1])


# ---- the transformations


def test_translation_brings_in_zeros_or_the_reflection() -> None:
    image = torch.tensor([[1.0, 2.0, 3.0], [4.0, 5.0, 6.0]]).view(1, 1, 2, 3)
    down, right = torch.tensor([1]), torch.tensor([-1])
    assert translated(image, down, right, reflects=False).tolist() == [[[[0, 0, 0], [2, 3, 0]]]]
    assert translated(image, down, right, reflects=True).tolist() == [[[[5, 6, 5], [2, 3, 2]]]]
    assert translated(image, down * 0, right * 0, reflects=True).equal(image)


def test_a_cut_out_rectangle_is_zero_and_may_lie_partly_outside() -> None:
    images = torch.ones(2, 1, 4, 4)
    cut = cut_out(images, torch.tensor([2, 4]), torch.tensor([2, 0]), height=2, width=2)
    assert cut[0, 0].tolist() == [[1, 1, 1, 1], [1, 0, 0, 1], [1, 0, 0, 1], [1, 1, 1, 1]]
    assert cut[1, 0].tolist() == [[1, 1, 1, 1], [1, 1, 1, 1], [1, 1, 1, 1], [0, 1, 1, 1]]


@pytest.mark.parametrize("width", [4, 5])
def test_quarter_turns_are_those_of_torch_and_half_ones_where_the_sides_differ(width: int) -> None:
    images = torch.randn(4, 1, 4, width)
    seen = turned(images, torch.arange(4))
    for number in range(4):
        quarters = number if width == 4 else 2 * (number == 2)
        assert torch.equal(seen[number], torch.rot90(images[number], quarters, (1, 2)))


def test_colours_stay_within_the_ranges_of_the_paper() -> None:
    """Brightness within 0.5, saturation within twice the distance to grey, contrast between a half and three halves."""
    off = dict.fromkeys(("brightness", "saturation", "contrast", "translation", "cutout"), 0.0)
    image = torch.rand(1, 3, 4, 4, dtype=torch.float64)
    many = image.expand(2000, -1, -1, -1)
    added = DiffAugment(**(off | {"brightness": 0.5})).transform(many) - image
    torch.testing.assert_close(added, added[:, :1, :1, :1].expand_as(added))
    assert -0.5 <= added.min() < -0.49
    assert 0.49 < added.max() <= 0.5
    for name, center, low, high in (
        ("saturation", image.mean(1, keepdim=True), 0.0, 2.0),
        ("contrast", image.mean(), 0.5, 1.5),
    ):
        strength = 1.0 if name == "saturation" else 0.5
        seen = DiffAugment(**(off | {name: strength})).transform(many)
        factor = ((seen - center) * (image - center)).sum((1, 2, 3)) / (image - center).square().sum()
        torch.testing.assert_close(seen, center + factor[:, None, None, None] * (image - center))
        assert low <= factor.min() < low + 0.01 * (high - low)
        assert high - 0.01 * (high - low) < factor.max() <= high
    assert torch.equal(DiffAugment(**off).transform(many), many)


@pytest.mark.parametrize("side", [8, 9])
def test_the_rectangle_lies_evenly_about_the_image(side: int) -> None:
    """Of nine places of a middle, three cut the first row and three the last, for an even length and an odd one."""
    off = dict.fromkeys(("brightness", "saturation", "contrast", "translation"), 0.0)
    is_cut = (DiffAugment(**off, cutout=0.5).transform(torch.ones(2000, 1, side, side)) == 0).squeeze(1)
    for dim in (1, 2):
        rows = is_cut.any(dim).double().mean(0)
        torch.testing.assert_close(rows[[0, -1]], torch.full((2,), 1 / 3).double(), rtol=0, atol=0.03)


def test_moves_are_equally_likely_up_to_a_rounded_share_of_the_side() -> None:
    """An eighth of 28 pixels, 3.5, is 4."""
    uniform = (torch.arange(9000) + 0.5) / 9000
    images = torch.zeros(1, 1, 28, 16).expand(9000, -1, -1, -1)
    for shifts, most in zip(whole_shifts([uniform, uniform], images, 0.125), (4, 2), strict=True):
        counts = torch.bincount(shifts + most)
        assert counts.tolist() == [9000 // (2 * most + 1)] * (2 * most + 1)


def test_instance_noise_has_its_deviation() -> None:
    assert InstanceNoise(std=0.3).transform(torch.zeros(100, 1, 8, 8)).std().item() == pytest.approx(0.3, rel=0.05)


# ---- the probability


def test_the_probability_follows_the_sign_of_the_discriminator_on_real_images() -> None:
    """Four batches of five images move it by 20 / 100; r = 0.6 is neither above nor below."""
    technique = adaptive_augment()

    def moved_by(*margins: float) -> float:
        before = technique.probability.item()
        for number in range(4):
            assert technique.probability.item() == before, number
            logged = technique.observe(torch.tensor(margins))
        assert logged["augment_probability"].item() == technique.probability.item()
        return technique.probability.item() - before

    assert moved_by(1.0, 2.0, 3.0, 0.1, 5.0) == pytest.approx(0.2)
    assert moved_by(1.0, 2.0, 3.0, -0.1, 0.0) == pytest.approx(-0.2), "a mean sign of 0.4"
    assert moved_by(-1.0, -1.0, -1.0, -1.0, -1.0) == 0, "never below zero"
    assert [moved_by(1.0, 2.0, 3.0, 0.1, 5.0) for _ in range(5)][-1] == 0
    assert technique.probability.item() == pytest.approx(0.8), "its limit"


def test_nothing_happens_with_probability_zero_and_half_a_mirror_image_with_one() -> None:
    images = torch.rand(2000, 1, 6, 6, dtype=torch.float64)
    torch.testing.assert_close(adaptive_augment(0.0).transform(images), images, rtol=0, atol=1e-12)
    kept = (adaptive_augment(0.5).transform(images) - images).abs().amax((1, 2, 3)) < 1e-12
    # All six happen by themselves: mirror 1/2, turn 3/4, no move (of at most 0.75 pixels) (2/3)^2; saturation of grey
    # changes nothing.
    by_place = (1 - 0.5 * 1 / 2) * (1 - 0.5 * 3 / 4) * (1 - 0.5 * 5 / 9)
    assert kept.double().mean().item() == pytest.approx(by_place * 0.5 * 0.5, abs=0.03)


@pytest.mark.parametrize(("width", "upright", "upside_down"), [(8, 1 / 4, 1 / 4), (9, 1 / 2, 1 / 2)])
def test_adaptive_augmentation_turns_images_by_each_angle_that_fits_them(
    width: int, upright: float, upside_down: float
) -> None:
    """Of a slope from top to bottom, nothing but turns changes the sign of its correlation with the rows."""
    slope = torch.linspace(-1, 1, 8)[:, None].expand(8, width)
    seen = adaptive_augment(1.0).transform(slope.expand(4000, 1, 8, width))
    rise = (seen * slope).sum((1, 2, 3)) - seen.mean((1, 2, 3)) * slope.sum()
    correlation = rise / seen.flatten(1).std(1) / slope.std() / slope.numel()
    assert (correlation > 0.5).double().mean().item() == pytest.approx(upright, abs=0.03)
    assert (correlation < -0.5).double().mean().item() == pytest.approx(upside_down, abs=0.03)


def test_adaptive_augmentation_moves_images_by_a_rounded_share_of_the_side() -> None:
    """round(u / 8 of 32 pixels) for u in [-1, 1]: +-4 is half as likely as the others (the authors' program)."""
    uniform = (torch.arange(200_000) + 0.5) / 200_000
    images = torch.zeros(1, 1, 32, 28).expand(len(uniform), -1, -1, -1)
    down, right = rounded_shifts([uniform, uniform], images, 0.125)
    counts = torch.bincount(down + 4, minlength=9).double() / len(down)
    torch.testing.assert_close(counts, torch.tensor([1, 2, 2, 2, 2, 2, 2, 2, 1]).double() / 16, rtol=0, atol=4e-3)
    assert (right.min(), right.max()) == (-3, 3), "a move of 3.5 pixels has no probability"


def test_colours_of_adaptive_augmentation_have_the_deviations_of_the_paper() -> None:
    """Brightness is added, then contrast 2^c is about grey; the differences of colours grow by 2^c times saturation."""

    def changed(*colour: float) -> Tensor:
        torch.manual_seed(0)
        images = torch.tensor(colour, dtype=torch.float64)[:, None, None].expand(4000, 3, 1, 1)
        return adaptive_augment(1.0).transform(images)[:, :, 0, 0]

    grey, white, colours = changed(0, 0, 0)[:, 0], changed(1, 1, 1)[:, 0], changed(1, -1, 0)
    contrast = white - grey
    saturation = (colours[:, 0] - colours[:, 1]) / (2 * contrast)
    found = torch.stack((grey / contrast, contrast.log2(), saturation.log2()))
    torch.testing.assert_close(found.mean(1), torch.zeros(3).double(), rtol=0, atol=0.05)
    torch.testing.assert_close(found.std(1), torch.tensor([0.2, 0.5, 1.0]).double(), rtol=0.05, atol=0)


def test_adaptive_augmentation_moves_images_by_at_most_an_eighth_of_a_side() -> None:
    """A point in the middle stays there under mirror images and turns, and stays the brightest in other colours."""
    images = torch.zeros(1000, 1, 17, 17)
    images[:, :, 8, 8] = 1
    places = adaptive_augment(1.0).transform(images).flatten(1).argmax(1)
    for moves in (places // 17 - 8, places % 17 - 8):
        assert moves.unique().tolist() == [-2, -1, 0, 1, 2]


# ---- refusals


@pytest.mark.parametrize("technique", [diff_augment(), adaptive_augment()])
def test_binarised_images_are_refused(technique: ImageTechnique) -> None:
    with pytest.raises(ValueError, match=r"needs images of more than two levels.* set dataset\.binarization=none"):
        make_gan(make_spec(num_levels=2), technique)
    make_gan(make_spec(num_levels=2), InstanceNoise(std=0.1))
