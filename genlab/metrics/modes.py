"""Mode collapse: counts of the classes of samples.

A mode is a class of a classifier: ten on MNIST, a thousand on stacked MNIST (Metz et al. 2016, arXiv:1611.02163), where
PacGAN (Lin et al. 2017, arXiv:1712.04086) draws 26,000 images and reports the modes among them and the divergence
KL(generated || uniform). Weaknesses: a mode counts as covered by one image, however poor, that the classifier takes for
it, and its errors cover modes too; N draws from the right distribution over K modes have an expected divergence of
about (K - 1) / (2 N) nats (0.019 for 26,000 draws of 1,000 modes), so the count belongs to it.

Dimensions: N images, K modes.
"""

import torch
from jaxtyping import Float, Int
from torch import Tensor

from genlab.data.dataset import Dataset
from genlab.metrics.generation import training_classes

_MAX_CLASSES_SHOWN = 64
_BAR_WIDTH = 40


def class_histogram(predictions: Int[Tensor, " N"], *, num_modes: int) -> Int[Tensor, " K"]:
    """Return the number of images in each class.

    Raises:
        ValueError: A prediction is none of the classes.
    """
    if len(outside := predictions[(predictions < 0) | (predictions >= num_modes)]) > 0:
        raise ValueError(f"predictions must be from 0 to {num_modes - 1}, got {int(outside[0])}")
    return torch.bincount(predictions, minlength=num_modes)


def modes_covered(predictions: Int[Tensor, " N"], *, num_modes: int) -> int:
    """Return the number of classes with at least one image."""
    return int((class_histogram(predictions, num_modes=num_modes) > 0).sum())


def histogram_divergence(counts: Int[Tensor, " K"], reference: Float[Tensor, " K"] | None = None) -> float:
    """Return KL(generated || reference) in nats, infinite if a class is missing in the reference.

    Args:
        counts: Images in each class, at least one in all.
        reference: Weight of each class, 0 or more, of any sum; None is uniform, as in PacGAN.

    Raises:
        ValueError: There are no images, or no weights.
    """
    if counts.sum() == 0 or (reference is not None and reference.sum() == 0):
        raise ValueError("the divergence of a histogram needs at least one image")
    shares = counts.double() / counts.sum()
    weights = torch.ones_like(shares) if reference is None else reference.double()
    is_seen = counts > 0
    ratio = shares[is_seen] / (weights[is_seen] / weights.sum())
    # Rounding may take the divergence of equal histograms below zero.
    return max(0.0, float((shares[is_seen] * ratio.log()).sum()))


def format_histogram(counts: Int[Tensor, " K"], dataset: Dataset | None) -> str:
    """Return one line for each class: the shares of the samples and of the training images, and a bar of the first.

    Args:
        counts: Samples in each class.
        dataset: Names the classes and holds the training images; None without one.
    """
    if len(counts) > _MAX_CLASSES_SHOWN:
        return f"class histogram of {len(counts):,} classes: in evaluation.json"
    names = (() if dataset is None else dataset.class_names) or tuple(map(str, range(len(counts))))
    training = None if dataset is None else training_classes(dataset)
    shares = (counts / counts.sum()).tolist()
    of_training = [""] * len(counts) if training is None else [f"{share:6.1%}" for share in training / training.sum()]
    width = max(len("class"), *map(len, names))
    lines = [f"{'class':<{width}}  samples  training"]
    for name, share, other in zip(names, shares, of_training, strict=True):
        bar = "#" * round(_BAR_WIDTH * share / max(shares))
        lines.append(f"{name:<{width}}  {share:7.1%}  {other:>8}  {bar}".rstrip())
    return "\n".join(lines)
