"""A data set for models and the trainer: measured, split by index, with a stateless batch stream.

Dimensions: N images of a split, B batch, C channels, H height, W width.
"""

import hashlib
import json
import math
from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace
from functools import cached_property
from logging import getLogger
from typing import Literal

import torch
from jaxtyping import Float, Int, UInt8
from torch import Tensor

from genlab.data.randomness import Epochs, binarized, permutation, uniform_noise
from genlab.data.store import Store, to_device
from genlab.errors import ConfigurationError, DataError
from genlab.randomness import derive_seed
from genlab.types import UNLABELLED, Batch, ImageSpec

Split = Literal["train", "validation", "test"]
SPLITS: tuple[Split, ...] = ("train", "validation", "test")
Binarization = Literal["none", "threshold", "stochastic", "fixed"]
Recompose = Callable[[Int[Tensor, " B"], Int[Tensor, " B"], int], UInt8[Tensor, "B C H W"]]
"""Function of rows of training pictures, their positions in the stream and a seed to new pictures of equal classes."""

_log = getLogger(__name__)
_HASH_CHUNK = 4096  # images hashed at a time: bounds the memory that a mapped store takes


class Dataset:
    """Images in three splits, delivered on a device as floats in [0, 1].

    Attributes:
        name: Name of the source, as in ``dataset=<name>``.
        spec: Properties of the images, measured as they are delivered (after binarisation).
        binarization: ``none``; ``threshold`` (level / (num_levels - 1) >= threshold is 1); ``stochastic`` (1 with
            probability level / (num_levels - 1), drawn afresh each time an image is seen in training and once per seed
            in evaluation); ``fixed`` (the source itself is binary).
        class_names: One name per class; empty when there are no labels.
        has_class_per_channel: True if a class is one class for each channel, as in stacked MNIST, spelt as a number
            whose leading digit is the first channel's class.
        flip: Images of a training batch are mirrored left to right with probability 1/2, a draw from the seed and the
            step. Evaluated images never are.
        recompose: Makes the images of a training batch anew each time they are seen, by draws from the seed and the
            step; None where they are those of the store. Evaluated images never are.
        provenance: One line for the results ledger.
        unreduced: The data set before `num_training` and `num_labels_per_class` left out training images and labels;
            the data set itself where they did not. Its fingerprint does not depend on them, so it is what a reference
            classifier is trained on and cached under. No other training may look at it.
    """

    def __init__(
        self,
        *,
        name: str,
        stores: Mapping[Split, Store],
        num_levels: int,
        class_names: tuple[str, ...],
        binarization: Binarization,
        threshold: float | None,
        source: str,
        has_class_per_channel: bool = False,
        flip: bool = False,
        recompose: Recompose | None = None,
        unreduced: "Dataset | None" = None,
    ) -> None:
        """Measure the images.

        Args:
            name: Name of the source.
            stores: The three splits; validation and test may be empty.
            num_levels: Number of values a stored sub-pixel can take.
            class_names: One name per class.
            binarization: See the class; ``fixed`` needs num_levels = 2.
            threshold: Smallest grey value that becomes 1, in (0, 1]; used by ``threshold`` alone, None elsewhere.
            source: Description of the images, for the provenance line.
            has_class_per_channel: See the class.
            flip: See the class.
            recompose: See the class.
            unreduced: The data set with all training images and labels, where some are left out here.

        Raises:
            DataError: The training split is empty.
            ConfigurationError: The threshold is out of range.
        """
        if len(stores["train"]) == 0:
            raise DataError(
                f"dataset {name} has no training images: leave fewer to the other splits, or choose more classes "
                "(dataset.classes)"
            )
        if threshold is not None and not 0 < threshold <= 1:
            raise ConfigurationError(f"dataset.threshold must be above 0 and at most 1 (grey values), got {threshold}")
        # The lowest level that becomes 1; the margin forgives the product's rounding (0.07 * 100 > 7).
        self._cut: int | None = None
        if binarization == "threshold":
            if threshold is None:
                raise ValueError("binarisation at a threshold needs the threshold")
            self._cut = math.ceil(threshold * (num_levels - 1) - 1e-6)
        if binarization == "fixed" and num_levels != 2:
            raise ValueError(f"fixed binarisation needs images of 2 levels, got {num_levels}")
        _, channels, height, width = stores["train"].images.shape
        self.name = name
        self.class_names = class_names
        self.has_class_per_channel = has_class_per_channel
        self.binarization = binarization
        self.flip = flip
        self.recompose = recompose
        self.spec = ImageSpec(
            channels=channels,
            height=height,
            width=width,
            num_levels=num_levels if binarization == "none" else 2,
            num_classes=len(class_names),
        )
        sizes = "/".join(f"{len(stores[split]):,}" for split in SPLITS)
        self.unreduced = self if unreduced is None else unreduced
        changed = ", composed anew each time in training" if recompose is not None else ""
        changed += ", mirrored at random in training" if flip else ""
        self.provenance = f"{source}{changed}{_binarization_phrase(binarization, threshold, num_levels)}, {sizes}"
        self._stores = dict(stores)
        self._max_level = num_levels - 1
        self._placed: dict[tuple[Split, torch.device], Store] = {}

    def num_images(self, split: Split) -> int:
        """Return the number of images of a split."""
        return len(self._stores[split])

    def require_images(self, measured: Mapping[Split, str]) -> None:
        """Refuse to measure splits without images.

        Args:
            measured: The splits, each with the setting that turns its measurement off.

        Raises:
            DataError: One or more of them are empty.
        """
        empty = [split for split in measured if self.num_images(split) == 0]
        if empty:
            of_all, of_folders = (
                " and ".join(key.format(split) for split in empty) for key in ("dataset.num_{}", "dataset.{}_fraction")
            )
            raise DataError(
                f"dataset {self.name} has no images in split {' and '.join(empty)}; give it images "
                f"({of_all}, of a folder {of_folders}) or set "
                f"{' '.join(measured[split] for split in empty)}"
            )

    @cached_property
    def fingerprint(self) -> str:
        """SHA-256 in hex of all images and labels, and of the choices that change the evaluated images."""
        choices: dict[str, object] = {"max_level": self._max_level, "binarization": self.binarization}
        if self._cut is not None:
            choices["cut"] = self._cut
        digest = hashlib.sha256(json.dumps(choices, sort_keys=True).encode())
        for split in SPLITS:
            store = self._stores[split]
            digest.update(f"{split} {tuple(store.images.shape[1:])} {len(store)}".encode())
            digest.update(store.labels.numpy().tobytes())
            for start in range(0, len(store), _HASH_CHUNK):
                rows = torch.arange(start, min(start + _HASH_CHUNK, len(store)))
                digest.update(store.gather(rows)[0].numpy().data)
        return digest.hexdigest()

    def labelled_rows(self, split: Split) -> Int[Tensor, " L"]:
        """Return the indices of the labelled images of a split, in ascending order."""
        return (self._stores[split].labels != UNLABELLED).nonzero().squeeze(1)

    def stream(
        self,
        *,
        batch_size: int,
        seed: int,
        device: torch.device,
        num_labelled: int | None = None,
        rank: int = 0,
        num_processes: int = 1,
    ) -> "BatchStream":
        """Return the endless stream of training batches, or the part of it that one of several processes holds.

        Args:
            batch_size: Images in every batch, over all processes.
            seed: Seed of the order and of stochastic binarisation.
            device: Device of the batches.
            num_labelled: For semi-supervised learning: so many labelled images at the head of every batch, and the
                labels of the others hidden. None delivers each image with the label that it has.
            rank: Of the process, from 0; it is given every num_processes-th image of a batch, from this one on.
            num_processes: Number of processes that share each batch.

        Raises:
            ConfigurationError: A number is out of range, or there is no labelled image.
        """
        if batch_size < 1:
            raise ConfigurationError(f"batch_size must be at least 1, got {batch_size}")
        share = slice(rank, batch_size, num_processes)
        num_images, num_others = self.num_images("train"), num_labelled or 0
        hint = f"trainer.batch_size={num_images + num_others} or less"
        _warn_of_repetitions(batch_size - num_others, num_images, kind="training", hint=hint)
        if num_labelled is None:
            return BatchStream(self, batch_size=batch_size, share=share, seed=seed, device=device)
        return SemiSupervisedStream(
            self, batch_size=batch_size, share=share, num_labelled=num_labelled, seed=seed, device=device
        )

    def batches(
        self,
        split: Split,
        *,
        batch_size: int,
        seed: int,
        device: torch.device,
        limit: int | None = None,
        is_shuffled: bool = False,
        rank: int = 0,
        num_processes: int = 1,
    ) -> Iterator[Batch]:
        """Yield the batches of one pass over a split, in index order, with the last, smaller batch.

        Args:
            split: Name of the split.
            batch_size: Images in every batch but the last.
            seed: Seed of stochastic binarisation and of the choice that `limit` makes.
            device: Device of the batches.
            limit: Visit only this many images: a seeded random choice, because files may be ordered by class (the fixed
                binarised test set is) and the first images would then misrepresent the split. None visits all.
            is_shuffled: Visit the images in a seeded random order, so that a batch is as mixed as one of training.
            rank: Of the process, from 0; it is given every num_processes-th batch, from this one on.
            num_processes: Number of processes that share the pass.
        """
        num_images = self.num_images(split)
        indices = torch.arange(num_images)
        if is_shuffled:
            indices = self._random_rows(split, num_images if limit is None else limit, seed)
        elif limit is not None and limit < num_images:
            indices = self._random_rows(split, limit, seed).sort().values
        for start in range(rank * batch_size, len(indices), num_processes * batch_size):
            yield self.at(split, indices[start : start + batch_size], seed, device)

    def subset(self, split: Split, num_images: int, *, seed: int, device: torch.device) -> Batch:
        """Return a seeded random choice of images without repetition; all images if the split has fewer."""
        return self.at(split, self._random_rows(split, num_images, seed), seed, device)

    def deliver(
        self,
        split: Split,
        indices: Int[Tensor, " B"],
        positions: Int[Tensor, " B"],
        *,
        seed: int,
        device: torch.device,
        flip_seed: int | None = None,
        composition_seed: int | None = None,
    ) -> Batch:
        """Return a batch: gather or compose images, mirror, convert to floats and binarise, on the device.

        Args:
            split: Name of the split.
            indices: Indices of the images in the split.
            positions: Index of the draw of stochastic binarisation of each image (see `binarized`).
            seed: Seed of those draws.
            device: Device of the batch.
            flip_seed: Seed of the draws that mirror images left to right; None mirrors none.
            composition_seed: Seed of new pictures in place of those of the store; None keeps these.
        """
        if self.recompose is None or composition_seed is None:
            levels, labels = self.store_on(split, device).gather(indices)
        else:
            levels = self.recompose(self._stores[split].original_rows(indices), positions, composition_seed)
            labels = self._stores[split].labels[indices]
        levels, labels = to_device(levels, device), to_device(labels, device)
        if flip_seed is not None:
            draws = uniform_noise(to_device(positions, device), 1, seed=flip_seed)  # (B, 1)
            levels = torch.where(draws.view(-1, 1, 1, 1) < 0.5, levels.flip(3), levels)
        return Batch(images=self._images(levels, positions, seed), labels=labels)

    def store_on(self, split: Split, device: torch.device) -> Store:
        """Return the store of a split, which is moved to the device once if it fits there."""
        if (split, device) not in self._placed:
            self._placed[split, device] = self._stores[split].placed(device)
        return self._placed[split, device]

    def _random_rows(self, split: Split, num_images: int, seed: int) -> Int[Tensor, " B"]:
        return permutation(self.num_images(split), seed=derive_seed(seed, "subset", split))[:num_images]

    def at(self, split: Split, rows: Int[Tensor, " B"], seed: int, device: torch.device) -> Batch:
        """Return the images of a split at some indices, as `batches` delivers them."""
        return self.deliver(split, rows, rows, seed=derive_seed(seed, "evaluation", split), device=device)

    def _images(
        self, levels: UInt8[Tensor, "B C H W"], positions: Int[Tensor, " B"], seed: int
    ) -> Float[Tensor, "B C H W"]:
        if self.binarization == "stochastic":
            return binarized(levels, to_device(positions, levels.device), max_level=self._max_level, seed=seed)
        images = levels.to(torch.float32)
        if self._cut is not None:
            return images.ge_(self._cut)  # in place: the conversion of a tensor of bool is ten times slower
        # Division, not multiplication by the reciprocal: k / (num_levels - 1) to the last bit.
        return images.div_(self._max_level) if self._max_level > 1 else images


