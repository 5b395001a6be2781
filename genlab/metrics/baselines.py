"""Baseline likelihoods that every model should exceed.

Both baselines are exact probabilities of the integer levels, so their nats compare with any exact likelihood or bound
on the same images.
"""

import math

import torch
from jaxtyping import Float
from torch import Tensor

from genlab.data.dataset import Dataset, Split
from genlab.measures import Measure, bits_per_dim, negative_log_likelihood
from genlab.training.evaluation import Average, average_measures
from genlab.types import Batch, ImageSpec

# Large batches: the work per image is a table look-up.
BATCH_SIZE = 1000

_BASELINES = ("baseline_uniform", "baseline_per_pixel_bernoulli", "baseline_per_pixel_categorical")
BASELINE_MEASURES: dict[str, Measure] = {
    **{f"{name}_nats": negative_log_likelihood("exact") for name in _BASELINES},
    **{f"{name}_bits_per_dim": bits_per_dim("exact") for name in _BASELINES},
}


def level_log_probabilities(dataset: Dataset, *, seed: int, device: torch.device) -> Float[Tensor, "K C H W"]:
    """Return the log-probability of each level at each sub-pixel, from the training split's counts plus one.

    Adding one keeps a level that training never showed from costing infinitely many nats.
    """
    spec = dataset.spec
    num_dimensions = spec.channels * spec.height * spec.width
    counts = torch.ones(spec.num_levels * num_dimensions, dtype=torch.float64)
    positions = torch.arange(num_dimensions)
    for batch in dataset.batches("train", batch_size=BATCH_SIZE, seed=seed, device=device):
        levels = _levels(batch, spec).cpu().flatten(1)  # (B, D)
        counts += torch.bincount((levels * num_dimensions + positions).flatten(), minlength=len(counts))
    counts = counts.view(spec.num_levels, spec.channels, spec.height, spec.width)
    return (counts / counts.sum(0)).log()


def baseline_averages(
    dataset: Dataset, split: Split, *, seed: int, device: torch.device, limit: int | None = None
) -> dict[str, Average]:
    """Return the nats per image and bits per sub-pixel of the uniform model and of independent sub-pixels.

    Args:
        dataset: Its training split sets the probabilities.
        split: Split on which they are measured.
        seed: Of the binarisation, where it is stochastic.
        device: Device on which the images are gathered.
        limit: Measure on a random choice of so many images; None takes all.
    """
    spec = dataset.spec
    table = level_log_probabilities(dataset, seed=seed, device=device)
    independent = "baseline_per_pixel_bernoulli" if spec.num_levels == 2 else "baseline_per_pixel_categorical"
    num_dimensions = spec.channels * spec.height * spec.width

    def evaluate(batch: Batch) -> dict[str, Tensor]:
        levels = _levels(batch, spec).cpu()
        log_likelihood = table.gather(0, levels).sum((1, 2, 3))
        uniform = torch.full_like(log_likelihood, num_dimensions * math.log(spec.num_levels))
        nats = {independent: -log_likelihood, "baseline_uniform": uniform}
        bits = {f"{name}_bits_per_dim": values / (num_dimensions * math.log(2)) for name, values in nats.items()}
        return {f"{name}_nats": values for name, values in nats.items()} | bits

    batches = dataset.batches(split, batch_size=BATCH_SIZE, seed=seed, device=device, limit=limit)
    return average_measures(evaluate, batches)


def _levels(batch: Batch, spec: ImageSpec) -> Tensor:
    return (batch.images * (spec.num_levels - 1)).round().long()
