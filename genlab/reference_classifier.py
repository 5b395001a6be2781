"""The classifier that measures samples: from the cache, trained if it is missing there, or a run of the user.

It is trained like any other model, by the configuration of `genlab train model=classifier` on the data of the run that
is measured, and kept as a run folder under the fingerprint of those data. Loading it never unpickles anything.
"""

import functools
import glob
import hashlib
import json
import logging
import shutil
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from genlab.config.compose import open_composer, plain
from genlab.config.schema import RunConfiguration, read_run_configuration
from genlab.data.dataset import Dataset
from genlab.data.download import exclusive_access, storage_error
from genlab.errors import CheckpointError, ConfigurationError, GenlabError
from genlab.models.classifier import LEAST_SIDE, Classifier
from genlab.paths import user_cache
from genlab.run.changes import resumed
from genlab.run.environment import saved_class_names
from genlab.run.folder import has_checkpoint, read_summary
from genlab.run.formats import CHECKPOINT_FORMAT
from genlab.run.loading import load_trained, weights_id
from genlab.run.record import load_run
from genlab.training.collapse import ClassPredictor
from genlab.types import ImageSpec

_log = logging.getLogger(__name__)

OVERRIDES: tuple[str, ...] = (
    *("model=classifier", "trainer.sample_interval=0"),
    *("trainer.precision=float32", "trainer.compile=false"),
)
"""Overrides of `genlab train`; the classifier is trained in the same precision on every machine."""
_UNPREPARED: Mapping[str, Any] = {
    "num_labels_per_class": None,
    "num_training": None,
    "flip": False,
    "fresh_clutter": False,
}
"""Preparation of the training images that the classifier does not use."""


@dataclass(frozen=True, kw_only=True)
class ReferenceClassifier:
    """A trained classifier in evaluation mode."""

    classifier: Classifier
    weights_id: str
    """Eight hex digits of the SHA-256 of its weights."""
    run_folder: Path
    test_error: float | None
    """Share of misclassified test images; None if the run was not tested."""


def why_no_classifier(dataset: Dataset) -> str | None:
    """Return the reason for which no classifier can be trained on these data; None if one can."""
    if dataset.spec.num_classes == 0:
        return f"dataset {dataset.name} has no labels"
    if dataset.spec.num_classes == 1:
        return f"dataset {dataset.name} has one class, {dataset.class_names[0]}"
    if min(dataset.spec.height, dataset.spec.width) < LEAST_SIDE:
        return f"the images of dataset {dataset.name} are smaller than {LEAST_SIDE}x{LEAST_SIDE}"
    return None


def load_classifier(
    run_folder: Path,
    *,
    spec: ImageSpec,
    device: torch.device,
    class_names: Sequence[str] = (),
    key: str = "classifier",
) -> ReferenceClassifier:
    """Return the classifier of the user's run.

    Args:
        run_folder: A run of ``model=classifier``.
        spec: Of the images to be classified.
        device: Where it goes.
        class_names: Of the images to be classified; empty if unknown.
        key: Of the setting that names it, for messages.

    Raises:
        ConfigurationError: The run is not of a classifier, or of one for other images.
        CheckpointError: Its checkpoint cannot be used.
    """
    trained = load_trained(run_folder, checkpoint="best", device=device)
    if not isinstance(trained.model, Classifier):
        raise ConfigurationError(
            f"{key} must be a run of model=classifier, got {run_folder}, a run of {type(trained.model).__name__}"
        )
    learned = trained.run.spec
    wanted, found = ((each.channels, each.height, each.width) for each in (spec, learned))
    if wanted != found or (spec.num_classes and spec.num_classes != learned.num_classes):
        raise ConfigurationError(
            f"{key} must have learned images like the measured ones (channels, height, width {wanted}, "
            f"{spec.num_classes} classes), got {run_folder}, which learned {found}, {learned.num_classes} classes"
        )
    names = saved_class_names(trained.run.folder)
    if spec.num_classes and class_names and names and list(class_names) != names:
        raise ConfigurationError(
            f"{key} must have learned the classes {', '.join(class_names)}, got {run_folder}, which learned "
            f"{', '.join(names)}"
        )
    return ReferenceClassifier(
        classifier=trained.model,
        weights_id=weights_id(trained.model),
        run_folder=run_folder,
        test_error=_test_error(run_folder),
    )


def reference_classifier(
    dataset: Dataset,
    node: Mapping[str, Any],
    *,
    device: torch.device,
    num_threads: int | None,
    tell: Callable[[str], None],
    train: Callable[..., object],
) -> ReferenceClassifier:
    """Return the classifier of these data, which is trained if it is not cached, by one process while others wait.

    Args:
        dataset: Data on which one can be trained (:func:`why_no_classifier`).
        node: The configuration that the data were built from.
        device: Where to train it, and where it goes.
        num_threads: As in `genlab train`.
        tell: Prints the line before training, which takes minutes, and the line about the classifier that is used.
        train: :func:`genlab.train.train`, passed as an argument because a training run may need a classifier too.

    Raises:
        GenlabError: Training failed in an expected way.
    """
    configuration = _configuration(dataset, node, device=device, num_threads=num_threads)
    cache = user_cache() / "classifiers"
    name = _name(dataset, configuration)
    home = cache / name
    if _status(home) != "finished":  # else nothing is written, since the folder may be read-only
        with exclusive_access(cache, name):
            if _status(home) != "finished":
                tell(f"training a classifier on {dataset.name} to measure samples, once; cached in {home}")
                _train(configuration, home, device=device, train=train)
    found = load_classifier(home, spec=dataset.spec, device=device)
    measured = "" if found.test_error is None else f", {100 * found.test_error:.2f} % error on its test images"
    tell(f"classifier {found.weights_id} of {dataset.name}{measured}: {home}")
    return found