class BatchStream:
    """An endless stream of training batches, a pure function of the seed and the batch's index, without state.

    The stream is the concatenation of one random permutation of the training images per epoch. Batch i holds positions
    i * batch_size up to (i + 1) * batch_size of it, so every batch has the same size, a batch may span two epochs, and
    each image comes exactly once per epoch. Batches of another size continue it from the position that was reached.
    """

    def __init__(self, dataset: Dataset, *, batch_size: int, share: slice, seed: int, device: torch.device) -> None:
        self.batch_size = batch_size
        self._share = share
        self._dataset = dataset
        self._device = device
        self._noise_seed = derive_seed(seed, "training")
        self._flip_seed = derive_seed(seed, "flip") if dataset.flip else None
        self._composition_seed = None if dataset.recompose is None else derive_seed(seed, "composition")
        place = device if dataset.recompose is None else torch.device("cpu")  # where pictures are composed
        self._index_device = dataset.store_on("train", place).images.device
        self._images = Epochs(dataset.num_images("train"), seed=seed, purpose="order", device=self._index_device)

    def batch(self, index: int) -> Batch:
        """Return the batch at an index of the stream, from 0."""
        return self.batch_from(index * self.batch_size)

    def batch_from(self, start: int) -> Batch:
        """Return the batch that begins at a position of the stream, from 0."""
        positions = torch.arange(start, start + self.batch_size, device=self._index_device)
        return self._dataset.deliver(
            "train",
            self._indices(start)[self._share],
            positions[self._share],
            seed=self._noise_seed,
            device=self._device,
            flip_seed=self._flip_seed,
            composition_seed=self._composition_seed,
        )

    def _indices(self, start: int) -> Int[Tensor, " B"]:
        """Return the indices of the training images of a batch, over all processes."""
        return self._images.take(start, self.batch_size)


