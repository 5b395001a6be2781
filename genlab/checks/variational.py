"""Latent variables against torch.distributions: the KL divergence and the noise of the posterior.

Dimensions: B batch, D latents of all groups.
"""

import math
from collections.abc import Sequence
from statistics import NormalDist
from typing import NamedTuple, cast

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.distributions import Distribution, Independent, kl_divergence

from genlab.checks.subject import (
    DoesNotApply,
    Finding,
    Subject,
    held_if,
    importance_weighted_measure,
    likelihood_measure,
    require,
)
from genlab.models.base import Model
from genlab.models.capabilities import HasKL, HasPosteriorLayers, Latent
from genlab.types import Batch

_NUM_IMAGES = 1000
_ROUNDING = 1e-5
_NUM_WEIGHTED = 500
_DISTANCE = 3.0


class Observed(NamedTuple):
    """The measures of one evaluation and the latent variables behind them."""

    measures: dict[str, Tensor]
    latents: Sequence[Latent]


@torch.no_grad()
def observe(model: HasKL, batch: Batch) -> Observed:
    """Return the measures of a batch and their latent variables, drawn from the same state of the generator."""
    state = torch.default_generator.get_state()
    measures = model.evaluate(batch)
    torch.default_generator.set_state(state)
    return Observed(measures, model.latents(batch))


def kl_at_the_prior(model: HasPosteriorLayers, batch: Batch) -> Float[Tensor, " B"]:
    """Return the measure of the KL, in nats, with the posterior set to the prior.

    Raises:
        ValueError: The layers that the model gives do not make the posterior the prior.
    """
    calls: list[nn.Module] = []

    def zero(layer: nn.Module, _: object, output: Tensor) -> Tensor:
        calls.append(layer)
        return torch.zeros_like(output)

    handles = [layer.register_forward_hook(zero) for layer in model.posterior_layers()]
    try:
        observed = observe(model, batch)
    finally:
        for handle in handles:
            handle.remove()
    if not calls:
        raise ValueError("evaluate calls none of posterior_layers()")
    if float(kl_of_distributions(observed).abs().max()) > 0:
        raise ValueError("with zeros from posterior_layers() the posterior is not the prior")
    return observed.measures[model.kl_measure]


def kl_of_distributions(observed: Observed) -> Float[Tensor, " B"]:
    """Return the sum of torch's own KL over all latent variables, in nats."""
    divergences = [kl_divergence(latent.posterior, latent.prior) for latent in observed.latents]
    return torch.stack([divergence.reshape(len(divergence), -1).sum(1) for divergence in divergences]).sum(0)


def log_prior_ratio(observed: Observed) -> Float[Tensor, " B"]:
    """Return log p(z) - log q(z | x) of the draws."""
    ratios = [
        latent.prior.log_prob(latent.value) - latent.posterior.log_prob(latent.value) for latent in observed.latents
    ]
    return torch.stack([ratio.reshape(len(ratio), -1).sum(1) for ratio in ratios]).sum(0)


def noise_of(observed: Observed) -> Float[Tensor, "B D"]:
    """Return the draws of all latents, less the posterior's mean and divided by its standard deviation.

    Raises:
        DoesNotApply: A posterior is of classes or has correlations of its own.
    """
    for latent in observed.latents:
        if not _is_factorised(latent.posterior):
            raise DoesNotApply(f"the latents of a {type(latent.posterior).__name__} are not independent numbers")
    noise = [(latent.value - latent.posterior.mean) / latent.posterior.stddev for latent in observed.latents]
    return torch.cat([part.flatten(1) for part in noise], 1)


def correlation_of_noise(observed: Observed) -> Float[Tensor, "D D"]:
    """Return the correlation of `noise_of` any two latents, over the images.

    Raises:
        DoesNotApply: As `noise_of`, or there is one latent.
    """
    noise = noise_of(observed)
    if noise.shape[1] < 2:
        raise DoesNotApply("it has one latent variable")
    return torch.corrcoef(noise.t())


def _is_factorised(posterior: Distribution) -> bool:
    """Return True if each number that is drawn has a distribution of its own, with a mean and a deviation."""
    base = _base_of(posterior)
    return not base.event_shape and bool(torch.isfinite(base.mean).all())


def _base_of(distribution: Distribution) -> Distribution:
    while isinstance(distribution, Independent):
        distribution = distribution.base_dist
    return distribution


def kl_is_zero_at_the_prior(subject: Subject) -> Finding:
    """Check that the KL of a posterior equal to the prior is zero, for any number of latents."""
    model = require(subject.fresh(randomized=True).eval(), HasPosteriorLayers)
    largest = float(kl_at_the_prior(model, subject.batch()).abs().max())
    return held_if(largest == 0.0, f"largest |{model.kl_measure}| {largest:.3g} at the prior")


