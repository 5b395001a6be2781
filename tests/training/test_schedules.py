"""Learning rates against their closed forms."""

import functools
import math

import pytest
import torch
from torch.optim.lr_scheduler import LambdaLR, LRScheduler

from genlab.config.schema import bind_schedule
from genlab.errors import ConfigurationError
from genlab.training.schedules import (
    change_of_rate,
    constant,
    warmup_cosine,
    warmup_linear,
    warmup_stable_decay,
)


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
    """It counts as torch's own does, so that a state of either is one of the other."""
    scheduler = constant(optimizer())
    assert rates(scheduler, 5) == [2.0] * 5
    of_torch = LambdaLR(optimizer(), lambda step: 1.0)
    rates(of_torch, 5)
    assert scheduler.state_dict() == of_torch.state_dict()


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


def stable(num_steps: int, **changes: float) -> LRScheduler:
    settings = {"num_warmup_updates": 4, "decay_fraction": 0.0, "final_fraction": 0.1}
    return warmup_stable_decay(optimizer(), num_steps=num_steps, **(settings | changes))  # type: ignore[arg-type]


def test_stable_rises_linearly_stays_and_falls_linearly_to_its_end() -> None:
    seen = rates(stable(50, decay_fraction=0.2), 50)
    assert seen[:4] == pytest.approx([2.0 * (k + 1) / 5 for k in range(4)])
    assert seen[4:40] == pytest.approx([2.0] * 36)
    assert seen[40:] == pytest.approx([2.0 * (1 - 0.9 * k / 9) for k in range(10)])
    assert rates(stable(50), 60) == pytest.approx(seen[:4] + [2.0] * 56)


def test_the_decay_takes_the_nearest_number_of_steps() -> None:
    """0.29 of 100 steps is a little less than 29 in floating point."""
    seen = rates(stable(100, decay_fraction=0.29), 100)
    assert (seen[71], seen[99]) == pytest.approx((2.0, 0.2))
    assert seen[72] == pytest.approx(2.0 * (1 - 0.9 / 28))


def resumed(before: LRScheduler, after: LRScheduler) -> tuple[float, float] | None:
    """Load the state of a schedule into another one; return the change of the learning rate."""
    after.load_state_dict(before.state_dict())
    return change_of_rate(after)


def test_a_run_that_is_lengthened_continues_at_its_rate_until_it_decays() -> None:
    """The rates of a run of 20 steps, then 40, then 50 of which the last ten decay, are those of one of 50."""
    whole = rates(stable(50, decay_fraction=0.2), 50)
    seen, previous = [], stable(20)
    for start, stop, schedule in ((0, 20, previous), (20, 40, stable(40)), (40, 50, stable(50, decay_fraction=0.2))):
        if start:
            assert resumed(previous, schedule) is None
        seen += rates(schedule, stop - start)
        previous = schedule
    assert seen == whole
    after = stable(100, decay_fraction=0.2)
    assert resumed(previous, after) == pytest.approx((0.2, 2.0))
    assert after.optimizer.param_groups[0]["lr"] == after.get_last_lr()[0] == 2.0


def test_a_schedule_that_depends_on_the_length_changes_its_rate() -> None:
    cosine = functools.partial(warmup_cosine, warmup_fraction=0.0, final_fraction=0.01)
    before = cosine(optimizer(), num_steps=7)
    rates(before, 7)
    expected = 2.0 * (0.01 + 0.99 * 0.5 * (1 + math.cos(math.pi * 7 / 11)))
    after = cosine(optimizer(), num_steps=12)
    assert resumed(before, after) == pytest.approx((0.02, expected))
    assert rates(after, 5) == pytest.approx(rates(cosine(optimizer(), num_steps=12), 12)[7:])
    assert resumed(before, cosine(optimizer(), num_steps=7)) is None
    assert resumed(constant(optimizer()), constant(optimizer())) is None
    stepped = torch.optim.lr_scheduler.StepLR(optimizer(), 2)
    assert change_of_rate(stepped) is None


def test_a_negative_warm_up_is_refused() -> None:
    with pytest.raises(ValueError, match=r"schedule\.num_warmup_updates must be 0 or more, got -1"):
        stable(10, num_warmup_updates=-1)


def test_a_schedule_that_asks_for_a_measure_is_refused_before_a_run_begins() -> None:
    with pytest.raises(ConfigurationError, match=r"^schedule: .*'metrics'"):
        bind_schedule({"_target_": "torch.optim.lr_scheduler.ReduceLROnPlateau"})
