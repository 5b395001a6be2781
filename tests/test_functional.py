"""Every likelihood against torch.distributions or a sum over all values it can take."""

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch.distributions import Bernoulli, Binomial, Normal, kl_divergence

from genlab.functional import (
    at_least_float32,
    bernoulli_nll,
    binomial_nll,
    bounded,
    discretized_logistic_nll,
    importance_weighted_nll,
    kl_to_standard_normal,
    log_normal_ratio,
    spherical_interpolation,
    tanh,
)

finite = st.floats(-5, 5)


@given(mu=finite, log_sigma=st.floats(-4, 3))
def test_kl_is_that_of_two_normals(mu: float, log_sigma: float) -> None:
    mu_, log_sigma_ = torch.tensor([mu], dtype=torch.float64), torch.tensor([log_sigma], dtype=torch.float64)
    expected = kl_divergence(Normal(mu_, log_sigma_.exp()), Normal(0.0, 1.0))
    torch.testing.assert_close(kl_to_standard_normal(mu_, log_sigma_), expected, rtol=1e-9, atol=1e-9)


def test_kl_of_the_prior_from_itself_is_zero_for_any_number_of_steps_and_latents() -> None:
    """A constant of 1/2 or T/2 for each step is right only where T equals the number of latents; here it does not."""
    zeros = torch.zeros(7, 2, 3)  # T, B, Z
    assert kl_to_standard_normal(zeros, zeros).sum((0, 2)).tolist() == [0.0, 0.0]


def test_log_normal_ratio_is_the_ratio_of_two_densities() -> None:
    mu, log_sigma, noise = torch.randn(3, 100, dtype=torch.float64).unbind(0)
    latent = mu + log_sigma.exp() * noise
    expected = Normal(0.0, 1.0).log_prob(latent) - Normal(mu, log_sigma.exp()).log_prob(latent)
    torch.testing.assert_close(log_normal_ratio(latent, noise, log_sigma), expected)


def test_importance_weighted_nll_is_the_log_of_a_mean() -> None:
    weights = torch.tensor([[0.2, 3.0], [0.4, 1.0], [0.9, 2.0]], dtype=torch.float64)
    torch.testing.assert_close(importance_weighted_nll(weights.log()), -weights.mean(0).log())


def test_importance_weighted_nll_of_images_of_thousands_of_nats_does_not_underflow() -> None:
    log_weights = torch.tensor([[-5000.0], [-5001.0]])
    expected = 5000 + math.log(2) - math.log1p(math.exp(-1))
    assert importance_weighted_nll(log_weights).item() == pytest.approx(expected, abs=1e-3)


@given(logit=st.floats(-30, 30), value=st.sampled_from([0.0, 1.0]))
def test_bernoulli_nll_is_that_of_torch(logit: float, value: float) -> None:
    logits, image = torch.tensor([logit], dtype=torch.float64), torch.tensor([value], dtype=torch.float64)
    torch.testing.assert_close(bernoulli_nll(logits, image), -Bernoulli(logits=logits).log_prob(image))


def test_listing_mistake_9_confident_pixels_keep_their_nats() -> None:
    """log(1e-10 + sigmoid(-40)) is -23; the true cost of a wrong pixel at logit -40 is 40 nats, with gradient -1."""
    logit = torch.tensor([-40.0], requires_grad=True)
    nll = bernoulli_nll(logit, torch.ones(1))
    nll.sum().backward()
    assert nll.item() == pytest.approx(40.0)
    assert logit.grad is not None
    assert logit.grad.item() == pytest.approx(-1.0)


@pytest.mark.parametrize("num_levels", [2, 3, 17])
def test_binomial_nll_is_that_of_torch_and_sums_to_one(num_levels: int) -> None:
    level = torch.arange(num_levels, dtype=torch.float64)
    logits = torch.full_like(level, 0.7)
    nll = binomial_nll(logits, level / (num_levels - 1), num_levels=num_levels)
    torch.testing.assert_close(nll, -Binomial(num_levels - 1, logits=logits).log_prob(level))
    assert torch.exp(-nll).sum().item() == pytest.approx(1.0)


def test_binomial_nll_of_half_precision_is_computed_in_float32() -> None:
    level = torch.arange(256) / 255
    nll = binomial_nll(torch.full((256,), 0.5, dtype=torch.bfloat16), level, num_levels=256)
    assert torch.exp(-nll.double()).sum().item() == pytest.approx(1.0, abs=1e-3)


@given(location=st.floats(-0.2, 1.2), log_scale=st.floats(-9, 2), num_levels=st.sampled_from([2, 5, 256]))
def test_discretized_logistic_sums_to_one_over_the_levels(location: float, log_scale: float, num_levels: int) -> None:
    images = torch.linspace(0, 1, num_levels, dtype=torch.float64)
    nll = discretized_logistic_nll(
        torch.full_like(images, location),
        torch.tensor([log_scale], dtype=torch.float64),
        images,
        num_levels=num_levels,
    )
    assert torch.exp(-nll).sum().item() == pytest.approx(1.0, abs=1e-9)


