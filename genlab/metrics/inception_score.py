"""Inception-style score: confidence of the class of each sample, and uniformity of the classes.

Salimans et al. 2016, arXiv:1606.03498, section 4:

    exp(E_x KL(p(y | x) || p(y))), at least 1 and at most the number of classes, with the probabilities of a classifier

With Inception-v3's probabilities this is the Inception score. Weaknesses: it never looks at real images; one perfect
picture of each class scores highest; it says nothing outside the classes of its classifier (Barratt & Sharma 2018,
arXiv:1801.01973). It is too low by a factor that depends on the number of images in a part, which is also an upper
limit of it, so counts and parts belong to the value.

Dimensions: N images, K classes.
"""

import math

import torch
from jaxtyping import Float
from torch import Generator, Tensor

# As published: ten parts of 5,000 images.
NUM_PARTS = 10


def inception_style_score(logits: Float[Tensor, "N K"], *, num_parts: int = NUM_PARTS) -> tuple[float, float]:
    """Return the mean over random parts of the images, and its standard error over parts.

    Papers print the standard deviation over parts, with 1 / num_parts: sqrt(num_parts - 1) times that standard error.

    Args:
        logits: Class log-probabilities up to a constant, in any order: that of classes would make each part poor.
        num_parts: In how many equal parts (but for rounding) the images are divided, at least 2.

    Raises:
        ValueError: There are fewer images than parts, or fewer than two parts.
    """
    if not 2 <= num_parts <= len(logits):
        raise ValueError(f"a score needs at least 2 parts and an image in each, got {len(logits)} in {num_parts}")
    order = torch.randperm(len(logits), generator=Generator().manual_seed(0))
    log_probabilities = logits[order].double().log_softmax(1)
    scores = log_probabilities.new_tensor([_score(part) for part in log_probabilities.tensor_split(num_parts)])
    return float(scores.mean()), float(scores.std()) / math.sqrt(num_parts)


def _score(log_probabilities: Float[Tensor, "N K"]) -> float:
    marginal = log_probabilities.logsumexp(0) - math.log(len(log_probabilities))  # log p(y)
    terms = log_probabilities.exp() * (log_probabilities - marginal)
    divergences = terms.where(log_probabilities > -math.inf, 0.0).sum(1)  # KL(p(y | x) || p(y)), where 0 log 0 = 0
    return math.exp(divergences.mean())
