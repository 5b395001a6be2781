"""Loss and measures that all classifiers share.

Dimensions: B batch, K classes.
"""

import math
from types import MappingProxyType

import torch.nn.functional as F
from jaxtyping import Float, Int
from torch import Tensor

from genlab.measures import Measure
from genlab.parallel.collectives import mean_over_processes, num_processes
from genlab.types import UNLABELLED, Loss

CLASSIFICATION_MEASURES = MappingProxyType(
    {
        "cross_entropy_nats": Measure(unit="nats/image", kind="exact", direction="lower", needs_label=True),
        "error": Measure(unit="1", kind="exact", direction="lower", needs_label=True),
    }
)
"""Declarations of the measures that :func:`classification_measures` returns."""


def classification_loss(logits: Float[Tensor, "B K"], labels: Int[Tensor, " B"]) -> Loss:
    """Return the cross-entropy in nats and the share of errors, averaged over the labelled images of the batch.

    Without a labelled image the loss is 0 and the metrics are NaN, which their mean leaves out.
    """
    is_labelled = labels != UNLABELLED
    counted = mean_over_processes(is_labelled.sum())
    num_labelled = counted.clamp_min(1 / num_processes())  # the least count above 0: it changes a count of 0 alone
    total = F.cross_entropy(logits, labels, ignore_index=UNLABELLED, reduction="sum")
    is_wrong = (logits.detach().argmax(1) != labels) & is_labelled
    cross_entropy = total / num_labelled
    return Loss(
        value=cross_entropy,
        metrics={
            "cross_entropy_nats": cross_entropy.detach().masked_fill(counted == 0, math.nan),
            "error": (is_wrong.sum() / num_labelled).masked_fill(counted == 0, math.nan),
        },
    )


def classification_measures(logits: Float[Tensor, "B K"], labels: Int[Tensor, " B"]) -> dict[str, Float[Tensor, " B"]]:
    """Return the cross-entropy of each image in nats, and its error: 1 if the predicted class is wrong, else 0.

    Both are NaN for an image without a label.
    """
    is_labelled = labels != UNLABELLED
    cross_entropy = F.cross_entropy(logits, labels, ignore_index=UNLABELLED, reduction="none")
    error = (logits.argmax(1) != labels).to(logits.dtype)
    return {
        "cross_entropy_nats": cross_entropy.where(is_labelled, math.nan),
        "error": error.where(is_labelled, math.nan),
    }
