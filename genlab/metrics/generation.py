"""Images of a model, to be measured: the same for the same seed, whatever else the measuring does.

Dimensions: N images, C channels, H height, W width, K classes.
"""

import torch
from jaxtyping import Float, Int
from torch import Generator, Tensor
from tqdm import tqdm

from genlab.data.dataset import Dataset
from genlab.models.base import GenerativeModel
from genlab.parallel.processes import dealt
from genlab.randomness import derive_seed
from genlab.training.randomness import generator_for, seed_default_generators
from genlab.types import UNLABELLED

# Fixed, so that no setting changes which images a seed gives.
IMAGES_AT_ONCE = 250


@torch.no_grad()
def draw_images(
    model: GenerativeModel,
    num_images: int,
    *,
    labels: Int[Tensor, " N"] | None,
    seed: int,
    device: torch.device,
    shows_progress: bool = True,
) -> Float[Tensor, "N C H W"]:
    """Return samples in [0, 1], on the CPU; several processes draw them in turn, and all ranks get all of them.

    Args:
        model: In evaluation mode, on the device.
        num_images: N.
        labels: Their classes, for a class-conditional model.
        seed: Of the samples.
        device: Device of the model.
        shows_progress: True if a terminal shows a bar.
    """

    def draw(start: int) -> Tensor:
        count = min(IMAGES_AT_ONCE, num_images - start)
        # The generator in hand, and the default ones for what a model draws without it.
        generator = generator_for(seed, "generated", start, device=device)
        seed_default_generators(derive_seed(seed, "generated", start), device)
        chosen = None if labels is None else labels[start : start + count].to(device)
        return model.sample(count, labels=chosen, generator=generator).float().clamp(0, 1).cpu()

    starts = range(0, num_images, IMAGES_AT_ONCE)
    return torch.cat(
        dealt(tqdm(starts, desc="drawing", unit="batch", leave=False, disable=None if shows_progress else True), draw)
    )


def training_classes(dataset: Dataset) -> Int[Tensor, " K"] | None:
    """Return the number of labelled training images in each class; None where there are no classes."""
    if dataset.spec.num_classes == 0:
        return None
    labels = dataset.store_on("train", torch.device("cpu")).labels
    return torch.bincount(labels[labels != UNLABELLED], minlength=dataset.spec.num_classes)


def draw_labels(counts: Int[Tensor, " K"], num_labels: int, *, seed: int) -> Int[Tensor, " N"]:
    """Return classes drawn with the frequencies of the training images."""
    generator = Generator().manual_seed(derive_seed(seed, "labels of generated images"))
    return torch.multinomial(counts.double(), num_labels, replacement=True, generator=generator)
