"""Learning rates against their closed forms."""

import math

import pytest
import torch
from torch.optim.lr_scheduler import LRScheduler

from genlab.training.schedules import constant, warmup_cosine, warmup_linear


def rates(scheduler: LRScheduler, num_steps: int) -> list[float]:
    seen = []
    for _ in range(num_steps):
        seen.append(scheduler.get_last_lr()[0])
        scheduler.optimizer.step()
        scheduler.step()
    return seen


def optimizer() -> torch.optim.Optimizer:
    return torch.optim.SGD([torch.zeros(1, requires_grad=True)], lr=2.0)


def test_constant() -> None:
    assert rates(constant(optimizer()), 5) == [2.0] * 5


def test_cosine_rises_linearly_then_follows_half_a_cosine_to_its_end() -> None:
    seen = rates(warmup_cosine(optimizer(), num_steps=101, warmup_fraction=0.1, final_fraction=0.01), 101)
    assert seen[:10] == pytest.approx([2.0 * (k + 1) / 11 for k in range(10)])
    assert seen[10] == pytest.approx(2.0)
    expected = [2.0 * (0.01 + 0.99 * 0.5 * (1 + math.cos(math.pi * (k - 10) / 90))) for k in range(10, 101)]
    assert seen[10:] == pytest.approx(expected)
    assert seen[-1] == pytest.approx(0.02)


def test_linear_falls_by_the_same_amount_each_step() -> None:
    seen = rates(warmup_linear(optimizer(), num_steps=11, warmup_fraction=0.0, final_fraction=0.0), 11)
    assert seen == pytest.approx([2.0 * (1 - k / 10) for k in range(11)], abs=1e-12)


@pytest.mark.parametrize("num_steps", [0, 1, 2, 3])
@pytest.mark.parametrize("warmup_fraction", [0.0, 0.5, 1.0])
def test_the_shortest_runs_stay_within_the_peak(num_steps: int, warmup_fraction: float) -> None:
    schedule = warmup_cosine(optimizer(), num_steps=num_steps, warmup_fraction=warmup_fraction, final_fraction=0.5)
    assert all(0 < rate <= 2.0 for rate in rates(schedule, num_steps + 2))


def test_the_rate_is_a_function_of_the_step_alone() -> None:
    whole = rates(warmup_cosine(optimizer(), num_steps=20, warmup_fraction=0.2, final_fraction=0.1), 20)
    first = warmup_cosine(optimizer(), num_steps=20, warmup_fraction=0.2, final_fraction=0.1)
    rates(first, 7)
    second = warmup_cosine(optimizer(), num_steps=20, warmup_fraction=0.2, final_fraction=0.1)
    second.load_state_dict(first.state_dict())
    assert rates(second, 13) == pytest.approx(whole[7:])


@pytest.mark.parametrize("fractions", [(-0.1, 0.0), (1.1, 0.0), (0.0, 1.5), (0.0, math.nan)])
def test_fractions_are_between_0_and_1(fractions: tuple[float, float]) -> None:
    for schedule in (warmup_cosine, warmup_linear):
        with pytest.raises(ValueError, match="must be between 0 and 1"):
            schedule(optimizer(), num_steps=10, warmup_fraction=fractions[0], final_fraction=fractions[1])