def kl_is_that_of_torch(subject: Subject) -> Finding:
    """Check that the KL equals that of torch.distributions for the posteriors of the latents."""
    model = require(subject.fresh(randomized=True).eval(), HasKL)
    observed = observe(model, subject.batch())
    expected = kl_of_distributions(observed)
    error = float(((observed.measures[model.kl_measure] - expected) / expected.clamp(min=1)).abs().max())
    return held_if(error < 1e-4, f"largest relative difference from torch.distributions {error:.1e}")


def draws_are_of_the_posterior(subject: Subject) -> Finding:
    """Check the distribution of the draws, and their mean and variance: a variance for a deviation bounds nothing."""
    model = require(subject.fresh(randomized=True).eval(), HasKL)
    observed = observe(model, subject.batch(_NUM_IMAGES))
    noise = noise_of(observed).double()
    errors = [  # of the mean, whose expectation is zero, and of the square, one; each in its standard errors
        (values.mean(0) - expected).abs() / values.std(0) * math.sqrt(_NUM_IMAGES)
        for values, expected in ((noise, 0.0), (noise.square(), 1.0))
    ]
    # The largest of thousands of means is about four standard errors from its expectation.
    of_mean, of_square = (float(error.max()) for error in errors)
    variances = noise.square().mean(0)
    distance = _distance_of_draws(observed)
    told = "" if distance is None else f"; distance of their distribution {distance:.2f}, by chance below {_DISTANCE:g}"
    return held_if(
        of_mean < 6 and of_square < 6 and (distance is None or distance < _DISTANCE),
        f"variance of the draws by that of the posterior {float(variances.min()):.3g} to {float(variances.max()):.3g}; "
        f"largest error of a mean {of_mean:.1f}, of a variance {of_square:.1f} standard errors{told}",
    )


def _distance_of_draws(observed: Observed) -> float | None:
    """Return the Kolmogorov-Smirnov distance of all draws from their posteriors, times the root of their number.

    None if a posterior has no cumulative distribution function. Above 3 it is by chance with a probability of 3e-8.
    """
    try:
        quantiles = [_base_of(latent.posterior).cdf(latent.value).flatten() for latent in observed.latents]
    except NotImplementedError:
        return None
    ordered = torch.cat(quantiles).double().sort().values
    steps = torch.arange(len(ordered) + 1, dtype=torch.float64) / len(ordered)
    return math.sqrt(len(ordered)) * float(torch.maximum(steps[1:] - ordered, ordered - steps[:-1]).max())


def noise_is_fresh(subject: Subject) -> Finding:
    """Check that no two latents, of one group or of two, are drawn from the same noise."""
    model = require(subject.fresh(randomized=True).eval(), HasKL)
    correlation = correlation_of_noise(observe(model, subject.batch(_NUM_IMAGES)))
    largest = float((correlation - torch.eye(len(correlation))).abs().max())
    # Of as many independent pairs one is above this in a millionth of the cases.
    num_pairs = len(correlation) * (len(correlation) - 1) / 2
    limit = -NormalDist().inv_cdf(5e-7 / num_pairs) / math.sqrt(_NUM_IMAGES)
    return held_if(
        largest < limit, f"largest correlation of two latents' noise {largest:.3f}, by chance below {limit:.3f}"
    )


def bound_depends_on_the_draw(subject: Subject) -> Finding:
    """Check that the bound without the KL differs between two draws: the decoder reads them, and not their means."""
    model = require(subject.fresh(randomized=True).eval(), HasKL)
    bound = likelihood_measure(cast(Model, model), "upper bound")
    if bound is None:
        raise DoesNotApply("it declares no upper bound")
    batch = subject.batch()
    first, second = (observe(model, batch).measures for _ in range(2))
    change = float(((first[bound] - first[model.kl_measure]) - (second[bound] - second[model.kl_measure])).abs().max())
    rounding = _ROUNDING * float(first[bound].abs().max() + first[model.kl_measure].abs().max())
    return held_if(change > rounding, f"{bound} without the KL differs by up to {change:.3g} nats between two draws")


def bound_agrees_with_importance_weights(subject: Subject) -> Finding:
    """Check that the bound equals that of one importance sample in expectation, and exceeds that of five."""
    model = subject.fresh().eval()
    bound = likelihood_measure(model, "upper bound")
    weighted = importance_weighted_measure(model)
    if bound is None or weighted is None:
        raise DoesNotApply("it declares no importance-weighted bound beside an upper bound")
    batch = subject.batch(_NUM_WEIGHTED)
    gaps = {}
    for num_samples in (1, 5):
        with torch.no_grad():
            measures = model.diagnose(batch, num_importance_samples=num_samples)
        gap = measures[bound] - measures[weighted]
        gaps[num_samples] = (float(gap.mean()), float(gap.std()) / math.sqrt(len(gap)))
    (one, one_error), (five, five_error) = gaps[1], gaps[5]
    # If the posterior equals the prior, all weights are equal, and only rounding is left.
    rounding = 1e-3
    holds = abs(one) < 5 * one_error + rounding and five > -5 * five_error - rounding
    seen = f"bound minus weighted bound: K=1 {one:.3g} +- {one_error:.2g}, K=5 {five:.3g} +- {five_error:.2g} nats"
    return held_if(holds, seen)