def _train(configuration: RunConfiguration, home: Path, *, device: torch.device, train: Callable[..., object]) -> None:
    """Train in a folder of the cache, from the checkpoint that an interrupted training left there if it can be used."""
    command = "genlab train model=classifier"
    if has_checkpoint(home):
        with suppress(CheckpointError, ConfigurationError):
            train(resumed(load_run(home), [f"device={device}"]), home, command=command)
            return
    try:
        if home.exists():
            shutil.rmtree(home)
        home.mkdir()
    except OSError as error:
        raise storage_error(home, error) from error
    train(configuration, home, command=command)


def cached_classifier(
    dataset: Dataset, node: Mapping[str, Any], *, device: torch.device, num_threads: int | None, before: float
) -> ReferenceClassifier | None:
    """Return the cached classifier of these data, without training; None if the cache has no usable one.

    Args:
        dataset: Of the run.
        node: The configuration that the data were built from.
        device: Where it goes.
        num_threads: As in `genlab train`.
        before: Pass over one that was finished at this time or later, in seconds since the epoch.
    """
    cache = user_cache() / "classifiers"
    # Without composing a configuration, which takes a second.
    if why_no_classifier(dataset) is not None or not any(cache.glob(f"{glob.escape(_data_name(dataset))}_*")):
        return None
    home = cache / _name(dataset, _configuration(dataset, node, device=device, num_threads=num_threads))
    if _status(home) != "finished" or (home / "summary.json").stat().st_mtime >= before:
        return None
    try:
        return load_classifier(home, spec=dataset.spec, device=device)
    except GenlabError as error:
        _log.warning("the cached classifier is ignored: %s", error)
        return None


def class_predictor(
    configuration: RunConfiguration, dataset: Dataset, *, device: torch.device, train: Callable[..., object]
) -> ClassPredictor | None:
    """Return the classifier with which the collapse watch counts modes; None if it is not requested.

    Args:
        configuration: Of the run.
        dataset: Of the run.
        device: Where it goes.
        train: See :func:`reference_classifier`.

    Raises:
        ConfigurationError: ``trainer.watch_classifier`` names no run of a classifier of such images, or is ``auto`` for
            data that teach no classes.
        CheckpointError: Its weights cannot be used.
    """
    settings = configuration.settings
    if settings.watch_interval == 0 or settings.watch_classifier is None:
        return None
    if settings.watch_classifier != "auto":
        folder = Path(settings.watch_classifier)
        found = load_classifier(
            folder,
            spec=dataset.spec,
            device=device,
            class_names=dataset.class_names,
            key="trainer.watch_classifier",
        )
    elif (reason := why_no_classifier(dataset)) is not None:
        raise ConfigurationError(
            f"trainer.watch_classifier must be null or the run of a classifier, got auto: {reason}"
        )
    else:
        found = reference_classifier(
            dataset,
            configuration.dataset,
            device=device,
            num_threads=configuration.threads,
            tell=_log.info,
            train=train,
        )
    num_modes = found.classifier.spec.num_classes
    return ClassPredictor(name=str(found.run_folder), num_modes=num_modes, predict=found.classifier.predict)


def _configuration(
    dataset: Dataset, node: Mapping[str, Any], *, device: torch.device, num_threads: int | None
) -> RunConfiguration:
    """Return the configuration of `genlab train model=classifier` on the same images, with all labels."""
    overrides = [
        *OVERRIDES,
        f"model.per_channel={str(dataset.has_class_per_channel).lower()}",
        f"trainer.test_at_end={str(dataset.num_images('test') > 0).lower()}",
    ]
    if dataset.num_images("validation") == 0:
        overrides.append("trainer.validation_interval=0")
    values = _composed(*overrides)
    labelled = {**node, **{key: value for key, value in _UNPREPARED.items() if key in node}}
    return read_run_configuration({**values, "dataset": labelled, "device": str(device), "num_threads": num_threads})


@functools.cache
def _composed(*overrides: str) -> Mapping[str, Any]:
    with open_composer("train", config_dir=None) as composer:
        return plain(composer.compose(list(overrides)))


def _name(dataset: Dataset, configuration: RunConfiguration) -> str:
    """Return a name from the data's fingerprint and that of the classifier's configuration."""
    recipe = [
        CHECKPOINT_FORMAT,
        configuration.model,
        configuration.optimizer,
        configuration.schedule,
        configuration.trainer,
    ]
    digest = hashlib.sha256(json.dumps(recipe, sort_keys=True).encode()).hexdigest()
    return f"{_data_name(dataset)}_{digest[:8]}"


def _data_name(dataset: Dataset) -> str:
    return f"{dataset.name}_{dataset.unreduced.fingerprint[:16]}"


def _status(run_folder: Path) -> str | None:
    status = read_summary(run_folder).get("status")
    return status if isinstance(status, str) else None


def _test_error(run_folder: Path) -> float | None:
    tested = read_summary(run_folder).get("test")
    error = tested.get("test/error") if isinstance(tested, dict) else None
    return error if isinstance(error, float) else None
