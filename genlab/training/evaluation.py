"""Averages of per-example measures over a split: right on the last partial batch, one host read at the end."""

from collections.abc import Callable, Iterable, Mapping
from contextlib import AbstractContextManager
from dataclasses import dataclass

import torch
from torch import Tensor

from genlab.types import Batch


@dataclass(frozen=True, kw_only=True)
class Average:
    """Mean over examples of one measure, and of each point of one curve."""

    mean: float | list[float]
    standard_error: float | list[float]
    """Standard deviation over examples divided by the square root of their number."""
    num_examples: int


@torch.no_grad()
def average_measures(evaluate: Callable[[Batch], Mapping[str, Tensor]], batches: Iterable[Batch]) -> dict[str, Average]:
    """Average what ``evaluate`` returns per example over all batches, in float64.

    Raises:
        ValueError: A measure is not per example, or there are no batches.
    """
    sums: dict[str, Tensor] = {}
    squares: dict[str, Tensor] = {}
    num_examples = 0
    for batch in batches:
        size = len(batch.images)
        for name, values in evaluate(batch).items():
            if values.dim() == 0 or len(values) != size:
                raise ValueError(f"measure {name} must be per example ({size}), got shape {tuple(values.shape)}")
            exact = values.to("cpu" if values.device.type == "mps" else values.device, torch.float64)
            sums[name] = sums.get(name, torch.zeros_like(exact[0])) + exact.sum(0)
            squares[name] = squares.get(name, torch.zeros_like(exact[0])) + exact.square().sum(0)
        num_examples += size
    if num_examples == 0:
        raise ValueError("there are no images to evaluate")
    averages = {}
    for name, total in sums.items():
        mean = total / num_examples
        variance = (squares[name] / num_examples - mean.square()).clamp_min(0)
        error = (variance / max(num_examples - 1, 1)).sqrt()
        averages[name] = Average(mean=mean.tolist(), standard_error=error.tolist(), num_examples=num_examples)
    return averages


def scalar_means(averages: Mapping[str, Average]) -> dict[str, float]:
    """The measures that are one number, without the curves."""
    return {name: average.mean for name, average in averages.items() if isinstance(average.mean, float)}


def as_written() -> AbstractContextManager[object]:
    """Run compiled modules eagerly: evaluation has other batch sizes, each of which would be compiled once more."""
    stance: AbstractContextManager[object] = torch.compiler.set_stance("force_eager")
    return stance
