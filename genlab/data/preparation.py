"""Preparation of the images of a source as a data set; every source shares it."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial, wraps
from inspect import signature
from logging import getLogger
from typing import Any, Literal

import torch
from jaxtyping import Int
from torch import Tensor

from genlab.data.dataset import SPLITS, Dataset, Recompose, Split
from genlab.data.randomness import permutation
from genlab.data.store import Store
from genlab.data.survey import numbered
from genlab.errors import ConfigurationError, DataError
from genlab.printing import printable
from genlab.randomness import derive_seed
from genlab.types import UNLABELLED

_log = getLogger(__name__)


@dataclass(frozen=True, kw_only=True)
class RawDataset:
    """The images of a source in three splits, before any preparation.

    Attributes:
        name: Name of the source.
        stores: The three splits, labelled.
        num_levels: Number of values a stored sub-pixel can take.
        class_names: One name per class of the source.
        source: Description of the images, for the provenance line.
        has_class_per_channel: See `Dataset`.
        recompose: See `Dataset`; pictures are named by their rows in the source.
        logs_classes: The class names come from the user's files, so the log lists them.
    """

    name: str
    stores: Mapping[Split, Store]
    num_levels: int
    class_names: Sequence[str]
    source: str
    has_class_per_channel: bool = False
    recompose: Recompose | None = None
    logs_classes: bool = False


@dataclass(frozen=True, kw_only=True)
class Preparation:
    """Preprocessing that every source shares; its fields are keys of every ``dataset`` node.

    Attributes:
        binarization: See `Dataset`.
        threshold: See `Dataset`.
        classes: Keep only these classes, in all splits, and number them anew: label k means ``classes[k]``. None: all.
        num_labels_per_class: Keep this many training labels per class, chosen at random; all others become UNLABELLED.
            None keeps all. Validation and test keep their labels.
        label_seed: Seed of that choice, and of the choice of training images.
        flip: See `Dataset`.
        num_training: Keep this many training images, chosen at random; None keeps all.
    """

    binarization: Literal["none", "threshold", "stochastic"]
    threshold: float
    classes: Sequence[int] | None
    num_labels_per_class: int | None
    label_seed: int
    flip: bool = False  # a default, because the configurations of older runs lack the key
    num_training: int | None = None  # likewise

    def apply(self, raw: RawDataset) -> Dataset:
        """Return the data set, with classes and training images chosen and labels hidden.

        Raises:
            ConfigurationError: A class does not exist, is named twice or has too few images, or there are too few
                training images.
            DataError: No training image is left, or the source lacks a split or the name of a class.
        """
        names, source = tuple(raw.class_names), raw.source
        stores = dict(raw.stores)
        _require_whole(raw)
        if self.classes is not None:
            kept = _checked_classes(self.classes, len(names))
            stores = {split: select_classes(store, kept) for split, store in stores.items()}
            names = tuple(names[index] for index in kept)
            source += f", classes {' '.join(map(printable, names))}"
        measure = partial(
            Dataset,
            name=raw.name,
            num_levels=raw.num_levels,
            class_names=names,
            binarization=self.binarization,
            threshold=self.threshold,
            has_class_per_channel=raw.has_class_per_channel and self.classes is None,  # chosen ones are numbered anew
            flip=self.flip,
            recompose=raw.recompose,
        )
        if raw.logs_classes and names:
            _log.info("classes: %s", numbered(names))
        whole = measure(stores=stores, source=source)
        if self.num_training is None and self.num_labels_per_class is None:
            return whole
        train = stores["train"]
        if self.num_training is not None:
            train = choose_images(train, self.num_training, seed=self.label_seed)
            source += f", {self.num_training} training images"
        if self.num_labels_per_class is not None:
            labels = hide_labels(
                train.labels,
                class_names=names,
                num_labels_per_class=self.num_labels_per_class,
                seed=self.label_seed,
            )
            train = train.with_labels(labels)
            source += f", {self.num_labels_per_class} labels per class"
        source += f", label seed {self.label_seed}"
        return measure(stores={**stores, "train": train}, source=source, unreduced=whole)


def _require_whole(raw: RawDataset) -> None:
    if missing := [split for split in SPLITS if split not in raw.stores]:
        raise DataError(
            f"dataset {raw.name} needs a store of each split, and has none of {' and '.join(missing)}; one without "
            "images will do"
        )
    shapes = {split: tuple(store.images.shape[1:]) for split, store in raw.stores.items() if len(store)}
    if len({*shapes.values()}) > 1 or any(len(shape) != 3 for shape in shapes.values()):
        told = ", ".join(f"{shape} in split {split}" for split, shape in shapes.items())
        raise DataError(f"dataset {raw.name} needs images of one (channels, height, width), got {told}")
    for split, store in raw.stores.items():
        if len(store):
            _require_sound(store, split, raw)


def _require_sound(store: Store, split: Split, raw: RawDataset) -> None:
    name, where = f"dataset {raw.name}", f"in split {split}"
    if store.labels.dim() != 1 or store.labels.is_floating_point():
        raise DataError(
            f"{name} needs a whole number for each label, got {store.labels.dtype} of shape "
            f"{tuple(store.labels.shape)} {where}"
        )
    least, largest = int(store.labels.min()), int(store.labels.max())
    if least < UNLABELLED or (raw.class_names and largest >= len(raw.class_names)):
        wrong = least if least < UNLABELLED else largest
        raise DataError(f"{name} has the label {wrong} {where}, and names of {len(raw.class_names)} classes")
    if raw.num_levels < 256 and (level := int(store.images.max())) >= raw.num_levels:  # else every byte is a level
        raise DataError(f"{name} has the level {level} {where}, and num_levels={raw.num_levels}")


def prepared(read: Callable[..., RawDataset]) -> Callable[..., Dataset]:
    """Add the fields of `Preparation` to the arguments of a function that reads a source, and apply it to the result.

    The signature is the schema of the ``dataset`` node, so the added arguments stand in it.
    """
    own, added = signature(read, eval_str=True), signature(Preparation).parameters

    @wraps(read)
    def dataset(**arguments: Any) -> Dataset:
        preparation = Preparation(**{name: arguments.pop(name) for name in added if name in arguments})
        return preparation.apply(read(**arguments))

    parameters = [*own.parameters.values(), *added.values()]
    dataset.__signature__ = own.replace(parameters=parameters, return_annotation=Dataset)  # type: ignore[attr-defined]
    return dataset


def select_classes(store: Store, classes: Sequence[int]) -> Store:
    """Return a view of the images of some classes, labelled by position in `classes`."""
    highest = max(int(store.labels.max()), *classes) if len(store) else max(classes)
    numbers = torch.full((highest + 2,), UNLABELLED)  # the last for images without a label, which are numbered -1
    numbers[list(classes)] = torch.arange(len(classes))
    labels = numbers[store.labels]
    rows = (labels != UNLABELLED).nonzero().squeeze(1)
    return store.select(rows).with_labels(labels[rows])


def choose_images(store: Store, num_images: int, *, seed: int) -> Store:
    """Return a view of a seeded random choice of images, in their order; a larger choice contains a smaller one.

    Raises:
        ConfigurationError: The number is not positive, or there are fewer images.
    """
    if not 1 <= num_images <= len(store):
        raise ConfigurationError(
            f"dataset.num_training must be between 1 and {len(store)} (the training images), got {num_images}"
        )
    return store.select(permutation(len(store), seed=derive_seed(seed, "images"))[:num_images].sort().values)


def hide_labels(
    labels: Int[Tensor, " N"], *, class_names: Sequence[str], num_labels_per_class: int, seed: int
) -> Int[Tensor, " N"]:
    """Keep a seeded random choice of labels, the same number in each class; the rest become UNLABELLED.

    Raises:
        ConfigurationError: The number is not positive, or a class has fewer images, or there are no labels.
    """
    if not class_names:
        raise ConfigurationError("dataset.num_labels_per_class needs labelled images, and this data set has no labels")
    kept = torch.full_like(labels, UNLABELLED)
    for index, name in enumerate(class_names):
        members = (labels == index).nonzero().squeeze(1)
        if len(members) == 0:
            raise ConfigurationError(
                "dataset.num_labels_per_class needs training images of every class, and class "
                f"{printable(name)} has none: choose more images (dataset.num_training) or other classes "
                "(dataset.classes)"
            )
        if not 1 <= num_labels_per_class <= len(members):
            raise ConfigurationError(
                f"dataset.num_labels_per_class must be between 1 and {len(members)} (the training images of class "
                f"{printable(name)}), got {num_labels_per_class}"
            )
        order = permutation(len(members), seed=derive_seed(seed, "labels", index))
        kept[members[order[:num_labels_per_class]]] = index
    return kept


def split_by_index(
    store: Store, test: Store, *, num_validation: int, key: str = "dataset.num_validation"
) -> dict[Split, Store]:
    """Return the first images of a file for training and the last `num_validation` for validation, and the test images.

    Raises:
        ConfigurationError: Validation would leave no training image.
    """
    if not 0 <= num_validation < len(store):
        raise ConfigurationError(
            f"{key} must be between 0 and {len(store) - 1} (the training file's images less one), got {num_validation}"
        )
    boundary = len(store) - num_validation
    # Slices of the tensor rather than views by rows: they gather without an indirection.
    return {
        "train": Store(store.images[:boundary], store.labels[:boundary]),
        "validation": Store(store.images[boundary:], store.labels[boundary:]),
        "test": test,
    }


def _checked_classes(classes: Sequence[int], num_classes: int) -> list[int]:
    if num_classes == 0:
        raise ConfigurationError("dataset.classes needs labelled images, and this data set has no labels")
    for index in classes:
        if not 0 <= index < num_classes:
            raise ConfigurationError(
                f"dataset.classes must be indices between 0 and {num_classes - 1} (the data set's classes), got {index}"
            )
    if not classes or len(set(classes)) != len(classes):
        raise ConfigurationError(f"dataset.classes must name at least one class, each once, got {list(classes)}")
    return list(classes)
