"""Learning rates over time, as factors of the optimiser's own rate and pure functions of the step.

``final_fraction`` and ``warmup_fraction`` lie in [0, 1]. The steps of a run are 0, ..., num_steps - 1; the factor of
the last one is ``final_fraction``, and no step has the factor 0 unless ``final_fraction`` is 0.
"""

import math
from collections.abc import Callable

from torch.optim import Optimizer
from torch.optim.lr_scheduler import LambdaLR


def constant(optimizer: Optimizer) -> LambdaLR:
    """The optimiser's own learning rate throughout."""
    return LambdaLR(optimizer, _one)


def warmup_cosine(optimizer: Optimizer, *, num_steps: int, warmup_fraction: float, final_fraction: float) -> LambdaLR:
    """Linear warm-up, then half a cosine (Loshchilov & Hutter 2017, arXiv:1608.03983, eq. 5, without restarts).

    Args:
        optimizer: Its current learning rates are the peak.
        num_steps: Steps of the run.
        warmup_fraction: Part of the run that the warm-up takes.
        final_fraction: Learning rate of the last step, as a part of the peak.

    Raises:
        ValueError: A fraction is outside [0, 1].
    """
    return LambdaLR(optimizer, _warmed_up(num_steps, warmup_fraction, final_fraction, _half_cosine))


def warmup_linear(optimizer: Optimizer, *, num_steps: int, warmup_fraction: float, final_fraction: float) -> LambdaLR:
    """Linear warm-up, then a straight line; the arguments and errors of :func:`warmup_cosine`."""
    return LambdaLR(optimizer, _warmed_up(num_steps, warmup_fraction, final_fraction, _line))


def _warmed_up(
    num_steps: int, warmup_fraction: float, final_fraction: float, descent: Callable[[float], float]
) -> Callable[[int], float]:
    for key, value in (("warmup_fraction", warmup_fraction), ("final_fraction", final_fraction)):
        if not 0.0 <= value <= 1.0:
            raise ValueError(f"schedule.{key} must be between 0 and 1, got {value}")
    num_warmup_steps = round(warmup_fraction * num_steps)
    num_descent_steps = max(1, num_steps - 1 - num_warmup_steps)

    def factor(step: int) -> float:
        if step < num_warmup_steps:
            return (step + 1) / (num_warmup_steps + 1)
        # A scheduler is stepped once more after the last step of a run.
        progress = min(1.0, (step - num_warmup_steps) / num_descent_steps)
        return final_fraction + (1.0 - final_fraction) * descent(progress)

    return factor


def _one(step: int) -> float:
    del step
    return 1.0


def _half_cosine(progress: float) -> float:
    return 0.5 * (1.0 + math.cos(math.pi * progress))


def _line(progress: float) -> float:
    return 1.0 - progress
