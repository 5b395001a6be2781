"""The discretised mixture of logistics of PixelCNN++, exactly normalised over the levels.

Paper: PixelCNN++, Salimans, Karpathy, Chen, Kingma, arXiv:1701.05517, section 2.1 (equation 2) and 2.2 (equation 3).

Level k of K stands at x = 2 k / (K - 1) - 1, in [-1, 1], and takes the probability of the logistic distribution
between x - 1 / (K - 1) and x + 1 / (K - 1); the lowest level takes everything below, the highest everything above.

Dimensions: B batch (any shape), C channels, P pairs of channels, M mixture components, N parameters of a
mixture, K levels, G = ceil(sqrt(K)).
"""

import math
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from torch import Tensor

from genlab.functional import bounded

# As in the paper's program: a logistic of this scale, at a level of 256, puts 97 % of its mass on it.
LEAST_LOG_SCALE = -7.0


@dataclass(frozen=True, kw_only=True)
class MixtureParameters:
    """One mixture per pixel, channels last; component m is chosen once for all channels of the pixel."""

    log_weights: Float[Tensor, "*B M"]
    """Normalised: their exponentials sum to one."""
    means: Float[Tensor, "*B C M"]
    """Before the shift by earlier channels."""
    log_scales: Float[Tensor, "*B C M"]
    coefficients: Float[Tensor, "*B P M"]
    """In [-1, 1], for the pairs (earlier, later) of channels in the order (0, 1), (0, 2), (1, 2)."""

    def shifted_means(self, positions: Float[Tensor, "*B C"], channel: int) -> Float[Tensor, "*B M"]:
        """Return the means of a channel (eq. 3), given the positions in [-1, 1] of the channels before it."""
        means = self.means[..., channel, :]
        first = channel * (channel - 1) // 2
        for earlier in range(channel):
            means = means + self.coefficients[..., first + earlier, :] * positions[..., earlier, None]
        return means


def num_mixture_parameters(num_channels: int, num_components: int) -> int:
    """Return the number of parameters of a pixel's mixture: 10 M for three channels, 3 M for one."""
    num_pairs = num_channels * (num_channels - 1) // 2
    return num_components * (1 + 2 * num_channels + num_pairs)


def split_mixture_parameters(raw: Float[Tensor, "*B N"], num_channels: int) -> MixtureParameters:
    """Return a network's output at a pixel as a mixture."""
    num_pairs = num_channels * (num_channels - 1) // 2
    rows = torch.unflatten(raw, -1, (1 + 2 * num_channels + num_pairs, -1))
    logits, means, log_scales, coefficients = torch.split(rows, [1, num_channels, num_channels, num_pairs], -2)
    return MixtureParameters(
        log_weights=logits.squeeze(-2).log_softmax(-1),
        means=means,
        log_scales=bounded(log_scales, LEAST_LOG_SCALE),
        coefficients=coefficients.tanh() if num_pairs else coefficients,
    )


def level_positions(levels: Int[Tensor, "*B"], num_levels: int, dtype: torch.dtype) -> Float[Tensor, "*B"]:
    """Map levels 0 to K - 1 to positions in [-1, 1]."""
    return levels.to(dtype) * (2 / (num_levels - 1)) - 1


def discretized_logistic_log_prob(
    levels: Int[Tensor, "*#B"], means: Float[Tensor, "*#B"], log_scales: Float[Tensor, "*#B"], *, num_levels: int
) -> Float[Tensor, "*B"]:
    """Return the log-probability of a level under one logistic, nats; over the K levels the probabilities sum to one.

    The distribution is that of :func:`genlab.functional.discretized_logistic_nll`, here of integer levels on [-1, 1].
    sigmoid(a) - sigmoid(b) is written sigmoid(a) sigmoid(-b) (1 - exp(b - a)), whose logarithm keeps its precision
    and its gradient far out in the tails, where the difference itself is zero in float arithmetic.
    """
    half_bin = 1 / (num_levels - 1)
    inverse_scales = torch.exp(-log_scales)
    centred = level_positions(levels, num_levels, means.dtype) - means
    upper = (centred + half_bin) * inverse_scales
    lower = (centred - half_bin) * inverse_scales
    below_upper = torch.where(levels == num_levels - 1, 0.0, F.logsigmoid(upper))
    above_lower = torch.where(levels == 0, 0.0, F.logsigmoid(-lower))
    is_inner = (levels > 0) & (levels < num_levels - 1)
    between = torch.log(-torch.expm1(-2 * half_bin * inverse_scales))
    return below_upper + above_lower + torch.where(is_inner, between, 0.0)


