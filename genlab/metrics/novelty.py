"""Detection of novel images by likelihood: the area under the ROC curve of a measure between two sets of images.

An image counts as novel if its negative log-likelihood is high. The area under the ROC curve (AUROC) is the
probability that an image of the novel set has a higher value than one of the familiar set, ties counted as one half
(the Mann-Whitney statistic over the number of pairs). 1/2 is chance; below it the novel images are the likelier ones,
which likelihoods of image models do show (Nalisnick et al. 2019, arXiv:1810.09136).

Dimensions: M familiar images, N novel images.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from genlab.metrics.likelihoods import Likelihood, rounded
from genlab.tables import aligned


@dataclass(frozen=True, kw_only=True)
class Auroc:
    """Area under the ROC curve, and its standard error over draws of both sets."""

    value: float
    standard_error: float | None
    """None if a set has one image only."""


def auroc(familiar: Float[Tensor, " M"], novel: Float[Tensor, " N"]) -> Auroc:
    """Return the AUROC of values that are higher for novel images, with the standard error of DeLong et al. (1988).

    The error is the deviation of the shares of pairs that each image wins, which is 0 where the sets do not overlap.

    Raises:
        ValueError: A set is empty, is no vector, or has a NaN.
    """
    for values in (familiar, novel):
        if values.dim() != 1 or not len(values) or bool(values.isnan().any()):
            raise ValueError(f"an AUROC needs vectors of numbers, got shape {tuple(values.shape)}, or a NaN in it")
    won_by_novel = _shares_below(familiar, novel)  # (N,)
    won_by_familiar = 1 - _shares_below(novel, familiar)  # (M,), the shares of novel images above
    value = won_by_novel.mean().item()
    if min(len(familiar), len(novel)) < 2:
        return Auroc(value=value, standard_error=None)
    variance = won_by_novel.var() / len(novel) + won_by_familiar.var() / len(familiar)
    return Auroc(value=value, standard_error=math.sqrt(variance.item()))


def _shares_below(values: Float[Tensor, " M"], others: Float[Tensor, " N"]) -> Float[Tensor, " N"]:
    """Return the share of the values below each of the others, with ties counted as one half."""
    ordered = values.double().sort().values
    below, not_above = (torch.searchsorted(ordered, others.double(), right=right) for right in (False, True))
    return (below + not_above).double() / (2 * len(values))


def aurocs(familiar: Sequence[Likelihood], novel: Sequence[Likelihood]) -> list[Auroc]:
    """Return the AUROC of each measure."""
    return [auroc(mine.values, other.values) for mine, other in zip(familiar, novel, strict=True)]


def format_novelty(familiar: Sequence[Likelihood], novel: Sequence[Likelihood], found: Sequence[Auroc]) -> str:
    """Return the means of two sets of images and the AUROC, under each measure's name, unit and kind."""
    names, units, kinds = zip(*(measure.head for measure in familiar), strict=True)
    blocks = [
        [
            (name, *(rounded(measure, measure.mean) for measure in measures)),
            ("+- s.e.", *(rounded(measure, measure.standard_error) for measure in measures)),
        ]
        for name, measures in (("images", familiar), ("against", novel))
    ]
    errors = ("" if area.standard_error is None else f"{area.standard_error:.4f}" for area in found)
    areas = [("AUROC", *(f"{area.value:.4f}" for area in found)), ("+- s.e.", *errors)]
    return aligned([("", *names), ("", *units), ("", *kinds)], *blocks, areas)


def novelty_as_json(measures: Sequence[Likelihood], found: Sequence[Auroc]) -> list[dict[str, Any]]:
    """Return plain values: the AUROC of each measure."""
    return [
        {"name": measure.name, "auroc": area.value, "standard_error": area.standard_error}
        for measure, area in zip(measures, found, strict=True)
    ]
