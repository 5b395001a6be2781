"""Measures of samples for `genlab evaluate`: of a run's own samples, or of images of any program."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch

from genlab.commands.evaluate_settings import EvaluateSettings, dataset_of_samples
from genlab.config.build import build
from genlab.data.dataset import SPLITS, Dataset, Split
from genlab.data.image_set import ImageSet, read_image_set
from genlab.data.sample_record import read_record
from genlab.errors import ConfigurationError, DataError
from genlab.metrics.features import ClassifierFeatures, FeatureExtractor
from genlab.metrics.generation import IMAGES_AT_ONCE, Generated
from genlab.metrics.inception import InceptionFeatures, weights_file
from genlab.metrics.ledger import Entry, Estimate, Source, Weights, entries_of_samples, format_table
from genlab.metrics.modes import format_histogram
from genlab.metrics.quality import LEAST_IMAGES, Comparison, Protocol, Reference, Report
from genlab.metrics.quality_settings import DOWNLOADED
from genlab.metrics.random_network import RandomNetworkFeatures
from genlab.parallel.collectives import is_first
from genlab.parallel.processes import first_before_others
from genlab.paths import absolute
from genlab.reference_classifier import load_classifier, reference_classifier, why_no_classifier
from genlab.run.loading import writable
from genlab.run.names import CONFIG_NAME
from genlab.run.record import save_evaluation
from genlab.sampling.pictures import save_picture
from genlab.train import train
from genlab.types import ImageSpec


@dataclass(frozen=True, kw_only=True)
class Ledger:
    """The entries of measures of samples, with their histogram and pictures."""

    measures: list[Entry] = field(default_factory=list)
    baselines: list[Entry] = field(default_factory=list)
    report: Report = field(default_factory=Report)


def measure_given_samples(settings: EvaluateSettings, device: torch.device, command: str) -> None:
    """Print the measures of given samples, and write them with pictures into a folder.

    Raises:
        ConfigurationError: The folder is a run's.
        DataError: The images cannot be read or compared, or are too few.
    """
    assert isinstance(settings.samples, str)
    assert settings.out is not None
    place = writable(Path(settings.out), None)
    if (place / CONFIG_NAME).exists():
        raise ConfigurationError(f"out must be a folder other than that of a run, got {place}")
    seed = settings.seed or 0
    node = dataset_of_samples(settings)
    with first_before_others():  # a download, or images decoded once
        dataset = None if node is None else build(node, "dataset", expects=Dataset)
    samples = read_image_set(Path(settings.samples), key="samples")
    reference = reference_images(settings, dataset, seed=seed)
    samples = samples.fitted(reference.levels.shape[1:], to="the reference")
    _require_enough(len(samples.levels), f"samples must be at least {LEAST_IMAGES} images, got", samples.name)
    print(f"{settings.samples}: {len(samples.levels):,} images, {samples.form}")
    labels = None if dataset is None else samples.labels_among(dataset.class_names)
    if labels is None and dataset is not None and dataset.class_names and samples.has_classes:
        print(f"without conditional accuracy: the classes of the samples are not those of dataset {dataset.name}")
    spec = _spec_of(reference) if dataset is None else dataset.spec
    with first_before_others():  # a classifier trained once
        classifier, extractors = feature_extractors(settings, dataset, node, spec=spec, device=device)
    protocol = protocol_of(settings, seed=seed, batch_size=settings.batch_size or IMAGES_AT_ONCE)
    generated = Generated(levels=samples.levels, labels=labels)
    comparison = Comparison(
        generated, reference, extractors, protocol, dataset=dataset, device=device, measures=settings.further_measures
    )
    if not is_first():
        return
    origin = _origin(Path(settings.samples), samples)
    ledger = ledger_of_samples(comparison, weights=_weights(origin["sampling"]))
    print(format_table(ledger.measures, ledger.baselines))
    show_report(ledger.report, dataset, place)
    path = save_evaluation(
        place,
        command=command,
        checkpoint=None,
        step=None,
        provenance=_provenance(reference, dataset),
        measures=ledger.measures,
        baselines=ledger.baselines,
        classifier=classifier,
        samples=origin,
    )
    print(f"written to {path}")


def reference_images(settings: EvaluateSettings, dataset: Dataset | None, *, seed: int) -> Reference:
    """Return the real images that samples are compared with.

    Args:
        settings: With a folder or an NPZ, or a split of the data set.
        dataset: Data set of the samples; its images give the shape.
        seed: Of the choice of ``num_images``.

    Raises:
        DataError: They are too few, cannot be read, or are not images like those of the data set.
    """
    split, num_images = settings.reference_split, settings.num_images
    if settings.reference is not None:
        images = read_image_set(Path(settings.reference), key="reference")
        if dataset is not None:
            spec = dataset.spec
            images = images.fitted((spec.channels, spec.height, spec.width), to=f"those of dataset {dataset.name}")
        reference = Reference.of_files(images, num_images, seed=seed)
        place = images.name
    else:
        assert dataset is not None
        reference = Reference.of_split(dataset, split, num_images, seed=seed)
        place = f"split {split}; {_larger_reference(dataset, split)}"
    _require_enough(len(reference.levels), f"samples are compared with at least {LEAST_IMAGES} images, got", place)
    return reference


def protocol_of(settings: EvaluateSettings, *, seed: int, batch_size: int) -> Protocol:
    """Return the protocol of a comparison of samples."""
    return Protocol(
        seed=seed, batch_size=batch_size, parzen=settings.parzen, nearest_training=settings.nearest_training
    )


def feature_extractors(
    settings: EvaluateSettings,
    dataset: Dataset | None,
    node: Mapping[str, Any] | None,
    *,
    spec: ImageSpec,
    device: torch.device,
) -> tuple[Mapping[str, Any] | None, list[FeatureExtractor]]:
    """Return a description of the classifier, and the feature extractors.

    These are the classifier if one is named or can be trained on the data, and Inception if its weights are given; a
    random network where there is neither.

    Args:
        settings: With the run of a classifier, and the file of Inception's weights or :data:`DOWNLOADED`.
        dataset: Data to train a classifier on; None without any.
        node: Configuration that they were built from.
        spec: Of the images.
        device: Where they go.

    Raises:
        ConfigurationError: The named run is not of a classifier of such images.
        CheckpointError: Weights cannot be used.
    """
    extractors: list[FeatureExtractor] = []
    if settings.inception_weights is not None:
        extractors.append(InceptionFeatures(weights_file(settings.inception_weights), device=device))
    reason = "there is no dataset=NAME with labels" if dataset is None else why_no_classifier(dataset)
    if settings.classifier is not None:
        names = () if dataset is None else dataset.class_names
        found = load_classifier(Path(settings.classifier), spec=spec, device=device, class_names=names)
    elif reason is None and dataset is not None and node is not None:
        found = reference_classifier(
            dataset, node, device=device, num_threads=settings.num_threads, tell=print, train=train
        )
    else:
        if not extractors:
            extractors.append(RandomNetworkFeatures(spec, device=device))
        print(
            f"on the features of {extractors[0].identity}, not of a classifier: {reason}; classifier=RUN names one, "
            f"inception_weights={DOWNLOADED} takes Inception's"
        )
        return None, extractors
    about = {"weights": found.weights_id, "run": str(absolute(found.run_folder)), "test_error": found.test_error}
    return about, [ClassifierFeatures(found.classifier, weights_id=found.weights_id), *extractors]


def ledger_of_samples(comparison: Comparison, *, weights: Weights) -> Ledger:
    """Return the measures of a comparison as entries of the ledger.

    Args:
        comparison: Of the samples.
        weights: Of the model that made them.
    """
    report, reference = comparison.report(), comparison.reference
    # The nearest training images are those of the data set, whatever the reference is.
    without_reference = reference.source if comparison.dataset is None else Source.of(comparison.dataset)

    def enter(estimates: Iterable[Estimate], weights: Weights) -> list[Entry]:
        return [
            entry
            for estimate in estimates
            for entry in entries_of_samples(
                [estimate],
                source=reference.source if estimate.num_reference else without_reference,
                split=reference.split or "files",
                seed=comparison.protocol.seed,
                weights=weights,
            )
        ]

    return Ledger(measures=enter(report.estimates, weights), baselines=enter(report.baselines, "none"), report=report)


def show_report(report: Report, dataset: Dataset | None, place: Path) -> None:
    """Print the remarks and the histogram of a report, and write its pictures into ``samples/`` of a folder."""
    for remark in report.remarks:
        print(remark)
    if report.histogram is not None:
        print(format_histogram(report.histogram, dataset))
    for name, picture in report.pictures.items():
        path = place / "samples" / f"{name}.png"
        save_picture(picture, path)
        print(f"picture: {path}")


def _require_enough(count: int, rule: str, place: str) -> None:
    if count < LEAST_IMAGES:
        raise DataError(f"{rule} {count} of {place}")


def _larger_reference(dataset: Dataset, chosen: Split) -> str:
    """Return what to type for real images in sufficient number."""
    large = [split for split in SPLITS if dataset.num_images(split) >= LEAST_IMAGES]
    if chosen in large:
        return "a larger num_images takes more"
    return f"reference_split={large[-1]} has more" if large else "reference=FOLDER compares with other images"


def _spec_of(reference: Reference) -> ImageSpec:
    channels, height, width = reference.levels.shape[1:]
    return ImageSpec(channels=channels, height=height, width=width, num_levels=256, num_classes=0)


def _provenance(reference: Reference, dataset: Dataset | None) -> str:
    files = None if reference.split is not None else f"{len(reference.levels):,} images of {reference.source.name}"
    return ", beside ".join(text for text in (files, None if dataset is None else dataset.provenance) if text)


def _origin(path: Path, samples: ImageSet) -> dict[str, Any]:
    """Return the description of the samples for the record."""
    return {
        "source": str(absolute(path)),
        "name": samples.name,
        "num_images": len(samples.levels),
        "fingerprint": samples.fingerprint,
        "sampling": read_record(path if path.is_dir() else path.parent),
    }


def _weights(sampling: Mapping[str, Any] | None) -> Weights:
    """Return the weights that the record of a sampling names."""
    named = None if sampling is None else sampling.get("weights")
    return next((known for known in ("trained", "averaged") if known == named), "unknown")
