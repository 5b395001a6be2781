"""Likelihoods and bounds on them by brute force: the probabilities of all images sum to one, or to at most one.

Dimensions: B batch, n images, S symbols per site, h rows and w columns of sites, K values of a symbol.
"""

import itertools
import math
from collections.abc import Iterator
from dataclasses import replace
from typing import Literal, cast

import torch
import torch.nn.functional as F
from torch import Tensor

from genlab.checks.subject import (
    DoesNotApply,
    Finding,
    Subject,
    has,
    held_if,
    importance_weighted_measure,
    likelihood_measure,
    require,
)
from genlab.checks.variational import log_prior_ratio, observe
from genlab.models.base import Model
from genlab.models.capabilities import HasKL, IsCausal
from genlab.types import UNLABELLED, Batch, ImageSpec

_MOST_IMAGES = 4096
_ROWS_PER_PASS = 512
_SMALLEST = ((2, 4), (2, 2), (4, 4))
_SAME_TOTAL = 5e-4
_SAME_LIKELIHOOD = 1e-4
_NUM_DRAWS = 8
_NUM_SAMPLES = 5
_NUM_ERRORS = 5


def every_image(spec: ImageSpec) -> Batch:
    """Return all images of a small space, in the order of their levels; of the last class if there are classes."""
    size = spec.channels * spec.height * spec.width
    levels = torch.tensor(list(itertools.product(range(spec.num_levels), repeat=size)))
    images = levels.view(-1, spec.channels, spec.height, spec.width) / (spec.num_levels - 1)
    return Batch(images=images.float(), labels=one_class(spec, len(images)))


def one_class(spec: ImageSpec, size: int) -> Tensor:
    """Return the labels of images that are all of the last class, or unlabelled where there are no classes."""
    return torch.full((size,), spec.num_classes - 1 if spec.num_classes else UNLABELLED)


def in_order(values: Tensor) -> Tensor:
    """Reshape (B, S, h, w) to (B, P): rows from the top, sites from the left, symbols within a site."""
    return values.permute(0, 2, 3, 1).flatten(1)


def num_images(spec: ImageSpec) -> int:
    """Return the number of different images."""
    return cast(int, spec.num_levels ** (spec.channels * spec.height * spec.width))


@torch.no_grad()
def log_total_probability(model: Model, spec: ImageSpec, measure: str) -> tuple[float, int]:
    """Return the log of the total probability of all images, or of all with a given beginning, relative to it.

    The beginning is empty where at most 4,096 images are possible; otherwise the model must be causal, and the
    beginning leaves as many symbols as that number allows.

    Args:
        model: In evaluation mode.
        spec: Images that it was made for.
        measure: Key of the negative log-likelihood in nats.

    Returns:
        The logarithm, 0 for a distribution, and the number of images summed over.
    """
    if num_images(spec) <= _MOST_IMAGES:
        batch, log_beginning = every_image(spec), 0.0
    else:
        batch, log_beginning = _images_with_a_beginning(cast(IsCausal, model), spec)
    passes = zip(torch.split(batch.images, _ROWS_PER_PASS), torch.split(batch.labels, _ROWS_PER_PASS), strict=True)
    nats = torch.cat([model.evaluate(Batch(images=images, labels=labels))[measure] for images, labels in passes])
    return float(torch.logsumexp(-nats.double(), 0)) - log_beginning, len(nats)


def _images_with_a_beginning(model: IsCausal, spec: ImageSpec) -> tuple[Batch, float]:
    """Return all images that share a random beginning, and the log-probability of the beginning."""
    blank = model.to_symbols(torch.zeros(1, spec.channels, spec.height, spec.width))
    _, num_symbols, height, width = blank.shape
    count = num_symbols * height * width
    free = 1
    while free < count and model.num_values ** (free + 1) <= _MOST_IMAGES:
        free += 1
    endings = torch.cartesian_prod(*[torch.arange(model.num_values)] * free).view(-1, free)
    beginning = torch.randint(model.num_values, (1, count - free)).expand(len(endings), -1)
    symbols = torch.cat((beginning, endings), 1).view(-1, height, width, num_symbols).permute(0, 3, 1, 2).contiguous()
    labels = one_class(spec, len(symbols))
    logits = model.logits(symbols[:1], labels[:1]).transpose(1, 2)  # (1, K, S, h, w)
    of_beginning = -in_order(F.cross_entropy(logits, symbols[:1], reduction="none"))[0, : count - free].sum()
    return Batch(images=model.to_images(symbols), labels=labels), float(of_beginning.double())


def likelihood_is_that_of_the_logits(subject: Subject) -> Finding:
    """Check that the likelihood is the sum of the cross-entropies of the logits, from which samples are drawn."""
    model = subject.fresh(randomized=True).eval()
    causal = require(model, IsCausal)
    measure = likelihood_measure(model, "exact")
    if measure is None:
        raise DoesNotApply("it declares no exact likelihood")
    batch = subject.batch()
    symbols = causal.to_symbols(batch.images)
    with torch.no_grad():
        nats = model.evaluate(batch)[measure]
        logits = causal.logits(symbols, batch.labels).transpose(1, 2)  # (B, K, S, h, w)
    expected = F.cross_entropy(logits.double(), symbols, reduction="none").flatten(1).sum(1)
    error = float((nats - expected).abs().max() / expected.abs().max().clamp(min=1))
    return held_if(error < _SAME_LIKELIHOOD, f"largest relative difference from the cross-entropies {error:.1e}")


