"""Observation models: exact probabilities of levels, the right default, and no Bernoulli for grey images."""

import math
from itertools import product

import pytest
import torch

from genlab.models.draw.observation import (
    Bernoulli,
    Binomial,
    DiscretizedLogistic,
    ObservationModel,
    default_observation,
)
from tests.models.tiny import make_spec


@pytest.mark.parametrize(
    ("kind", "num_levels"), [(Bernoulli, 2), *product((Binomial, DiscretizedLogistic), (2, 3, 17, 256))]
)
def test_probabilities_of_all_levels_of_every_channel_sum_to_one(kind: type[ObservationModel], num_levels: int) -> None:
    observation = kind(make_spec(channels=2, num_levels=num_levels)).double()
    for channel in range(2):
        canvas = torch.randn(1, 1, 2, 1, dtype=torch.float64).expand(num_levels, -1, -1, -1)
        images = torch.zeros(num_levels, 1, 2, 1, dtype=torch.float64)
        images[:, 0, channel, 0] = torch.arange(num_levels) / (num_levels - 1)
        fixed = observation.nll(canvas[:1], images[:1]).exp()  # of the other channel at level 0, times this one's
        probabilities = torch.exp(-observation.nll(canvas, images))
        other = 1 / (fixed * probabilities[0])
        assert other.item() == pytest.approx(1.0)
        both = torch.zeros(num_levels, num_levels, 1, 2, 1, dtype=torch.float64)
        level = torch.arange(num_levels, dtype=torch.float64) / (num_levels - 1)
        both[..., 0, 0, 0], both[..., 0, 1, 0] = level[:, None], level[None, :]
        total = torch.exp(-observation.nll(canvas[:1].expand(num_levels**2, -1, -1, -1), both.flatten(0, 1))).sum()
        assert total.item() == pytest.approx(1.0)


@pytest.mark.parametrize(("num_levels", "kind"), [(2, Bernoulli), (17, Binomial), (256, DiscretizedLogistic)])
def test_default_follows_the_number_of_levels(num_levels: int, kind: type[ObservationModel]) -> None:
    assert type(default_observation(make_spec(num_levels=num_levels))) is kind


def test_grey_images_are_no_bernoulli_variables() -> None:
    with pytest.raises(ValueError, match="Bernoulli needs images of 2 levels, got 256"):
        Bernoulli(make_spec(num_levels=256))


def test_binomial_of_one_trial_is_the_bernoulli() -> None:
    spec = make_spec()
    canvas, images = torch.randn(3, 4, 1, 4), torch.randint(2, (3, 4, 1, 4)).float()
    torch.testing.assert_close(Binomial(spec).nll(canvas, images), Bernoulli(spec).nll(canvas, images))


def test_logistic_starts_at_the_spread_of_each_channel() -> None:
    observation = DiscretizedLogistic(make_spec(channels=2, num_levels=256))
    images = 0.5 + torch.tensor([0.05, 0.1])[:, None] * torch.randn(5000, 4, 2, 4)
    observation.initialize(images)
    deviation = observation.log_scale.exp().squeeze(1) * math.pi / math.sqrt(3)
    assert deviation.tolist() == pytest.approx([0.05, 0.1], rel=0.02)
    mean = torch.linspace(0.2, 0.8, 16).view(4, 1, 4)  # the canvas has it
    observation.initialize(images + mean - 0.5)
    assert torch.allclose(observation.log_scale.exp().squeeze(1) * math.pi / math.sqrt(3), deviation)


def test_the_scale_of_the_logistic_begins_at_the_deviation_of_uniform_levels() -> None:
    scale = DiscretizedLogistic(make_spec(num_levels=256)).log_scale.exp()
    assert scale.item() * math.pi / math.sqrt(3) == pytest.approx(1 / math.sqrt(12))


def test_constant_images_leave_the_logistic_a_finite_scale() -> None:
    observation = DiscretizedLogistic(make_spec(num_levels=256))
    observation.initialize(torch.full((5, 4, 1, 4), 0.5))
    assert observation.log_scale.isfinite().all()
