"""The discretised logistic mixture is a distribution, and agrees with the textbook formula in double precision."""

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from genlab.models.pixelcnn.mixture import (
    LEAST_LOG_SCALE,
    MixtureParameters,
    channel_log_probs,
    discretized_logistic_log_prob,
    invert_channel_cdf,
    level_positions,
    mixture_log_prob,
    num_mixture_parameters,
    split_mixture_parameters,
    upper_edges,
)


def mixture(channels: int, components: int, *, scale: float = 1.0, shape: tuple[int, ...] = ()) -> MixtureParameters:
    raw = scale * torch.randn(*shape, num_mixture_parameters(channels, components))
    return split_mixture_parameters(raw, channels)


def test_number_of_parameters_is_the_papers():
    assert num_mixture_parameters(3, 10) == 100
    assert num_mixture_parameters(1, 10) == 30


@settings(deadline=None)
@given(
    mean=st.floats(-3, 3),
    log_scale=st.floats(-7, 7),
    num_levels=st.sampled_from([2, 3, 17, 256]),
)
def test_probabilities_of_all_levels_sum_to_one(mean, log_scale, num_levels):
    levels = torch.arange(num_levels)
    log_probs = discretized_logistic_log_prob(
        levels, torch.tensor(mean), torch.tensor(log_scale), num_levels=num_levels
    )
    assert torch.isfinite(log_probs).all()
    assert log_probs.exp().sum().item() == pytest.approx(1, abs=2e-5)


@settings(deadline=None)
@given(mean=st.floats(-1, 1), log_scale=st.floats(-4, 2), level=st.integers(1, 254))
def test_inner_levels_agree_with_the_difference_of_distribution_functions(mean, log_scale, level):
    x, scale = 2 * level / 255 - 1, torch.tensor(log_scale, dtype=torch.float64).exp()
    upper, lower = torch.sigmoid((x + 1 / 255 - mean) / scale), torch.sigmoid((x - 1 / 255 - mean) / scale)
    ours = discretized_logistic_log_prob(
        torch.tensor(level), torch.tensor(mean), torch.tensor(log_scale), num_levels=256
    )
    if upper - lower > 1e-12:  # below, the difference itself has lost its digits even in double precision
        assert ours.item() == pytest.approx((upper - lower).log().item(), rel=1e-3, abs=1e-3)


def test_the_narrowest_logistic_puts_nearly_all_on_one_of_256_levels_and_no_more():
    """sigmoid(a) - sigmoid(-a) = tanh(a / 2), with a = e^7 / 255 half bins, the paper's program's least scale."""
    raw = torch.tensor([0.0, level_positions(torch.tensor(100), 256, torch.float32), -100.0])
    found = channel_log_probs(split_mixture_parameters(raw, 1), torch.zeros(1).long(), 0, num_levels=256).exp()
    assert found[100].item() == pytest.approx(math.tanh(math.exp(7) / 510), rel=1e-4)


def test_a_uniform_of_zero_draws_no_impossible_level():
    raw = torch.tensor([0.0, level_positions(torch.tensor(200), 256, torch.float32), -7.0])
    parameters, levels = split_mixture_parameters(raw, 1), torch.zeros(1).long()
    edges = upper_edges(256, like=raw)
    drawn = invert_channel_cdf(parameters, levels, 0, torch.tensor(0.0), edges=edges, num_levels=256)
    assert channel_log_probs(parameters, levels, 0, num_levels=256)[drawn].exp() > 0


def test_far_tails_keep_value_and_gradient():
    mean = torch.tensor(1.0, requires_grad=True)
    log_prob = discretized_logistic_log_prob(torch.tensor(10), mean, torch.tensor(-6.5), num_levels=256)
    log_prob.backward()
    assert -2000 < log_prob.item() < -1000
    assert mean.grad.item() == pytest.approx(-torch.tensor(6.5).exp().item(), rel=1e-3)


def test_mixture_over_256_levels_sums_to_one():
    parameters = mixture(1, 10, scale=2.0, shape=(5,))
    every = torch.stack([mixture_log_prob(parameters, torch.full((5, 1), k), num_levels=256) for k in range(256)])
    torch.testing.assert_close(every.logsumexp(0), torch.zeros(5), atol=1e-5, rtol=0)


def test_colours_of_a_pixel_sum_to_one_together():
    levels = torch.cartesian_prod(*[torch.arange(5)] * 3)  # (125, 3)
    one = torch.randn(num_mixture_parameters(3, 4))
    parameters = split_mixture_parameters(one.expand(len(levels), -1), 3)
    total = mixture_log_prob(parameters, levels, num_levels=5).logsumexp(0)
    assert total.item() == pytest.approx(0, abs=1e-5)


