"""Pure mathematics of likelihoods and divergences, in nats; nothing is reduced over the batch.

Dimensions are free (``*shape``) wherever a function acts on every element alone.
"""

import math
from typing import Any

import torch
from jaxtyping import Float, Int, UInt8
from torch import Tensor
from torch.nn import functional as F


def one_hot(indices: Int[Tensor, "*shape"], num_values: int) -> Float[Tensor, "*shape K"]:
    """Return each index as a one-hot vector; an index outside of the K values gives zeros."""
    return (indices[..., None] == torch.arange(num_values, device=indices.device)).float()


def at_least_float32(values: Float[Tensor, "*shape"]) -> Float[Tensor, "*shape"]:
    """Return half-precision values in float32, for computations that need it; others in their own type."""
    return values.float() if values.dtype in (torch.float16, torch.bfloat16) else values


def to_bytes(images: Float[Tensor, "*shape"]) -> UInt8[Tensor, "*shape"]:
    """Return images in [0, 1] as the nearest of 256 levels, as files store them."""
    return images.float().clamp(0, 1).mul(255).round().to(torch.uint8)


def from_bytes(levels: UInt8[Tensor, "*shape"]) -> Float[Tensor, "*shape"]:
    """Return 256 levels as images in [0, 1]."""
    return levels.float().div_(255)


def bounded(values: Float[Tensor, "*shape"], low: float, high: float = math.inf) -> Float[Tensor, "*shape"]:
    """Return the values clamped to bounds; outside, only gradients whose descent leads back inside are passed.

    The gradient of a plain clamp is zero there: a value that has once passed a bound would never return.
    """
    # A sampler clamps for each pixel, where the machinery of a gradient costs more than the clamp.
    if not (torch.is_grad_enabled() and values.requires_grad):
        return values.clamp(low, high)
    result: Tensor = _Bounded.apply(values, low, high)
    return result


class _Bounded(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, values: Tensor, low: float, high: float) -> Tensor:
        ctx.save_for_backward(values)
        ctx.low, ctx.high = low, high
        return values.clamp(low, high)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None, None]:
        (values,) = ctx.saved_tensors
        leads_out = ((values < ctx.low) & (gradient > 0)) | ((values > ctx.high) & (gradient < 0))
        return gradient.masked_fill(leads_out, 0), None, None


def tanh(x: Float[Tensor, "*shape"]) -> Float[Tensor, "*shape"]:
    """Return tanh x; in a compiled function as 2 sigmoid(2 x) - 1, which is faster there."""
    return 2 * torch.sigmoid(2 * x) - 1 if torch.compiler.is_compiling() else torch.tanh(x)


def kl_to_standard_normal(mu: Float[Tensor, "*shape"], log_sigma: Float[Tensor, "*shape"]) -> Float[Tensor, "*shape"]:
    """Return KL(N(mu, sigma^2) || N(0, 1)) of every latent dimension, in nats.

    The constant is 1/2 for each dimension of each step, so that the divergence of the prior from itself is 0
    (arXiv:1502.04623, eq. 11, whose constant T/2 holds for one latent dimension).
    """
    return 0.5 * (mu.square() + torch.exp(2 * log_sigma) - 1) - log_sigma


def log_normal_ratio(
    latent: Float[Tensor, "*shape"], noise: Float[Tensor, "*shape"], log_sigma: Float[Tensor, "*shape"]
) -> Float[Tensor, "*shape"]:
    """Return log N(z; 0, 1) - log N(z; mu, sigma^2) per latent dimension, in nats, for z = mu + sigma * noise.

    Its expectation over the noise is minus :func:`kl_to_standard_normal`.
    """
    return 0.5 * (noise.square() - latent.square()) + log_sigma


def importance_weighted_nll(log_weights: Float[Tensor, "K B"]) -> Float[Tensor, " B"]:
    """Return -log of the mean of K importance weights p(x, z_k) / q(z_k | x), in nats: an upper bound on -log p(x).

    Its expectation falls as K grows and equals the variational bound at K = 1 (Burda et al. 2015, arXiv:1509.00519,
    eq. 8 and theorem 1).
    """
    num_samples = torch.tensor(log_weights.shape[0], dtype=log_weights.dtype, device=log_weights.device)
    return num_samples.log() - log_weights.logsumexp(0)


