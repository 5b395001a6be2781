"""The features with which a run compares its samples with validation images, and the observer that does so."""

import logging
import math
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from functools import partial
from pathlib import Path

import torch

from genlab.config.schema import RunConfiguration
from genlab.data.dataset import Dataset
from genlab.errors import ConfigurationError
from genlab.launch.sweep_folder import SweepFolder
from genlab.metrics.features import ClassifierFeatures, FeatureExtractor
from genlab.metrics.inception import InceptionFeatures, weights_file
from genlab.metrics.quality_observer import QualityObserver, is_measured_by_samples
from genlab.metrics.quality_settings import DOWNLOADED, LEAST_IMAGES
from genlab.metrics.random_network import RandomNetworkFeatures
from genlab.models.base import Model
from genlab.parallel.processes import first_before_others, gathered
from genlab.reference_classifier import cached_classifier, reference_classifier, why_no_classifier
from genlab.training.observer import ObserverFactory

_log = logging.getLogger(__name__)

QUALITY = "quality"
_NOT_MEASURED = "quality: not measured, so the last checkpoint is used: %s"


def quality_observers(
    configuration: RunConfiguration,
    model: Model,
    dataset: Dataset,
    *,
    run_folder: Path,
    device: torch.device,
    typed: Sequence[str],
    train: Callable[..., object],
) -> Mapping[str, ObserverFactory]:
    """Return the observer of the sample quality by its name; empty if a run's samples are not measured.

    Args:
        configuration: Of the run.
        model: Of the run.
        dataset: Of the run.
        run_folder: Of the run; within a sweep its jobs choose their features alike.
        device: Where the run is trained.
        typed: Overrides of the command line, which a warning names where they have no effect.
        train: See :func:`genlab.reference_classifier.reference_classifier`.

    Raises:
        ConfigurationError: The data teach no classifier, and one was asked for.
        CheckpointError: The file of Inception's weights cannot be used.
    """
    settings, num_images = configuration.quality_settings, dataset.num_images("validation")
    if settings is None:
        return {}
    reason = None
    if not is_measured_by_samples(model):
        reason = f"{type(model).__name__} is not measured by its samples"
    elif settings.interval is None and configuration.settings.validation_interval == 0:
        reason = "trainer.validation_interval is 0"
    elif num_images < LEAST_IMAGES:
        reason = f"dataset {dataset.name} has {num_images} validation images, and {LEAST_IMAGES} are the fewest"
        if "validation_fraction" in configuration.dataset:
            reason += "; a larger dataset.validation_fraction gives more"
        _log.info(_NOT_MEASURED, reason)
    elif (limit := configuration.settings.validation_images) is not None and limit < LEAST_IMAGES:
        reason = f"trainer.validation_images is {limit}, and {LEAST_IMAGES} are the fewest"
        _log.info(_NOT_MEASURED, reason)
    if reason is not None:
        if arguments := [argument for argument in typed if argument.lstrip("+").startswith(QUALITY)]:
            _log.warning("%s has no effect: %s", arguments[0], reason)
        return {}
    find = partial(_extractor, configuration, dataset, run_folder=run_folder, device=device, train=train)
    with first_before_others():  # a classifier trained once
        extractor = find()
    if len(set(gathered(extractor.identity))) > 1:  # machines with caches of their own
        extractor = RandomNetworkFeatures(dataset.spec, device=device)
    return {QUALITY: partial(QualityObserver, settings=settings, extractor=extractor)}


def _extractor(
    configuration: RunConfiguration,
    dataset: Dataset,
    *,
    run_folder: Path,
    device: torch.device,
    train: Callable[..., object],
) -> FeatureExtractor:
    settings, num_threads = configuration.quality_settings, configuration.threads
    assert settings is not None
    if settings.inception_weights is not None or settings.features == "inception":
        return InceptionFeatures(weights_file(settings.inception_weights or DOWNLOADED), device=device)
    found = None
    if settings.features == "auto":
        before = _began(SweepFolder(run_folder.parent))
        found = cached_classifier(dataset, configuration.dataset, device=device, num_threads=num_threads, before=before)
    elif settings.features == "classifier":
        if (reason := why_no_classifier(dataset)) is not None:
            raise ConfigurationError(
                f"quality.features must be auto, inception or random_network, got classifier: {reason}"
            )
        found = reference_classifier(
            dataset, configuration.dataset, device=device, num_threads=num_threads, tell=_log.info, train=train
        )
    if found is None:
        return RandomNetworkFeatures(dataset.spec, device=device)
    return ClassifierFeatures(found.classifier, weights_id=found.weights_id)


def _began(sweep: SweepFolder) -> float:
    """Return the first start of the sweep, so that all of its jobs choose equal features."""
    with suppress(ConfigurationError):  # a single run
        return sweep.read_plan().began or math.inf
    return math.inf


def with_features(configuration: RunConfiguration, observer: object) -> RunConfiguration:
    """Return the configuration with ``quality.features=auto`` replaced by the chosen features, for the run folder.

    Args:
        configuration: Of the run.
        observer: Of the samples' quality; of another kind where they are not measured.
    """
    if not isinstance(observer, QualityObserver) or configuration.quality is None:
        return configuration
    return configuration.changed(quality={**configuration.quality, "features": observer.extractor.name})
