"""Samples of a model for measures: a function of the seed, independent of other computations.

Dimensions: N images, C channels, H height, W width, K classes.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Float, Int, UInt8
from torch import Generator, Tensor
from tqdm import tqdm

from genlab.data.dataset import Dataset
from genlab.errors import ConfigurationError
from genlab.functional import to_bytes
from genlab.models.base import GenerativeModel
from genlab.parallel.collectives import num_processes
from genlab.parallel.processes import dealt
from genlab.randomness import derive_seed
from genlab.training.randomness import generator_for, seed_default_generators
from genlab.types import UNLABELLED

# Fixed, so that no setting changes which images a seed gives.
IMAGES_AT_ONCE = 250
_TOLERANCE = 0.01
"""Values outside [0, 1] by less are rounding, and are clamped."""


def draw_images(
    model: GenerativeModel,
    num_images: int,
    *,
    labels: Int[Tensor, " N"] | None,
    seed: int,
    device: torch.device,
    shows_progress: bool = True,
) -> Float[Tensor, "N C H W"]:
    """Return samples in [0, 1], on the CPU; processes draw batches in turn, and all ranks get all samples.

    Args:
        model: In evaluation mode, on the device.
        num_images: N.
        labels: Their classes, for a class-conditional model.
        seed: Of the samples.
        device: Device of the model.
        shows_progress: True if a terminal shows a bar.
    """
    starts = range(0, num_images, IMAGES_AT_ONCE)
    batches = draw_batches(model, num_images, starts=starts, labels=labels, seed=seed, device=device)
    disable = None if shows_progress else True
    bar = tqdm(batches, total=len(starts), desc="drawing", unit="batch", leave=False, disable=disable)
    return torch.cat([images for _, images in bar])


def draw_batches(
    model: GenerativeModel,
    num_images: int,
    *,
    starts: Sequence[int],
    labels: Int[Tensor, " N"] | None,
    seed: int,
    device: torch.device,
    **options: Any,
) -> Iterator[tuple[int, Float[Tensor, "B C H W"]]]:
    """Yield batches of the samples that :func:`draw_images` returns, each with the index of its first image.

    A batch depends on the seed, its start and its number of images alone. Several processes draw in turn, and all get
    every batch.

    Args:
        model: In evaluation mode, on the device.
        num_images: N.
        starts: Indices of the first images of the batches to draw, multiples of IMAGES_AT_ONCE.
        labels: Classes of all N images, for a class-conditional model.
        seed: Of the samples.
        device: Device of the model.
        options: Further arguments of the model's ``sample``.
    """

    @torch.no_grad()
    def draw(start: int) -> Tensor:
        count = min(IMAGES_AT_ONCE, num_images - start)
        # The generator in hand, and the default ones for what a model draws without it.
        generator = generator_for(seed, "generated", start, device=device)
        seed_default_generators(derive_seed(seed, "generated", start), device)
        chosen = None if labels is None else labels[start : start + count].to(device)
        images = model.sample(count, labels=chosen, generator=generator, **options)
        _require_images(images, count, type(model).__name__)
        return images.float().clamp(0, 1).cpu()

    for first in range(0, len(starts), num_processes()):
        own = starts[first : first + num_processes()]
        yield from zip(own, dealt(own, draw), strict=True)


def _require_images(images: Tensor, count: int, name: str) -> None:
    """Refuse what no sampler of images in [0, 1] draws; a model of one's own may draw them in another range."""
    low, high = (float(value) for value in images.aminmax())
    if len(images) != count or low < -_TOLERANCE or high > 1 + _TOLERANCE:
        raise ConfigurationError(
            f"{name}.sample must return {count} images in [0, 1], got {len(images)} between {low:.3g} and {high:.3g}"
        )


@dataclass(frozen=True, kw_only=True)
class Generated:
    """Generated images to measure, and their requested classes; None without classes."""

    levels: UInt8[Tensor, "N C H W"]
    labels: Int[Tensor, " N"] | None


def generated_images(
    model: GenerativeModel, dataset: Dataset, num_images: int, *, seed: int, device: torch.device
) -> Generated:
    """Return samples of a model, rounded as in files, with the class frequencies of the training data.

    Args:
        model: In evaluation mode, on the device.
        dataset: Of its training.
        num_images: N.
        seed: Of the samples.
        device: Device of the model.
    """
    labels = sample_labels(model, dataset, num_images, seed=seed)
    images = draw_images(model, num_images, labels=labels, seed=seed, device=device)
    return Generated(levels=to_bytes(images), labels=labels)


def sample_labels(model: GenerativeModel, dataset: Dataset, num_images: int, *, seed: int) -> Int[Tensor, " N"] | None:
    """Return classes with the frequencies of the training data, or uniform without any; None for other models."""
    if model.num_classes == 0:
        return None
    counts = training_classes(dataset)
    return draw_labels(torch.ones(model.num_classes) if counts is None else counts, num_images, seed=seed)


def training_classes(dataset: Dataset) -> Int[Tensor, " K"] | None:
    """Return the number of labelled training images in each class; None if there are no classes."""
    if dataset.spec.num_classes == 0:
        return None
    labels = dataset.store_on("train", torch.device("cpu")).labels
    return torch.bincount(labels[labels != UNLABELLED], minlength=dataset.spec.num_classes)


def draw_labels(counts: Int[Tensor, " K"], num_labels: int, *, seed: int) -> Int[Tensor, " N"]:
    """Return classes drawn with the frequencies of the training images."""
    generator = Generator().manual_seed(derive_seed(seed, "labels of generated images"))
    return torch.multinomial(counts.double(), num_labels, replacement=True, generator=generator)
