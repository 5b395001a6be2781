"""The objectives against cross-entropy, closed forms and the optimal discriminator of known densities."""

import math

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from genlab.models.gan.objectives import (
    Hinge,
    LeastSquares,
    Minimax,
    NonSaturating,
    Objective,
    SmoothedObjective,
    Wasserstein,
)

SCORES = torch.linspace(-6, 6, 25, dtype=torch.float64)
REAL_DENSITY = torch.tensor([0.5, 0.3, 0.15, 0.05], dtype=torch.float64)
FAKE_DENSITY = torch.tensor([0.1, 0.2, 0.3, 0.4], dtype=torch.float64)


def expected_loss(objective: Objective, scores: Tensor) -> Tensor:
    """The discriminator's loss where x is one of four values, with one score each."""
    return (REAL_DENSITY * objective.real(scores) + FAKE_DENSITY * objective.fake(scores)).sum()


@pytest.mark.parametrize("objective", [NonSaturating(), Minimax()])
def test_cross_entropy_is_that_of_torch(objective: Objective) -> None:
    ones, zeros = torch.ones_like(SCORES), torch.zeros_like(SCORES)
    real = F.binary_cross_entropy_with_logits(SCORES, ones, reduction="none")
    fake = F.binary_cross_entropy_with_logits(SCORES, zeros, reduction="none")
    torch.testing.assert_close(objective.real(SCORES), real)
    torch.testing.assert_close(objective.fake(SCORES), fake)
    torch.testing.assert_close(objective.discriminator_loss(SCORES, SCORES), real.mean() + fake.mean())


def test_the_two_generators_of_the_first_paper() -> None:
    probability = SCORES.sigmoid()
    torch.testing.assert_close(NonSaturating().generator_loss(SCORES), -probability.log().mean())
    torch.testing.assert_close(Minimax().generator_loss(SCORES), (1 - probability).log().mean())


def test_minimax_saturates_where_the_discriminator_wins_and_the_other_does_not() -> None:
    """d/ds log(1 - sigmoid(s)) = -sigmoid(s) = -D; d/ds -log sigmoid(s) = -(1 - D)."""
    for score in (-20.0, -3.0, 0.0, 2.0):
        slopes = {}
        for objective in (Minimax(), NonSaturating()):
            scores = torch.tensor([score], dtype=torch.float64, requires_grad=True)
            (gradient,) = torch.autograd.grad(objective.generator_loss(scores), scores)
            slopes[type(objective)] = gradient.item()
        probability = 1 / (1 + math.exp(-score))
        assert slopes[Minimax] == pytest.approx(-probability, rel=1e-9)
        assert slopes[NonSaturating] == pytest.approx(-(1 - probability), rel=1e-9)


def test_least_squares_has_targets_one_zero_and_one() -> None:
    objective = LeastSquares()
    torch.testing.assert_close(objective.real(SCORES), 0.5 * (SCORES - 1) ** 2)
    torch.testing.assert_close(objective.fake(SCORES), 0.5 * SCORES**2)
    torch.testing.assert_close(objective.generator_loss(SCORES), 0.5 * ((SCORES - 1) ** 2).mean())


def test_wasserstein_is_the_difference_of_means() -> None:
    objective = Wasserstein()
    loss = objective.discriminator_loss(SCORES + 3, SCORES)
    assert loss.item() == pytest.approx(-3)
    assert objective.generator_loss(SCORES + 3).item() == pytest.approx(-3)


def test_hinge_costs_nothing_beyond_its_margins() -> None:
    objective = Hinge()
    scores = torch.tensor([-2.0, -1.0, 0.0, 0.5, 1.0, 2.0])
    assert objective.real(scores).tolist() == [3.0, 2.0, 1.0, 0.5, 0.0, 0.0]
    assert objective.fake(scores).tolist() == [0.0, 0.0, 1.0, 1.5, 2.0, 3.0]
    assert objective.generator_loss(scores).item() == pytest.approx(-scores.mean().item())


SHARE = REAL_DENSITY / (REAL_DENSITY + FAKE_DENSITY)
OPTIMA = {
    "non_saturating": (NonSaturating(), SHARE.logit()),
    "minimax": (Minimax(), SHARE.logit()),
    "least_squares": (LeastSquares(), SHARE),
    "hinge": (Hinge(), (REAL_DENSITY - FAKE_DENSITY).sign()),
    # D* = t p / (p + q): smoothing only the real side scales it.
    "smoothed": (SmoothedObjective(NonSaturating(), real_target=0.9), (0.9 * SHARE).logit()),
    "smoothed least squares": (SmoothedObjective(LeastSquares(), real_target=0.9), 0.9 * SHARE),
}