@pytest.mark.parametrize("channels", [1, 2, 3])
def test_chain_rule_over_channels_gives_the_joint(channels):
    parameters = mixture(channels, 4, shape=(6,))
    levels = torch.randint(7, (6, channels))
    chain = torch.zeros(6)
    for channel in range(channels):
        conditional = channel_log_probs(parameters, levels, channel, num_levels=7)
        torch.testing.assert_close(conditional.logsumexp(-1), torch.zeros(6), atol=1e-5, rtol=0)
        chain += conditional.gather(-1, levels[:, channel, None]).squeeze(-1)
    torch.testing.assert_close(chain, mixture_log_prob(parameters, levels, num_levels=7), atol=1e-4, rtol=1e-4)


def test_conditionals_do_not_look_at_later_channels():
    parameters = mixture(3, 4)
    one, other = torch.tensor([1, 2, 3]), torch.tensor([1, 6, 0])
    assert torch.equal(
        channel_log_probs(parameters, one, 1, num_levels=7), channel_log_probs(parameters, other, 1, num_levels=7)
    )
    assert not torch.equal(
        channel_log_probs(parameters, one, 2, num_levels=7), channel_log_probs(parameters, other, 2, num_levels=7)
    )


def test_green_shifts_by_red_and_blue_by_both():
    """Equation 3, with coefficients that tell the three apart."""
    parameters = MixtureParameters(
        log_weights=torch.zeros(1),
        means=torch.tensor([[0.1], [0.2], [0.3]]),
        log_scales=torch.zeros(3, 1),
        coefficients=torch.tensor([[0.5], [-0.25], [0.75]]),
    )
    positions = torch.tensor([0.4, -0.6, 0.9])
    assert parameters.shifted_means(positions, 0).item() == pytest.approx(0.1)
    assert parameters.shifted_means(positions, 1).item() == pytest.approx(0.2 + 0.5 * 0.4)
    assert parameters.shifted_means(positions, 2).item() == pytest.approx(0.3 - 0.25 * 0.4 + 0.75 * -0.6)


def test_lowest_and_highest_levels_stand_at_the_ends():
    assert level_positions(torch.tensor([0, 128, 255]), 256, torch.float32).tolist() == pytest.approx(
        [-1, 1 / 255, 1], abs=1e-6
    )


def test_a_scale_below_its_bound_has_a_gradient_that_leads_back():
    raw = torch.zeros(1, num_mixture_parameters(1, 2), dtype=torch.float64)
    raw[:, 4:] = LEAST_LOG_SCALE - 3  # of both components; their means are 0
    raw.requires_grad_()
    (-mixture_log_prob(split_mixture_parameters(raw, 1), torch.tensor([[0]]), num_levels=256)).backward()
    assert (raw.grad[:, 4:] < 0).all()  # the level is far: descent widens the logistics, which makes it likelier
    assert torch.equal(split_mixture_parameters(raw, 1).log_scales, torch.full((1, 1, 2), LEAST_LOG_SCALE).double())


def test_levels_are_placed_in_the_type_of_the_means():
    raw = torch.randn(3, num_mixture_parameters(3, 2), dtype=torch.float64)
    levels = torch.randint(256, (3, 3))
    log_prob = mixture_log_prob(split_mixture_parameters(raw, 3), levels, num_levels=256)
    moved = mixture_log_prob(split_mixture_parameters(raw + 1e-12, 3), levels, num_levels=256)
    assert log_prob.dtype == torch.float64
    torch.testing.assert_close(moved, log_prob, rtol=1e-9, atol=1e-9)
    exact = level_positions(levels, 256, torch.float64)
    torch.testing.assert_close(exact, 2 * levels.double() / 255 - 1, rtol=1e-15, atol=1e-15)


@pytest.mark.parametrize("num_levels", [2, 3, 17, 256])
def test_the_inverted_cumulative_probability_is_that_of_all_levels(num_levels: int) -> None:
    generator = torch.Generator().manual_seed(0)
    raw = torch.randn(500, num_mixture_parameters(3, 4), generator=generator, dtype=torch.float64)
    parameters = split_mixture_parameters(raw, 3)
    levels = torch.randint(num_levels, (500, 3), generator=generator)
    uniforms = torch.rand(500, generator=generator, dtype=torch.float64)
    uniforms[:2] = torch.tensor([0.0, 1 - 1e-16])
    edges = upper_edges(num_levels, like=raw)
    for channel in range(3):
        found = invert_channel_cdf(parameters, levels, channel, uniforms, edges=edges, num_levels=num_levels)
        cumulative = channel_log_probs(parameters, levels, channel, num_levels=num_levels).exp().cumsum(-1)
        expected = (cumulative <= uniforms[:, None]).sum(-1).clamp(max=num_levels - 1)
        assert found.tolist() == expected.tolist()