def bernoulli_nll(logits: Float[Tensor, "*shape"], images: Float[Tensor, "*shape"]) -> Float[Tensor, "*shape"]:
    """Return -log Bernoulli(x | sigmoid(logits)) of every sub-pixel, in nats, for x in {0, 1}.

    Computed from logits: log(p + 1e-10) is wrong by nats where p is below 1e-11, and log(1 - p + 1e-10) where p rounds
    to 1, in float32 from logits of 17 on.
    """
    return F.binary_cross_entropy_with_logits(logits, images, reduction="none")


def binomial_nll(
    logits: Float[Tensor, "*shape"], images: Float[Tensor, "*shape"], *, num_levels: int
) -> Float[Tensor, "*shape"]:
    """Return -log Binomial(k | num_levels - 1 trials, sigmoid(logits)) of every sub-pixel, in nats.

    Args:
        logits: Log-odds of one trial.
        images: k / (num_levels - 1), the level k an integer in [0, num_levels - 1].
        num_levels: Number of values of a sub-pixel, at least 2.
    """
    logits, images = at_least_float32(logits), at_least_float32(images)
    num_trials = num_levels - 1
    count = images * num_trials
    # Filled on the device: a tensor made of a number would be a copy from the host each time.
    all_levels = count.new_full((), num_levels)
    log_choose = torch.lgamma(all_levels) - torch.lgamma(count + 1) - torch.lgamma(num_levels - count)
    return num_trials * bernoulli_nll(logits, images) - log_choose


def discretized_logistic_nll(
    location: Float[Tensor, "*shape"],
    log_scale: Float[Tensor, "*#shape"],
    images: Float[Tensor, "*shape"],
    *,
    num_levels: int,
) -> Float[Tensor, "*shape"]:
    """Return -log of the probability of each sub-pixel's bin under a logistic distribution, in nats.

    Levels lie at k / (num_levels - 1); a bin reaches half way to its neighbours, and the first and the last reach to
    infinity, so that the probabilities of all levels sum to 1 (Kingma et al. 2016, arXiv:1606.04934, appendix C.5;
    Salimans et al. 2017, arXiv:1701.05517, eq. 2).

    Args:
        location: Location of the logistic, on the scale of the images.
        log_scale: Log of its scale, on the same scale.
        images: Levels divided by (num_levels - 1), in [0, 1].
        num_levels: Number of values of a sub-pixel, at least 2.
    """
    width = 1 / (num_levels - 1)
    inverse_scale = torch.exp(-log_scale)
    upper = (images + 0.5 * width - location) * inverse_scale
    lower = (images - 0.5 * width - location) * inverse_scale
    # sigmoid(u) - sigmoid(l) = sigmoid(u) sigmoid(-l) (1 - exp(l - u)): no difference of nearly equal numbers, and
    # u - l does not depend on the pixel. The edge bins lose the factors of the side on which they are open.
    is_first = images < 0.5 * width
    is_last = images > 1 - 0.5 * width
    log_inner = torch.log(-torch.expm1(-width * inverse_scale))
    log_below = F.logsigmoid(upper).masked_fill(is_last, 0)
    log_above = F.logsigmoid(-lower).masked_fill(is_first, 0)
    return -(log_below + log_above + torch.where(is_first | is_last, torch.zeros_like(log_inner), log_inner))


def spherical_interpolation(
    start: Float[Tensor, "*shape"], end: Float[Tensor, "*shape"], fraction: float
) -> Float[Tensor, "*shape"]:
    """Return the point at `fraction` of the great arc from start to end, as flat vectors.

    Unlike linear interpolation, it keeps the norm of Gaussian draws in many dimensions (White 2016, arXiv:1609.04468).
    """
    a, b = start.flatten(), end.flatten()
    cosine = torch.dot(a, b) / (a.norm() * b.norm()).clamp_min(torch.finfo(a.dtype).tiny)
    angle = torch.acos(cosine.clamp(-1, 1))
    if min(angle, math.pi - angle) < 1e-4:  # parallel: the arc is the line, or opposite: there is no one arc
        return torch.lerp(start, end, fraction)
    return (torch.sin((1 - fraction) * angle) * start + torch.sin(fraction * angle) * end) / torch.sin(angle)
