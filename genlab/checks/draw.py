"""The variational bound of DRAW against torch.distributions, importance weights and its own noise.

Dimensions: T glimpses, B batch, Z latents of one glimpse.
"""

import math
from typing import NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor
from torch.distributions import Normal, kl_divergence

from genlab.checks.subject import Finding, Subject, held_if
from genlab.models.draw.draw import DRAW
from genlab.models.draw.glimpse import Posterior
from genlab.types import Batch

_NOT_DRAW = "it is no DRAW"
_NUM_IMAGES = 1000
_NUM_WEIGHTED = 500


class Observed(NamedTuple):
    """The measures of one evaluation and the posteriors of its glimpses."""

    measures: dict[str, Tensor]
    mu: Float[Tensor, "T B Z"]
    log_sigma: Float[Tensor, "T B Z"]
    latent: Float[Tensor, "T B Z"]

    @property
    def noise(self) -> Float[Tensor, "T B Z"]:
        """The standard normal draw behind each latent."""
        return (self.latent - self.mu) * torch.exp(-self.log_sigma)


@torch.no_grad()
def observe(model: DRAW, batch: Batch) -> Observed:
    """Return the measures of a batch, and the posterior of every glimpse that led to them."""
    posteriors: list[Posterior] = []
    handle = model.glimpse.register_forward_hook(lambda _, __, made: posteriors.append(made[1]))
    try:
        measures = model.evaluate(batch)
    finally:
        handle.remove()
    return Observed(measures, *(torch.stack(parts) for parts in zip(*posteriors, strict=True)))


def kl_at_the_prior(model: DRAW, batch: Batch) -> Float[Tensor, " B"]:
    """Return the KL in nats of a model whose posterior was made the prior, N(0, 1); changes the model."""
    with torch.no_grad():
        model.glimpse.posterior.weight.zero_()
        model.glimpse.posterior.bias.zero_()
    return model.evaluate(batch)["kl_nats"]


def kl_of_distributions(observed: Observed) -> Float[Tensor, " B"]:
    """Return the sum over glimpses and latents of torch's own KL, nats."""
    divergence = kl_divergence(Normal(observed.mu, observed.log_sigma.exp()), Normal(0.0, 1.0))
    return divergence.sum((0, 2))


def correlation_of_noise(observed: Observed) -> Float[Tensor, "T_Z T_Z"]:
    """Between every two latents of all glimpses, over the images."""
    return torch.corrcoef(observed.noise.permute(0, 2, 1).flatten(0, 1))


def kl_is_zero_at_the_prior(subject: Subject) -> Finding:
    """A posterior equal to the prior costs nothing, whatever the numbers of glimpses and latents."""
    model = subject.fresh_of(DRAW, _NOT_DRAW, randomized=True).eval()
    largest = float(kl_at_the_prior(model, subject.batch()).abs().max())
    size = f"{model.num_glimpses} glimpses of {model.latent_size} latents"
    return held_if(largest == 0.0, f"largest |KL| {largest:.3g} nats at the prior, of {size}")


def kl_is_that_of_torch(subject: Subject) -> Finding:
    """kl_nats is the divergence of the posteriors that the latents were drawn from."""
    model = subject.fresh_of(DRAW, _NOT_DRAW, randomized=True).eval()
    observed = observe(model, subject.batch())
    expected = kl_of_distributions(observed)
    error = float(((observed.measures["kl_nats"] - expected) / expected.clamp(min=1)).abs().max())
    return held_if(error < 1e-4, f"largest relative difference from torch.distributions {error:.1e}")


def noise_is_fresh(subject: Subject) -> Finding:
    """No two latents, of one glimpse or of two, are drawn from the same noise."""
    model = subject.fresh_of(DRAW, _NOT_DRAW, randomized=True).eval()
    correlation = correlation_of_noise(observe(model, subject.batch(_NUM_IMAGES)))
    largest = float((correlation - torch.eye(len(correlation))).abs().max())
    # The largest of thousands of correlations of independent noise is about four standard deviations.
    limit = 6 / math.sqrt(_NUM_IMAGES)
    return held_if(
        largest < limit, f"largest correlation of two latents' noise {largest:.3f}, by chance below {limit:.3f}"
    )


def bound_agrees_with_importance_weights(subject: Subject) -> Finding:
    """The bound is that of one importance sample in expectation, and above that of five (Burda et al. 2016)."""
    model = subject.fresh_of(DRAW, _NOT_DRAW).eval()
    batch = subject.batch(_NUM_WEIGHTED)
    gaps = {}
    for num_samples in (1, 5):
        measures = model.diagnose(batch, num_importance_samples=num_samples)
        gap = measures["nll_upper_bound_nats"] - measures["nll_importance_weighted_nats"]
        gaps[num_samples] = (float(gap.mean()), float(gap.std()) / math.sqrt(len(gap)))
    (one, one_error), (five, five_error) = gaps[1], gaps[5]
    # If the posterior equals the prior, all weights are equal, and only rounding is left.
    rounding = 1e-3
    holds = abs(one) < 5 * one_error + rounding and five > -5 * five_error - rounding
    seen = f"bound minus weighted bound: K=1 {one:.3g} +- {one_error:.2g}, K=5 {five:.3g} +- {five_error:.2g} nats"
    return held_if(holds, seen)