def probabilities_sum_to_one(subject: Subject) -> Finding:
    """Check that the probabilities of all images, or of all with an equal beginning, sum to one."""
    for model, spec, measure in _on_small_images(subject, "exact"):
        total, count = log_total_probability(model, spec, measure)
        nats = spec.channels * spec.height * spec.width * math.log(spec.num_levels)  # about those of an image
        rounding = max(_SAME_TOTAL, 4 * torch.finfo(torch.float32).eps * nats)
        return held_if(abs(total) < rounding, f"log of the sum {total:+.1e} over {count} images of {described(spec)}")
    raise DoesNotApply("it declares no exact likelihood, or takes no size with images few enough to sum over")


def bound_sums_to_at_most_one(subject: Subject) -> Finding:
    """Check that the exponential of a bound on log p(x), summed over all images, is at most one.

    So is that of an importance-weighted bound, whose expectation is one for every number of samples.
    """
    for model, spec, measure in _on_small_images(subject, "upper bound"):
        batch = every_image(spec)
        totals = [(measure, *log_total_under_the_bound(model, batch, measure))]
        if (weighted := importance_weighted_measure(model)) is not None:
            totals.append((weighted, *log_total_of_weights(model, batch, weighted)))
        told = ", ".join(f"{total:+.2g} +- {error:.1g} by {name}" for name, total, error in totals)
        return held_if(
            all(total < _NUM_ERRORS * error + _SAME_TOTAL for _, total, error in totals),
            f"log of the sum {told}, over {len(batch.images)} images of {described(spec)}; at most 0 for a bound",
        )
    raise DoesNotApply("it declares no upper bound on -log p(x), or takes no size with images few enough to sum over")


@torch.no_grad()
def log_total_under_the_bound(model: Model, batch: Batch, measure: str) -> tuple[float, float]:
    """Return an estimate of the log of the total probability of all images that a bound implies.

    With a KL the importance weights of single draws are summed, whose expectation is exactly one if bound and KL are
    right: p(x | z) is the bound without the KL. Otherwise the bound is averaged over the draws, and the sum is less
    than one.

    Args:
        model: In evaluation mode.
        batch: All images.
        measure: Key of the bound on the negative log-likelihood in nats.

    Returns:
        The log of the sum, and its standard error: that of the sum itself grows with the sum, of which a few images can
        be nearly all, and would hide a wrong bound.
    """
    logs = []
    for _ in range(_NUM_DRAWS):
        if has(model, HasKL):
            latent_model = cast(HasKL, model)
            observed = observe(latent_model, batch)
            kl = observed.measures[latent_model.kl_measure]
            logs.append(kl - observed.measures[measure] + log_prior_ratio(observed))
        else:
            logs.append(-model.evaluate(batch)[measure])
    if has(model, HasKL):
        return _log_total_of_weights(logs)
    draws = torch.stack(logs).double()  # (draws, n)
    variances = draws.var(0)
    # The exponential of a noisy mean is too large.
    return _with_error(draws.mean(0) - variances / (2 * _NUM_DRAWS), variances)


@torch.no_grad()
def log_total_of_weights(model: Model, batch: Batch, measure: str) -> tuple[float, float]:
    """Return the same for an importance-weighted bound: its exponential is the mean of K weights, as of single draws.

    A bound of the sum or of the largest of the weights agrees with the other bound for K = 1, and not here.
    """
    draws = (model.diagnose(batch, num_importance_samples=_NUM_SAMPLES)[measure] for _ in range(_NUM_DRAWS))
    return _log_total_of_weights([-nats for nats in draws])


def _log_total_of_weights(logs: list[Tensor]) -> tuple[float, float]:
    draws = torch.stack(logs).double()  # (draws, n)
    of_images = draws.logsumexp(0) - math.log(len(draws))
    return _with_error(of_images, (draws - of_images).exp().var(0))


def _with_error(of_images: Tensor, variances: Tensor) -> tuple[float, float]:
    """Return the log of the sum over images and its standard error; variances are of a draw, relative to the mean."""
    error = math.sqrt(float((of_images.softmax(0).square() * variances).sum()) / _NUM_DRAWS)
    return float(of_images.logsumexp(0)), error


def _on_small_images(subject: Subject, kind: Literal["exact", "upper bound"]) -> Iterator[tuple[Model, ImageSpec, str]]:
    """Yield the model on images of each size that it takes and that are few, with its measure of this kind."""
    for height, width in (*_SMALLEST, (subject.spec.height, subject.spec.width)):
        spec = replace(subject.spec, height=height, width=width)
        try:
            model = subject.fresh(spec, randomized=kind == "exact").eval()
            measure = likelihood_measure(model, kind)
            if measure is None:
                return
            model.evaluate(Batch(images=torch.zeros(1, spec.channels, height, width), labels=one_class(spec, 1)))
        except Exception:
            if spec == subject.spec:
                raise
            continue  # a size that the model does not take
        if num_images(spec) <= _MOST_IMAGES or (kind == "exact" and has(model, IsCausal)):
            yield model, spec, measure


def described(spec: ImageSpec) -> str:
    """Return a description of the size and the channels of images."""
    channels = "one channel" if spec.channels == 1 else f"{spec.channels} channels"
    return f"{spec.height}x{spec.width} pixels, {channels}"