class SemiSupervisedStream(BatchStream):
    """Batches of a fixed number of labelled images, then images of the whole training split with their labels hidden.

    Labelled images and all images each follow permutations of their own, so that among the first each comes equally
    often, and so among the others. A labelled image comes among the others too, as one image of the split.
    """

    def __init__(
        self, dataset: Dataset, *, batch_size: int, share: slice, num_labelled: int, seed: int, device: torch.device
    ) -> None:
        super().__init__(dataset, batch_size=batch_size, share=share, seed=seed, device=device)
        if not 1 <= num_labelled < batch_size:
            raise ConfigurationError(
                f"the labelled images of a batch must be between 1 and {batch_size - 1} (the batch size less one), "
                f"got {num_labelled}"
            )
        rows = dataset.labelled_rows("train")
        if len(rows) == 0:
            raise ConfigurationError(
                f"trainer.labelled_fraction needs labelled images, and dataset {dataset.name} has none to train "
                "on: set it to null"
            )
        _warn_of_repetitions(num_labelled, len(rows), kind="labelled", hint="a smaller trainer.labelled_fraction")
        self.num_labelled = num_labelled
        self._rows = rows.to(self._index_device)
        self._labelled = Epochs(len(rows), seed=seed, purpose="labelled order", device=self._index_device)

    def batch_from(self, start: int) -> Batch:
        batch = super().batch_from(start)
        num_labelled = len(range(self.num_labelled)[self._share])  # of the images of this process
        batch.labels[num_labelled:] = UNLABELLED  # gathered, hence the batch's own
        return replace(batch, num_labelled=num_labelled)

    def _indices(self, start: int) -> Int[Tensor, " B"]:
        first = start * self.num_labelled // self.batch_size  # rounded where batches of another size came before
        labelled = self._rows.index_select(0, self._labelled.take(first, self.num_labelled))
        return torch.cat([labelled, self._images.take(start - first, self.batch_size - self.num_labelled)])


def _warn_of_repetitions(num_drawn: int, num_images: int, *, kind: str, hint: str) -> None:
    if num_drawn > num_images:
        _log.warning(
            f"a batch takes {num_drawn:,} {kind} images and there are {num_images:,}, so it holds some of them more "
            f"than once; {hint} avoids that"
        )


def _binarization_phrase(binarization: Binarization, threshold: float | None, num_levels: int) -> str:
    return {
        "none": f", {num_levels} levels",
        "threshold": f", binarised at grey value {threshold}",
        "stochastic": ", binarised stochastically (a fresh draw each time in training)",
        "fixed": "",
    }[binarization]
