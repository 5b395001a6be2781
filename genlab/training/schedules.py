"""Learning-rate schedules: factors of the optimiser's own rate, pure functions of the number of updates.

Fractions lie in [0, 1]. A step of a schedule is an update of its phase: they are 0, ..., num_steps - 1, where num_steps
is the length of the run times the phase's repeats. The factor of the last one is ``final_fraction`` if at least two
decay, and none has the factor 0 unless ``final_fraction`` is 0.
"""

import math
from collections.abc import Callable

from torch.optim import Optimizer
from torch.optim.lr_scheduler import LambdaLR, LRScheduler


class Constant(LambdaLR):
    """A schedule that keeps the optimiser's own learning rate and only counts steps."""

    def __init__(self, optimizer: Optimizer) -> None:
        super().__init__(optimizer, lambda _: 1.0)

    def step(self, epoch: int | None = None) -> None:
        if self.last_epoch < 0 or epoch is not None:
            super().step(epoch)
        else:
            self.last_epoch += 1
            self._step_count += 1


def constant(optimizer: Optimizer) -> LambdaLR:
    """Return a schedule that keeps the optimiser's own learning rate."""
    return Constant(optimizer)


def warmup_cosine(optimizer: Optimizer, *, num_steps: int, warmup_fraction: float, final_fraction: float) -> LambdaLR:
    """Return a linear warm-up, then half a cosine (Loshchilov & Hutter 2017, arXiv:1608.03983, eq. 5).

    Args:
        optimizer: Its current learning rates are the peak.
        num_steps: Updates of the phase in the whole run.
        warmup_fraction: Part of the run that the warm-up takes.
        final_fraction: Learning rate of the last step, as a part of the peak.

    Raises:
        ValueError: A fraction is outside [0, 1].
    """
    return LambdaLR(optimizer, _warmed_up(num_steps, warmup_fraction, final_fraction, _half_cosine))


def warmup_linear(optimizer: Optimizer, *, num_steps: int, warmup_fraction: float, final_fraction: float) -> LambdaLR:
    """Return a linear warm-up, then a linear decay; arguments and errors as of :func:`warmup_cosine`."""
    return LambdaLR(optimizer, _warmed_up(num_steps, warmup_fraction, final_fraction, _line))


def warmup_stable_decay(
    optimizer: Optimizer, *, num_steps: int, num_warmup_updates: int, decay_fraction: float, final_fraction: float
) -> LambdaLR:
    """Return a linear warm-up, then the optimiser's own rate, then a linear decay (Hu et al. 2024, arXiv:2404.06395).

    Made for runs that are lengthened: before the decay no rate depends on the length of the run, so that a lengthened
    one continues at the rate that it had.

    Args:
        optimizer: Its current learning rates are the peak.
        num_steps: Updates of the phase in the whole run.
        num_warmup_updates: Updates of a phase that the warm-up takes, whatever the length of the run.
        decay_fraction: Part of the run, at its end, in which the rate falls; 0 never lets it fall.
        final_fraction: Learning rate of the last step of the decay, as a part of the peak.

    Raises:
        ValueError: A fraction is outside [0, 1], or the number is negative.
    """
    _require_fractions(decay_fraction=decay_fraction, final_fraction=final_fraction)
    if num_warmup_updates < 0:
        raise ValueError(f"schedule.num_warmup_updates must be 0 or more, got {num_warmup_updates}")
    num_decay_steps = round(decay_fraction * num_steps)

    def factor(step: int) -> float:
        warmed_up = min(1.0, (step + 1) / (num_warmup_updates + 1))
        # The first step of the decay still has the rate before it, so that a run may be lengthened by its decay alone.
        num_decayed = max(0, step - (num_steps - num_decay_steps))
        progress = min(1.0, num_decayed / max(num_decay_steps - 1, 1)) if num_decay_steps else 0.0
        return warmed_up * (1.0 - (1.0 - final_fraction) * progress)

    return LambdaLR(optimizer, factor)


def change_of_rate(schedule: LRScheduler) -> tuple[float, float] | None:
    """Set a schedule with a loaded state to the rate of its own arguments at that step; return both rates.

    A state keeps the rate that was due under the arguments of the run that saved it, and a schedule that depends on
    ``num_steps`` is another one in a run that was lengthened.

    Returns:
        The rate of the state and the one that takes its place, of the first group of parameters; None where they are
        equal, or where the rate is no function of the step.
    """
    if not isinstance(schedule, LambdaLR):
        return None
    before = schedule.get_last_lr()
    step = schedule.last_epoch
    after = [rate * factor(step) for rate, factor in zip(schedule.base_lrs, schedule.lr_lambdas, strict=True)]
    if all(math.isclose(old, new) for old, new in zip(before, after, strict=True)):
        return None
    for group, rate in zip(schedule.optimizer.param_groups, after, strict=True):
        group["lr"] = rate
    schedule._last_lr = after
    return float(before[0]), float(after[0])


def moves_momentum(schedule: LRScheduler) -> bool:
    """Return True if a schedule of PyTorch, or one of those that it is made of, changes more than the learning rate."""
    parts = getattr(schedule, "_schedulers", [])
    return bool(getattr(schedule, "cycle_momentum", False)) or any(map(moves_momentum, parts))


def _warmed_up(
    num_steps: int, warmup_fraction: float, final_fraction: float, descent: Callable[[float], float]
) -> Callable[[int], float]:
    _require_fractions(warmup_fraction=warmup_fraction, final_fraction=final_fraction)
    num_warmup_steps = round(warmup_fraction * num_steps)
    num_descent_steps = max(1, num_steps - 1 - num_warmup_steps)

    def factor(step: int) -> float:
        if step < num_warmup_steps:
            return (step + 1) / (num_warmup_steps + 1)
        # A scheduler is stepped once more after the last step of a run.
        progress = min(1.0, (step - num_warmup_steps) / num_descent_steps)
        return final_fraction + (1.0 - final_fraction) * descent(progress)

    return factor


def _require_fractions(**fractions: float) -> None:
    for key, value in fractions.items():
        if not 0.0 <= value <= 1.0:
            raise ValueError(f"schedule.{key} must be between 0 and 1, got {value}")


def _half_cosine(progress: float) -> float:
    return 0.5 * (1.0 + math.cos(math.pi * progress))


def _line(progress: float) -> float:
    return 1.0 - progress