def test_discretized_logistic_is_a_difference_of_cumulative_probabilities() -> None:
    images = torch.linspace(0, 1, 11, dtype=torch.float64)
    location, scale = 0.43, 0.08

    def cumulative(edge: torch.Tensor) -> torch.Tensor:
        return torch.sigmoid((edge - location) / scale)

    upper, lower = cumulative(images + 0.05), cumulative(images - 0.05)
    upper[-1], lower[0] = 1.0, 0.0
    nll = discretized_logistic_nll(
        torch.full_like(images, location), torch.tensor([math.log(scale)], dtype=torch.float64), images, num_levels=11
    )
    torch.testing.assert_close(nll, -torch.log(upper - lower))


def test_discretized_logistic_far_from_the_data_is_finite_with_its_gradient_in_float32() -> None:
    images = torch.linspace(0, 1, 256)
    location = torch.zeros(256, requires_grad=True)
    log_scale = torch.full((1,), -7.0, requires_grad=True)
    nll = discretized_logistic_nll(location, log_scale, images, num_levels=256)
    nll.sum().backward()
    assert location.grad is not None
    assert log_scale.grad is not None
    assert all(value.isfinite().all() for value in (nll, location.grad, log_scale.grad))
    # In the tail the cost grows by one over the scale: 1/255 / exp(-7) nats a level.
    assert (nll[200] - nll[199]).item() == pytest.approx(math.exp(7) / 255, rel=1e-3)


def test_spherical_interpolation_keeps_the_norm_and_meets_its_ends() -> None:
    start, end = torch.randn(2, 10, 3, dtype=torch.float64).unbind(0)
    end = end * start.norm() / end.norm()
    torch.testing.assert_close(spherical_interpolation(start, end, 0.0), start)
    torch.testing.assert_close(spherical_interpolation(start, end, 1.0), end)
    torch.testing.assert_close(spherical_interpolation(start, end, 0.3).norm(), start.norm())
    torch.testing.assert_close(spherical_interpolation(start, start, 0.3), start)
    # Of opposite vectors, as two numbers often are, no arc is the only one.
    torch.testing.assert_close(spherical_interpolation(start, -start, 0.25), 0.5 * start)
    torch.testing.assert_close(spherical_interpolation(torch.ones(1), -torch.ones(1), 0.5), torch.zeros(1))


def test_bounded_values_are_clamped_and_a_gradient_that_leads_back_passes() -> None:
    values = torch.tensor([-3.0, -3.0, 0.5, 0.5, 4.0, 4.0], requires_grad=True)
    result = bounded(values, -1.0, 2.0)
    assert result.tolist() == [-1.0, -1.0, 0.5, 0.5, 2.0, 2.0]
    result.backward(torch.tensor([1.0, -1.0, 1.0, -1.0, 1.0, -1.0]))  # descent goes against it
    assert values.grad.tolist() == [0.0, -1.0, 1.0, -1.0, 1.0, 0.0]


@pytest.mark.parametrize(("target", "end"), [(0.0, 0.0), (-5.0, -1.0)])
def test_a_value_behind_a_bound_comes_back_where_the_loss_wants_it_and_drifts_no_further(
    target: float, end: float
) -> None:
    value = torch.tensor(-4.0, requires_grad=True)
    optimizer = torch.optim.SGD([value], lr=0.1)
    for _ in range(200):
        optimizer.zero_grad()
        (bounded(value, -1.0) - target).square().backward()
        optimizer.step()
    assert bounded(value, -1.0).item() == pytest.approx(end, abs=1e-3)
    assert value.item() >= -4


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32, torch.float64])
def test_only_half_precision_is_raised(dtype: torch.dtype) -> None:
    raised = at_least_float32(torch.ones(2, dtype=dtype)).dtype
    assert raised == (torch.float64 if dtype == torch.float64 else torch.float32)


def test_tanh_is_the_same_in_a_compiled_function(monkeypatch: pytest.MonkeyPatch) -> None:
    x = torch.tensor([-200.0, -3.0, -1e-3, 0.0, 1e-3, 0.5, 3.0, 200.0], dtype=torch.float64, requires_grad=True)
    (expected,) = torch.autograd.grad(torch.tanh(x).sum(), x)
    monkeypatch.setattr(torch.compiler, "is_compiling", lambda: True)
    torch.testing.assert_close(tanh(x), torch.tanh(x), rtol=0, atol=1e-15)
    (found,) = torch.autograd.grad(tanh(x).sum(), x)
    torch.testing.assert_close(found, expected, rtol=0, atol=1e-15)
