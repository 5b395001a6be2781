"""A survey of a data set, image by image: class counts, brightness and the hash of the bytes."""

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Int
from torch import Tensor

from genlab.data.dataset import SPLITS, Dataset, Split
from genlab.printing import printable
from genlab.tables import aligned
from genlab.types import UNLABELLED

MAX_LISTED_CLASSES = 20
_PIXELS_AT_ONCE = 2**22  # in double precision: 32 MB
_SEED = 0  # of stochastic binarisation, where a pixel is one draw
_CPU = torch.device("cpu")


@dataclass(frozen=True, kw_only=True)
class SplitSurvey:
    """Statistics of one split.

    Attributes:
        num_images: Number of images.
        mean: Of the pixels in [0, 1], as a model is given them; nan without images.
        deviation: Their standard deviation.
        class_counts: Images of each class.
        num_unlabelled: Images without a label.
    """

    num_images: int
    mean: float
    deviation: float
    class_counts: Int[Tensor, " K"]
    num_unlabelled: int


def survey(dataset: Dataset, split: Split) -> SplitSurvey:
    """Return the statistics of all images of a split."""
    spec = dataset.spec
    pixels_of_image = spec.channels * spec.height * spec.width
    total = total_of_squares = 0.0
    counts = torch.zeros(spec.num_classes + 1, dtype=torch.int64)  # the unlabelled first
    batch_size = max(1, _PIXELS_AT_ONCE // pixels_of_image)
    for batch in dataset.batches(split, batch_size=batch_size, seed=_SEED, device=_CPU):
        pixels = batch.images.double()
        total += float(pixels.sum())
        total_of_squares += float(pixels.square().sum())
        counts += torch.bincount(batch.labels - UNLABELLED, minlength=len(counts))
    num_images = dataset.num_images(split)
    num_pixels = num_images * pixels_of_image
    mean = total / num_pixels if num_pixels else math.nan
    variance = total_of_squares / num_pixels - mean**2 if num_pixels else math.nan
    return SplitSurvey(
        num_images=num_images,
        mean=mean,
        deviation=math.sqrt(max(variance, 0.0)) if num_pixels else math.nan,
        class_counts=counts[1:],
        num_unlabelled=int(counts[0]),
    )


def describe(dataset: Dataset) -> Iterator[str]:
    """Yield the survey of a data set for a terminal, block by block."""
    spec = dataset.spec
    yield dataset.provenance
    size = f"{spec.height}x{spec.width} pixels, channels {spec.channels}"
    yield f"{size}, levels {spec.num_levels}, classes {spec.num_classes:,}\n"
    surveys = {split: survey(dataset, split) for split in SPLITS}
    rows = [
        (split, f"{seen.num_images:,}", _moment(seen.mean), _moment(seen.deviation)) for split, seen in surveys.items()
    ]
    yield aligned([("split", "images", "mean of pixels", "deviation")], rows) + "\n"
    if spec.num_classes > MAX_LISTED_CLASSES:
        yield _folded_classes(dataset.class_names, surveys) + "\n"
    elif spec.num_classes:
        yield _listed_classes(dataset.class_names, surveys) + "\n"
    yield f"fingerprint {dataset.fingerprint}"


def numbered(names: Sequence[str], *, most: int = MAX_LISTED_CLASSES) -> str:
    """Return the label and name of each class on one line; of many classes only the first and the last ones."""
    listed = [f"{label} = {printable(name)}" for label, name in enumerate(names)]
    return ", ".join(listed if len(listed) <= most else [*listed[: most - 1], "...", listed[-1]])


def _moment(value: float) -> str:
    return "-" if math.isnan(value) else f"{value:.4f}"


def _listed_classes(names: Sequence[str], surveys: Mapping[Split, SplitSurvey]) -> str:
    rows = [
        (str(index), printable(name), *(f"{int(seen.class_counts[index]):,}" for seen in surveys.values()))
        for index, name in enumerate(names)
    ]
    if any(seen.num_unlabelled for seen in surveys.values()):
        rows.append((str(UNLABELLED), "(no label)", *(f"{seen.num_unlabelled:,}" for seen in surveys.values())))
    return aligned([("class", "name", *surveys)], rows)


def _folded_classes(names: Sequence[str], surveys: Mapping[Split, SplitSurvey]) -> str:
    ranges = [
        f"{int(seen.class_counts.min()):,} to {int(seen.class_counts.max()):,} in {split}"
        + (f" ({seen.num_unlabelled:,} have no label)" if seen.num_unlabelled else "")
        for split, seen in surveys.items()
    ]
    which = f"{len(names):,} classes, {printable(names[0])} to {printable(names[-1])}"
    counts = f"{which}; images of a class: {', '.join(ranges)}"
    is_plain = all(name.isdecimal() and int(name) == label for label, name in enumerate(names))
    return counts if is_plain else f"{counts}\n{numbered(names, most=len(names))}"
