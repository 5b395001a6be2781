"""The gradient penalty against a linear critic, finite differences and its own fp32 value under autocast."""

import functools
import subprocess
import sys
from dataclasses import replace

import pytest
import torch
from torch import Tensor

from genlab.checks.adversarial import FlatPixels, step_tensors
from genlab.models.gan.dcgan import DCGANDiscriminator
from genlab.models.gan.networks import BatchNorm2d
from genlab.models.gan.techniques.gradient_penalty import GradientPenalty, gradient_norms
from tests.models.gan.tiny import (
    ScaledPixels,
    make_discriminator,
    make_gan,
    make_mlp_discriminator,
)
from tests.models.tiny import assert_slope, make_batch, make_spec


@pytest.mark.parametrize("length", [0.0, 0.3, 1.0, 4.0])
def test_penalty_of_a_linear_critic(length: float) -> None:
    """The gradient of w . x is w everywhere: the penalty is (|w| - 1)^2."""
    discriminator = make_discriminator(FlatPixels(make_spec()))
    with torch.no_grad():
        discriminator.output.weight.mul_(length / discriminator.output.weight.norm())
    tensors = step_tensors(discriminator, torch.randn(5, 1, 4, 4), torch.randn(5, 1, 4, 4))
    technique = GradientPenalty(weight=10.0)
    loss = technique.discriminator_term(tensors)
    assert technique.penalty_of_slope(length) == pytest.approx(10 * (length - 1) ** 2)
    assert loss.metrics["critic_gradient_norm"].item() == pytest.approx(length, abs=1e-6)
    assert loss.metrics["gradient_penalty"].item() == pytest.approx((length - 1) ** 2, abs=1e-6)
    assert loss.value.item() == pytest.approx(10 * (length - 1) ** 2, abs=1e-5)
    loss.value.backward()
    gradient = discriminator.output.weight.grad
    assert gradient is not None
    assert torch.isfinite(gradient).all()
    if length > 0:  # d/dw (|w| - 1)^2 = 2 (|w| - 1) w / |w|
        expected = 20 * (length - 1) / length * discriminator.output.weight.detach()
        torch.testing.assert_close(gradient, expected, rtol=1e-4, atol=1e-5)


def test_every_pair_of_images_has_one_point_on_its_line() -> None:
    """Neither one coefficient per pixel nor one for the whole batch: shape (B, 1, 1, 1)."""
    network = FlatPixels(make_spec(channels=3))
    discriminator = make_discriminator(network)
    real, fake = torch.randn(500, 3, 4, 4), torch.randn(500, 3, 4, 4)
    tensors = step_tensors(discriminator, real, fake)
    network.seen.clear()
    GradientPenalty(weight=10.0).discriminator_term(tensors)
    (points,) = network.seen
    shares = ((points.detach() - fake) / (real - fake)).flatten(1)
    share = shares.median(1, keepdim=True).values
    torch.testing.assert_close(points.detach(), torch.lerp(fake, real, share[:, :, None, None]), rtol=1e-4, atol=1e-4)
    assert 0 <= share.min() < 0.02
    assert 0.98 < share.max() <= 1
    assert share.mean().item() == pytest.approx(0.5, abs=0.05)


def test_fewer_real_images_than_generated_ones_make_fewer_pairs() -> None:
    network = FlatPixels(make_spec())
    tensors = step_tensors(make_discriminator(network), torch.randn(2, 1, 4, 4), torch.randn(5, 1, 4, 4))
    GradientPenalty(weight=10.0).discriminator_term(tensors)
    assert len(network.seen[-1]) == 2


def test_the_points_on_a_line_have_the_condition_of_the_real_image() -> None:
    """The score of a condition c is c w . x, so that its slope is c |w|."""
    discriminator = make_discriminator(ScaledPixels(make_spec()))
    images = torch.randn(5, 1, 4, 4)
    tensors = replace(
        step_tensors(discriminator, images, images),
        real_conditions=torch.arange(5.0)[:, None],
        fake_conditions=torch.zeros(5, 1),
    )
    loss = GradientPenalty(weight=10.0).discriminator_term(tensors)
    length = discriminator.output.weight.norm().item()
    assert loss.metrics["critic_gradient_norm"].item() == pytest.approx(2 * length, rel=1e-5)