@pytest.mark.parametrize("name", OPTIMA)
def test_the_optimal_discriminator_of_known_densities(name: str) -> None:
    objective, optimum = OPTIMA[name]
    best = expected_loss(objective, optimum)
    for place in range(4):
        for step in (-1e-3, 1e-3):
            moved = optimum.clone()
            moved[place] += step
            assert expected_loss(objective, moved) > best


def test_the_optimal_value_of_the_game_is_a_jensen_shannon_divergence() -> None:
    """Goodfellow et al. 2014, theorem 1: the loss of D* is log 4 - 2 JSD."""
    mixture = (REAL_DENSITY + FAKE_DENSITY) / 2
    divergence = 0.5 * sum((p * (p / mixture).log()).sum() for p in (REAL_DENSITY, FAKE_DENSITY))
    torch.testing.assert_close(expected_loss(Minimax(), SHARE.logit()), math.log(4) - 2 * divergence)


@pytest.mark.parametrize(("objective", "undecided"), [(NonSaturating(), 0.0), (LeastSquares(), 0.5), (Hinge(), 0.0)])
def test_margins_and_accuracies_are_about_the_score_that_decides_nothing(
    objective: Objective, undecided: float
) -> None:
    """At equal densities D* has this score; it counts as fake, so that what is scored alike is right half the time."""
    scores = undecided + torch.tensor([-0.25, 0.0, 0.25], dtype=torch.float64)
    margins = objective.margins(scores, scores)
    assert margins is not None
    assert margins.tolist() == [-0.25, 0.0, 0.25]
    metrics = objective.game_metrics(scores, scores)
    assert metrics["accuracy_real"].tolist() == [0, 0, 1]
    assert metrics["accuracy_fake"].tolist() == [1, 1, 0]


def test_each_term_is_averaged_over_its_own_images() -> None:
    real, fake = torch.tensor([1.0, 2.0, 4.0]), torch.tensor([-1.0])
    loss = LeastSquares().discriminator_loss(real, fake)
    assert loss.item() == pytest.approx((0 + 1 + 9) / 2 / 3 + 1 / 2)


@pytest.mark.parametrize("target", [0.5, 0.9, 1.0])
def test_smoothed_cross_entropy_has_a_soft_target_for_real_images_alone(target: float) -> None:
    objective = SmoothedObjective(NonSaturating(), real_target=target)
    soft = torch.full_like(SCORES, target)
    torch.testing.assert_close(
        objective.real(SCORES), F.binary_cross_entropy_with_logits(SCORES, soft, reduction="none")
    )
    torch.testing.assert_close(objective.fake(SCORES), NonSaturating().fake(SCORES))
    torch.testing.assert_close(objective.generator_loss(SCORES), NonSaturating().generator_loss(SCORES))


def test_smoothed_least_squares_has_a_moved_target_up_to_a_constant() -> None:
    objective = SmoothedObjective(LeastSquares(), real_target=0.9)
    constant = objective.real(SCORES) - 0.5 * (SCORES - 0.9) ** 2
    torch.testing.assert_close(constant, torch.full_like(SCORES, constant[0].item()))
    torch.testing.assert_close(objective.fake(SCORES), 0.5 * SCORES**2)


@pytest.mark.parametrize("inner", [NonSaturating(), LeastSquares(), Wasserstein(), Hinge()])
def test_smoothing_keeps_what_an_objective_says_of_itself(inner: Objective) -> None:
    smoothed = SmoothedObjective(inner, real_target=0.9)
    assert (smoothed.unit, smoothed.decision_threshold) == (inner.unit, inner.decision_threshold)


@pytest.mark.parametrize("target", [0.4, 1.1, math.nan])
def test_a_target_out_of_range_is_refused(target: float) -> None:
    with pytest.raises(ValueError, match=r"real_target must be between 0.5 and 1"):
        SmoothedObjective(NonSaturating(), real_target=target)


def test_an_objective_of_ones_own_has_three_methods_and_no_declaration() -> None:
    class Exponential(Objective):
        def real(self, scores: Tensor) -> Tensor:
            return (-scores).exp()

        def fake(self, scores: Tensor) -> Tensor:
            return scores.exp()

        def generator_loss(self, scores: Tensor) -> Tensor:
            return (-scores).exp().mean()

    objective = Exponential()
    loss = objective.with_terms(objective.discriminator_loss(SCORES, SCORES), [None], weight=1.0)
    assert list(loss.metrics) == ["adversarial_score"]
    assert list(objective.game_metrics(SCORES, SCORES)) == ["score_real", "score_fake"]
    assert not objective.rewards_a_constant
