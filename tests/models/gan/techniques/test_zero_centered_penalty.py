"""R1 and R2 against a linear discriminator and finite differences; the interval against every update."""

from dataclasses import replace

import pytest
import torch
from torch import Tensor

from genlab.checks.adversarial import FlatPixels, step_tensors
from genlab.models.gan.techniques.base import StepTensors
from genlab.models.gan.techniques.zero_centered_penalty import R1Penalty, R2Penalty
from tests.models.gan.tiny import ScaledPixels, make_discriminator, make_mlp_discriminator
from tests.models.tiny import assert_slope, make_spec

KINDS = [R1Penalty, R2Penalty]


@pytest.mark.parametrize("kind", KINDS)
def test_penalty_of_a_linear_discriminator(kind: type[R1Penalty | R2Penalty]) -> None:
    """The gradient of w . x is w everywhere: the penalty is gamma / 2 |w|^2, and its gradient gamma w, at zero too."""
    discriminator = make_discriminator(FlatPixels(make_spec()))
    for scale in (1.0, 0.0):
        weight = discriminator.output.weight
        weight.grad = None
        with torch.no_grad():
            weight.mul_(scale)
        tensors = step_tensors(discriminator, torch.randn(5, 1, 4, 4), torch.randn(5, 1, 4, 4))
        loss = kind(weight=3.0, interval=1).discriminator_term(tensors)
        assert loss is not None
        assert loss.value.item() == pytest.approx(1.5 * weight.square().sum().item(), abs=1e-6)
        loss.value.backward()
        torch.testing.assert_close(weight.grad, 3 * weight.detach())


@pytest.mark.parametrize("kind", KINDS)
def test_it_is_of_the_slope_at_its_own_images_and_its_gradient_that_of_finite_differences(
    kind: type[R1Penalty | R2Penalty],
) -> None:
    """A derivative of a derivative, in float64, by a network that is smooth."""
    discriminator = make_discriminator(make_mlp_discriminator()(spec=make_spec(), num_conditions=0)).double()
    discriminator.network.layers[1] = torch.nn.Tanh()
    real, fake = torch.randn(4, 1, 4, 4, dtype=torch.float64), torch.randn(4, 1, 4, 4, dtype=torch.float64)
    own = real if kind is R1Penalty else fake

    def score(x: Tensor) -> Tensor:
        return discriminator(x, x.new_empty(len(x), 0)).outputs.sum()

    def penalty() -> Tensor:
        loss = kind(weight=2.0, interval=1).discriminator_term(step_tensors(discriminator, real, fake))
        assert loss is not None
        return loss.value

    slopes = torch.autograd.functional.jacobian(score, own)
    torch.testing.assert_close(penalty().detach(), slopes.square().sum() / 4)
    penalty().backward()
    for name, parameter in discriminator.named_parameters():
        if name == "output.bias":
            assert parameter.grad is None or not parameter.grad.any()
            continue
        assert_slope(penalty, name, parameter)


@pytest.mark.parametrize(("kind", "factor"), [(R1Penalty, 2.0), (R2Penalty, 3.0)])
def test_the_slope_is_taken_under_the_conditions_of_the_images(
    kind: type[R1Penalty | R2Penalty], factor: float
) -> None:
    """The score of a condition c is c w . x, so that its slope is c |w|."""
    discriminator = make_discriminator(ScaledPixels(make_spec()))
    seen = replace(
        step_tensors(discriminator, torch.randn(5, 1, 4, 4), torch.randn(5, 1, 4, 4)),
        real_conditions=torch.full((5, 1), 2.0),
        fake_conditions=torch.full((5, 1), 3.0),
    )
    loss = kind(weight=2.0, interval=1).discriminator_term(seen)
    assert loss is not None
    assert loss.value.item() == pytest.approx((factor * discriminator.output.weight).square().sum().item(), rel=1e-5)


def tensors() -> StepTensors:
    discriminator = make_discriminator(make_mlp_discriminator()(spec=make_spec(), num_conditions=0))
    return step_tensors(discriminator, torch.randn(5, 1, 4, 4), torch.randn(5, 1, 4, 4))


def test_every_k_th_update_pays_k_times_as_much_and_a_resumed_run_keeps_the_count() -> None:
    seen, lazy = tensors(), R1Penalty(weight=1.0, interval=3)
    every = R1Penalty(weight=1.0, interval=1).discriminator_term(seen)
    assert every is not None
    first = [lazy.discriminator_term(seen) for _ in range(4)]
    resumed = R1Penalty(weight=1.0, interval=3)
    resumed.load_state_dict(lazy.state_dict())
    paid = [
        0.0 if loss is None else loss.value.item()
        for loss in (*first, *(resumed.discriminator_term(seen) for _ in range(3)))
    ]
    assert paid == pytest.approx([3 * every.value.item() * (number % 3 == 0) for number in range(7)])
    assert lazy.penalty_of_slope(2.0) == 3 / 2 * 2**2, "of an update that pays"