def mixture_log_prob(
    parameters: MixtureParameters, levels: Int[Tensor, "*B C"], *, num_levels: int
) -> Float[Tensor, "*B"]:
    """Return the log-probability of all channels of a pixel together, nats."""
    positions = level_positions(levels, num_levels, parameters.means.dtype)
    joint = parameters.log_weights
    for channel in range(levels.shape[-1]):
        joint = joint + discretized_logistic_log_prob(
            levels[..., channel, None],
            parameters.shifted_means(positions, channel),
            parameters.log_scales[..., channel, :],
            num_levels=num_levels,
        )
    return joint.logsumexp(-1)


def channel_log_probs(
    parameters: MixtureParameters, levels: Int[Tensor, "*B C"], channel: int, *, num_levels: int
) -> Float[Tensor, "*B K"]:
    """Return log-probabilities of all levels of one channel, given the channels before it."""
    positions = level_positions(levels, num_levels, parameters.means.dtype)
    log_weights = _remaining_log_weights(parameters, levels, channel, num_levels=num_levels)
    every_level = torch.arange(num_levels, device=levels.device)[:, None]  # (K, 1)
    log_probs = discretized_logistic_log_prob(
        every_level,
        parameters.shifted_means(positions, channel)[..., None, :],
        parameters.log_scales[..., channel, None, :],
        num_levels=num_levels,
    )
    return (log_weights[..., None, :] + log_probs).logsumexp(-1)


def upper_edges(num_levels: int, *, like: Tensor) -> Float[Tensor, "G G"]:
    """Return the upper edges of the K levels in rows of G, about sqrt(K); infinite from the highest level on.

    Args:
        num_levels: K.
        like: Has their dtype and device.
    """
    size = math.isqrt(num_levels - 1) + 1
    levels = torch.arange(size * size, device=like.device)
    edges = level_positions(levels, num_levels, like.dtype) + 1 / (num_levels - 1)
    edges[num_levels - 1 :] = math.inf
    return edges.view(size, size)


def invert_channel_cdf(
    parameters: MixtureParameters,
    levels: Int[Tensor, "*B C"],
    channel: int,
    uniforms: Float[Tensor, "*B"],
    *,
    edges: Float[Tensor, "G G"],
    num_levels: int,
) -> Int[Tensor, "*B"]:
    """Return the lowest level at which the cumulative probability of a channel exceeds the uniform.

    The cumulative probability of a level is that of its upper edge, a mixture of sigmoids, so no other level has to be
    evaluated. Two looks at G levels find it: the first at the last level of every row, the second at the levels of one.

    Args:
        parameters: One mixture per pixel.
        levels: Of the earlier channels; the others are not looked at.
        channel: Index of the channel to draw.
        uniforms: In [0, 1).
        edges: Of :func:`upper_edges`.
        num_levels: K.
    """
    # (*B, M, G): a sum along M is faster where G is the last dimension.
    weights = _remaining_log_weights(parameters, levels, channel, num_levels=num_levels).exp()[..., None]
    means = parameters.means[..., channel, :]
    if channel:
        means = parameters.shifted_means(level_positions(levels, num_levels, means.dtype), channel)
    means = means[..., None]
    inverse_scales = torch.exp(-parameters.log_scales[..., channel, :, None])
    thresholds = uniforms[..., None]

    def num_below(candidates: Tensor) -> Tensor:
        """Count the upper edges (*B, G) whose cumulative probability does not exceed the uniform."""
        shares = candidates[..., None, :].sub(means).mul_(inverse_scales).sigmoid_().mul_(weights)
        return (shares.sum(-2) <= thresholds).sum(-1)

    size = len(edges)
    row = num_below(edges[:, -1]).clamp_(max=size - 1)
    return (size * row + num_below(edges[row])).clamp_(max=num_levels - 1)


def _remaining_log_weights(
    parameters: MixtureParameters, levels: Int[Tensor, "*B C"], channel: int, *, num_levels: int
) -> Float[Tensor, "*B M"]:
    """Return the weights of the components that the earlier channels leave, by Bayes' rule; log, normalised."""
    if channel == 0:
        return parameters.log_weights
    positions = level_positions(levels, num_levels, parameters.means.dtype)
    log_weights = parameters.log_weights
    for earlier in range(channel):
        log_weights = log_weights + discretized_logistic_log_prob(
            levels[..., earlier, None],
            parameters.shifted_means(positions, earlier),
            parameters.log_scales[..., earlier, :],
            num_levels=num_levels,
        )
    return log_weights.log_softmax(-1)