def test_its_gradient_is_that_of_finite_differences() -> None:
    """A derivative of a derivative, in float64."""
    discriminator = make_discriminator(make_mlp_discriminator()(spec=make_spec(), num_conditions=0)).double()
    points = torch.randn(4, 1, 4, 4, dtype=torch.float64, requires_grad=True)

    def penalty() -> Tensor:
        norms = gradient_norms(lambda x: discriminator(x, x.new_empty(4, 0)).outputs[:, 0], points)
        return (norms - 1).square().mean()

    penalty().backward()
    checked = 0
    for name, parameter in discriminator.named_parameters():
        if parameter.grad is None or "bias" in name:  # biases have no part in a piecewise linear slope
            continue
        assert assert_slope(penalty, name, parameter).abs() > 1e-6
        checked += 1
    assert checked == 3


def test_the_norms_are_those_of_each_image_alone() -> None:
    points = torch.randn(3, 2, 4, 4, dtype=torch.float64, requires_grad=True)
    norms = gradient_norms(lambda x: x.pow(3).flatten(1).sum(1), points)
    torch.testing.assert_close(norms, (3 * points.detach() ** 2).flatten(1).norm(dim=1))


def test_it_is_computed_in_fp32_under_autocast() -> None:
    discriminator = make_discriminator(make_mlp_discriminator()(spec=make_spec(), num_conditions=0))
    real, fake = torch.randn(8, 1, 4, 4), torch.randn(8, 1, 4, 4)
    results = []
    for enabled in (False, True):
        discriminator.zero_grad()
        torch.manual_seed(1)
        with torch.autocast("cpu", dtype=torch.bfloat16, enabled=enabled):
            tensors = step_tensors(discriminator, real, fake)
            assert tensors.fake_output.outputs.dtype == (torch.bfloat16 if enabled else torch.float32)
            loss = GradientPenalty(weight=10.0).discriminator_term(tensors)
        loss.value.backward()
        results.append((loss.value.detach(), discriminator.network.layers[0].weight.grad))
    assert results[1][0].dtype == torch.float32
    torch.testing.assert_close(results[1], results[0], rtol=1e-5, atol=1e-6)


def test_it_trains_the_discriminator_alone() -> None:
    model = make_gan(None, GradientPenalty(weight=10.0))
    loss = model.phases()[0].loss(make_batch(model.spec, 4))
    plain = loss.metrics["adversarial_nats"]
    torch.testing.assert_close(loss.value.detach(), plain + 10 * loss.metrics["gradient_penalty"])
    assert "gradient_penalty" not in model.phases()[1].loss(make_batch(model.spec, 4)).metrics


def test_batch_normalisation_is_refused() -> None:
    networks = functools.partial(DCGANDiscriminator, channels=2, num_hidden=None, normalization=BatchNorm2d, leak=0.2)
    with pytest.raises(ValueError, match=r"batch normalisation mixes.*set model\.discriminator\.normalization=null"):
        make_gan(None, GradientPenalty(weight=10.0), discriminator=networks)


@pytest.mark.parametrize("weight", [0.0, -1.0])
def test_a_weight_out_of_range_is_refused(weight: float) -> None:
    with pytest.raises(ValueError, match=r"gradient_penalty\.weight must be between"):
        GradientPenalty(weight=weight)


@pytest.mark.slow
def test_compiled_networks_give_the_same_losses_and_gradients() -> None:
    """In a process of its own: the compiler cannot trace through the shape checks that pytest installs."""
    command = [sys.executable, "-W", "ignore", "-m", "tests.models.gan.compiled_wgan_gp"]
    finished = subprocess.run(command, capture_output=True, text=True, timeout=500, check=False)
    assert finished.returncode == 0, finished.stderr
