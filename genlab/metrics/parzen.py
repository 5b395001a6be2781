"""Parzen-window estimate of the log-likelihood, as the GAN papers of 2014 report it.

Gaussians of one bandwidth are put on generated images, and test images are scored under their mixture, in nats of a
density on images in [0, 1]; the bandwidth is the one of BANDWIDTHS under which validation images score best
(Goodfellow et al. 2014, arXiv:1406.2661, section 5: 225 +- 2 on MNIST from 10,000 images).

Weaknesses, so many that it is off by default: far from the model's likelihood in high dimensions even with millions of
images; k-means centres score above the true distribution; it ranks models in another order than likelihood and eye do
(Theis et al. 2016, arXiv:1511.01844). It is here to be compared with the papers of its time.

Dimensions: N images, M samples, D sub-pixels, S bandwidths.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from genlab.metrics.distances import pieces, squared_distances

# Ten from 0.1 to 1, evenly spaced in the logarithm.
BANDWIDTHS: tuple[float, ...] = tuple(10 ** (exponent / 9 - 1) for exponent in range(10))


@dataclass(frozen=True, kw_only=True)
class ParzenEstimate:
    """Mean log-density of the test images."""

    log_likelihood_nats: float
    standard_error: float
    bandwidth: float


def parzen_estimate(
    samples: Float[Tensor, "M ..."],
    *,
    validation: Float[Tensor, "V ..."],
    test: Float[Tensor, "N ..."],
    bandwidths: Sequence[float] = BANDWIDTHS,
) -> ParzenEstimate:
    """Choose the bandwidth on validation images and score test images with it.

    Args:
        samples: Generated images in [0, 1], the centres.
        validation: Images that choose the bandwidth.
        test: Images to score, at least two.
        bandwidths: Standard deviations to choose from.
    """
    scores = parzen_log_densities(samples, validation, bandwidths=bandwidths).mean(1)  # (S,)
    bandwidth = bandwidths[int(scores.argmax())]
    (densities,) = parzen_log_densities(samples, test, bandwidths=(bandwidth,))
    return ParzenEstimate(
        log_likelihood_nats=float(densities.mean()),
        standard_error=float(densities.std()) / math.sqrt(len(densities)),
        bandwidth=bandwidth,
    )


def parzen_log_densities(
    samples: Float[Tensor, "M ..."], images: Float[Tensor, "N ..."], *, bandwidths: Sequence[float]
) -> Float[Tensor, "S N"]:
    """Return log (1/M) sum_m N(x; x_m, sigma^2 I) of each image, in nats, for each sigma."""
    centres, points = samples.flatten(1), images.flatten(1)
    num_dimensions = points.shape[1]
    densities = []
    for rows in pieces(len(points), len(centres)):
        squared = squared_distances(points[rows], centres)  # (piece of N, M)
        densities.append(
            torch.stack(
                [
                    (squared / (-2 * bandwidth**2)).logsumexp(1)
                    - math.log(len(centres))
                    - num_dimensions * math.log(bandwidth * math.sqrt(2 * math.pi))
                    for bandwidth in bandwidths
                ]
            )
        )
    return torch.cat(densities, 1)
