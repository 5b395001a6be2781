"""`genlab sample images=`: pictures of images that a user names, without the run's data."""

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from jaxtyping import Bool
from torch import Generator, Tensor

from genlab.data.containers import RefusedImage
from genlab.data.decoding import PILLOW_MAX_PIXELS, PictureRules, bombs_refused, decode
from genlab.data.given_images import read_images, reading_of
from genlab.errors import ConfigurationError, DataError
from genlab.models.base import Model
from genlab.models.capabilities import RendersInputs, VisualizesGiven
from genlab.printing import printable
from genlab.run.loading import TrainedModel
from genlab.run.tensor_file import serialise
from genlab.sampling.latents import NUM_DRAWS, NUM_STEPS, FoundLatents, find_latents
from genlab.sampling.pictures import save_pictures
from genlab.storage import replace_atomically
from genlab.tables import aligned
from genlab.types import Batch, ImageSpec

Fill = tuple[int, int, int, int] | str
_WHITE = 128
"""Least grey level of a mask that counts as white."""


@dataclass(frozen=True, kw_only=True)
class Given:
    """Images of files that the user named.

    Attributes:
        names: Of their files.
        batch: The images, without labels.
        account: One line: what they are, and how many were taken.
    """

    names: Sequence[str]
    batch: Batch
    account: str


def method_for_given(model: Model) -> Callable[..., Mapping[str, Tensor] | FoundLatents]:
    """Return a model's method for given images, as a function of a batch, a generator and options.

    Raises:
        ConfigurationError: It has no pictures of them.
    """
    if isinstance(model, VisualizesGiven):
        return model.visualize_given
    if not isinstance(model, RendersInputs):
        raise ConfigurationError(f"images must be null for {type(model).__name__}, which shows no given images")
    renders = model

    def search(
        batch: Batch,
        *,
        generator: Generator,
        num_steps: int = NUM_STEPS,
        label: int | None = None,
        progress: bool = False,
    ) -> FoundLatents:
        return find_latents(
            renders, batch.images, num_steps=num_steps, label=label, generator=generator, progress=progress
        )

    return search


def read_given(trained: TrainedModel, images: str, *, most: int, device: torch.device) -> Given:
    """Read the first pictures of a folder as images of the run.

    Raises:
        ConfigurationError: No file becomes an image of this run.
        DataError: One of these files does not.
    """
    reading = reading_of(trained.run.configuration.dataset, trained.run.spec)
    given = read_images(Path(images), reading, most=most)
    batch = next(iter(given.dataset.batches("train", batch_size=most, seed=0, device=device)))
    more = f"; the first of {given.num_found:,}: num_samples={given.num_found} takes all"
    account = f"images={printable(images)}: {given.account}{more if given.num_found > most else ''}"
    return Given(names=given.names, batch=batch, account=account)


def given_around(fill: Fill, spec: ImageSpec) -> Bool[Tensor, "H W"]:
    """Return the mask of the given pixels, outside of the region or of the white pixels of a mask to fill.

    Raises:
        ConfigurationError: The region is not within the images, or nothing is to be filled.
        DataError: The mask cannot be read, or has another size.
    """
    if isinstance(fill, str):
        is_given = _read_mask(Path(fill), spec) < _WHITE
        if bool(is_given.all()):
            raise ConfigurationError(f"fill must have white pixels, which are filled, and {printable(fill)} has none")
        return is_given
    top, left, bottom, right = fill
    if not (0 <= top < bottom <= spec.height and 0 <= left < right <= spec.width):
        raise ConfigurationError(
            f"fill must be [top, left, bottom, right] within {spec.height} rows and {spec.width} columns, counted from "
            f"0, with bottom and right outside of the region, got {list(fill)}"
        )
    is_given = torch.ones(spec.height, spec.width, dtype=torch.bool)
    is_given[top:bottom, left:right] = False
    return is_given


def _read_mask(path: Path, spec: ImageSpec) -> Tensor:
    size = (spec.height, spec.width)
    rules = PictureRules(size=size, crop="none", channels=1, background=0, max_pixels=PILLOW_MAX_PIXELS)
    try:
        with bombs_refused():
            levels = decode(path, rules).levels
    except RefusedImage as refusal:
        raise DataError(
            f"fill must be a region or a mask of the images' size: {printable(str(path))} {refusal}"
        ) from refusal
    return torch.from_numpy(np.frombuffer(levels, dtype=np.uint8).copy()).view(size)


def save_given(
    result: Mapping[str, Tensor] | FoundLatents,
    given: Given,
    trained: TrainedModel,
    folder: Path,
    *,
    seed: int,
    command: str,
) -> list[Path]:
    """Write the pictures, and for latents their errors, which are also printed; return the files."""
    if not isinstance(result, FoundLatents):
        return save_pictures(result, folder, groups=trained.model.picture_groups)
    rows = list(zip(given.names, result.draw_errors.tolist(), result.errors.tolist(), strict=True))
    print(_format_errors(rows))
    pairs = torch.stack((given.batch.images, result.images.to(given.batch.images.dtype)), 1).flatten(0, 1)
    paths = save_pictures({"latents": pairs}, folder, groups={"latents": 2})
    record: dict[str, Any] = {
        "command": command,
        **trained.origin,
        "seed": seed,
        "account": given.account,
        "num_draws": NUM_DRAWS,
        "num_steps": result.num_steps,
        "images": [{"file": name, "rms_error_of_draws": draw, "rms_error": error} for name, draw, error in rows],
    }
    replace_atomically(folder / "latents.json", f"{json.dumps(record, indent=1)}\n".encode())
    replace_atomically(folder / "latents.safetensors", serialise({"inputs": result.inputs.cpu()}, {}))
    return [*paths, folder / "latents.json", folder / "latents.safetensors"]


def _format_errors(rows: Sequence[tuple[str, float, float]]) -> str:
    """Return the errors of each file, and their means."""
    means = [sum(column) / len(rows) for column in ([row[1] for row in rows], [row[2] for row in rows])]
    return aligned(
        [("file", f"nearest of {NUM_DRAWS} draws", "found latent"), ("", "rms error", "rms error")],
        [(printable(name), f"{draw:.4f}", f"{error:.4f}") for name, draw, error in rows],
        [(f"mean of {len(rows):,}", *(f"{mean:.4f}" for mean in means))],
    )
