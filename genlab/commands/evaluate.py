"""`genlab evaluate`: the ledger of a trained run in RUN/evaluation.json, or likelihoods of given images beside it."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property, partial
from pathlib import Path
from typing import Any, Literal

import torch
from torch import Tensor
from tqdm import tqdm

from genlab.commands.likelihoods import GivenImagesSettings, measure_given_images
from genlab.config.build import build
from genlab.config.compose import parse_overrides
from genlab.config.devices import choose_device
from genlab.config.fields import check_fields
from genlab.data.dataset import Dataset, Split
from genlab.errors import ConfigurationError, DataError
from genlab.launch.contract import JobContext
from genlab.launch.devices import processes_on
from genlab.launch.processes import Processes
from genlab.measures import Measure
from genlab.metrics.baselines import BASELINE_MEASURES, baseline_averages
from genlab.metrics.features import ClassifierFeatures, FeatureExtractor
from genlab.metrics.inception import InceptionFeatures
from genlab.metrics.ledger import Entry, entries_from, entries_of_samples, format_table
from genlab.metrics.likelihoods import has_likelihood
from genlab.metrics.matching import CODE_MEASURES, CodePredictor, code_averages
from genlab.metrics.modes import format_histogram
from genlab.metrics.quality import LEAST_IMAGES, Comparison, Protocol, Report
from genlab.metrics.sample_measure import SampleMeasure
from genlab.models.base import GenerativeModel
from genlab.parallel.collectives import is_first, num_processes, rank
from genlab.parallel.processes import first_before_others, joined, own_device
from genlab.paths import absolute
from genlab.reference_classifier import ReferenceClassifier, load_classifier, reference_classifier, why_no_classifier
from genlab.run.loading import TrainedModel, build_dataset, load_trained, set_num_threads, writable
from genlab.run.record import moved, require_root_alone, save_evaluation
from genlab.sampling.pictures import save_picture
from genlab.train import train
from genlab.training.evaluation import (
    Average,
    Batching,
    averages_of_split,
    batching_for,
)
from genlab.types import Batch

_KEYS_OF_GIVEN_IMAGES = frozenset(
    {
        *("run", "images", "against", "out", "checkpoint", "num_importance_samples", "batch_size", "seed"),
        *("device", "devices", "num_threads"),
    }
)


@dataclass(frozen=True, kw_only=True)
class EvaluateSettings:
    """The keys of configs/evaluate.yaml.

    Raises:
        ValueError: A value is out of its range.
    """

    run: str
    checkpoint: Literal["best", "last"]
    split: Split
    num_images: int | None
    num_importance_samples: int
    samples: bool | None
    num_generated: int
    reference_split: Split
    classifier: str | None
    inception_weights: str | None
    parzen: bool
    images: str | None
    against: str | None
    dataset: Mapping[str, Any]
    allow_other_data: bool
    out: str | None
    batch_size: int | None
    seed: int | None
    device: str
    devices: int
    num_threads: int | None
    measure: dict[str, dict[str, Any] | None]
    """Further measures of samples by name, each a node; null takes one away."""

    @cached_property
    def further_measures(self) -> dict[str, SampleMeasure]:
        """The further measures of samples, built."""
        return {
            name: build(node, f"measure.{name}", expects=SampleMeasure)
            for name, node in self.measure.items()
            if node is not None
        }

    def __post_init__(self) -> None:
        if self.measure and self.samples is False:
            raise ValueError(f"measure must be empty with samples=false, got {', '.join(self.measure)}")
        if self.num_importance_samples < 0:
            raise ValueError(f"num_importance_samples must be 0 or more, got {self.num_importance_samples}")
        require_root_alone(self.dataset)
        if self.devices < 1:
            raise ValueError(f"devices must be at least 1, got {self.devices}")
        if self.against is not None and self.images is None:
            raise ValueError(
                f"against must be null without images=FOLDER, whose likelihoods it compares, got {self.against}"
            )
        for key in ("batch_size", "num_images"):
            value = getattr(self, key)
            if value is not None and value < 1:
                raise ValueError(f"{key} must be null or at least 1, got {value}")
        if self.num_generated < LEAST_IMAGES:
            raise ValueError(f"num_generated must be at least {LEAST_IMAGES}, got {self.num_generated}")


@dataclass(frozen=True, kw_only=True)
class Evaluation:
    """The measures of a run, and the settings and environment in which they were taken."""

    settings: EvaluateSettings
    trained: TrainedModel
    dataset: Dataset
    device: torch.device
    batch_size: int
    seed: int

    @property
    def batching(self) -> Batching:
        """The batches in which the model is measured."""
        return batching_for(
            self.trained.model,
            training_size=self.trained.run.configuration.settings.num_images_at_once,
            size=self.batch_size,
        )

    def enter(
        self,
        averages: Mapping[str, Average],
        declarations: Mapping[str, Measure],
        *,
        is_baseline: bool = False,
        protocol: str | None = None,
    ) -> list[Entry]:
        """Return measures of given images as entries of the ledger."""
        return entries_from(
            averages,
            declarations,
            dataset=self.dataset,
            split=self.settings.split,
            seed=self.seed,
            weights="none" if is_baseline else self.trained.weights,
            num_importance_samples=self.settings.num_importance_samples,
            protocol=protocol,
        )


def read(values: Mapping[str, Any], overrides: Sequence[str]) -> EvaluateSettings:
    """Return the checked settings.

    Raises:
        ConfigurationError: Something in them does not fit.
    """
    settings = check_fields(EvaluateSettings, {"measure": {}, **values}, "")
    _ = settings.further_measures  # a mistake in their nodes is an error before anything is loaded
    if settings.images is not None:
        for override in parse_overrides(overrides):
            if override.key_or_group not in _KEYS_OF_GIVEN_IMAGES:
                raise ConfigurationError(
                    f"{override.key_or_group} has no effect on the likelihoods of given images: leave it out, or images"
                )
    return settings


def processes(settings: EvaluateSettings) -> Processes:
    """Return the number of processes that measure together.

    Raises:
        ConfigurationError: This machine has fewer devices.
    """
    return processes_on(settings.device, num=settings.devices, key="devices")


def run(settings: EvaluateSettings, context: JobContext) -> None:
    """Measure, print, write. Several processes share the work of the networks; rank 0 does the rest.

    Raises:
        ConfigurationError: A setting does not fit the run.
        DataError: The split is empty or its data are missing.
        CheckpointError: No checkpoint can be used.
    """
    device = own_device(choose_device(settings.device))
    with joined(device, is_patient=True):
        trained = load_trained(Path(settings.run), checkpoint=settings.checkpoint, device=device)
        trained = replace(trained, run=moved(trained.run, settings.dataset["root"]))
        set_num_threads(settings.num_threads, trained)
        if settings.images is None:
            _measure_split(settings, trained, device, context.command)
        else:
            batch_size, seed = _batch_size_and_seed(settings, trained)
            given = GivenImagesSettings(
                run=settings.run,
                images=settings.images,
                against=settings.against,
                out=settings.out,
                num_importance_samples=settings.num_importance_samples,
                batch_size=batch_size,
                seed=seed,
            )
            measure_given_images(given, trained, device, context.command)


def _measure_split(settings: EvaluateSettings, trained: TrainedModel, device: torch.device, command: str) -> None:
    """Return the ledger of a split, including measures of samples."""
    with first_before_others():  # a download, or images decoded once
        dataset = build_dataset(trained.run, allows_other=settings.allow_other_data)
    batch_size, seed = _batch_size_and_seed(settings, trained)
    evaluation = Evaluation(
        settings=settings, trained=trained, dataset=dataset, device=device, batch_size=batch_size, seed=seed
    )
    print(
        f"{settings.run}: {trained.checkpoint} of step {trained.step}, {trained.weights} weights, "
        f"{evaluation.dataset.provenance}"
    )
    # Invalid settings are refused before anything is measured.
    place = writable(trained.run.folder, settings.out)
    pictures = writable(place / "samples", None)
    generator = _model_to_sample(evaluation)
    with first_before_others():  # a classifier trained once
        classifier, extractors = (None, []) if generator is None else _extractors(evaluation)
    averages = _averages(evaluation)
    comparison = None if generator is None else _comparison(evaluation, generator, extractors)
    if not is_first():
        return
    measures, baselines = _entered(evaluation, averages)
    report = Report() if comparison is None else comparison.report()
    enter = partial(entries_of_samples, dataset=evaluation.dataset, split=settings.reference_split, seed=seed)
    measures += enter(report.estimates, weights=trained.weights)
    baselines += enter(report.baselines, weights="none")
    print(format_table(measures, baselines))
    if report.histogram is not None:
        print(format_histogram(report.histogram, evaluation.dataset))
    for name, picture in report.pictures.items():
        path = pictures / f"{name}.png"
        save_picture(picture, path)
        print(f"picture: {path}")
    path = save_evaluation(
        place,
        command=command,
        checkpoint=trained.checkpoint,
        step=trained.step,
        dataset=evaluation.dataset,
        measures=measures,
        baselines=baselines,
        classifier=None if classifier is None else _about(classifier),
    )
    print(f"written to {path}")


def _batch_size_and_seed(settings: EvaluateSettings, trained: TrainedModel) -> tuple[int, int]:
    """Return the batch size and seed; those of the run by default, which repeat its own test bit for bit."""
    configuration = trained.run.configuration
    batch_size = configuration.settings.batch_size if settings.batch_size is None else settings.batch_size
    return batch_size, configuration.seed if settings.seed is None else settings.seed


def _averages(evaluation: Evaluation) -> dict[str, Average]:
    """Return the model's measures averaged over the images of the split."""
    settings, dataset, model = evaluation.settings, evaluation.dataset, evaluation.trained.model
    num_images = _num_images(dataset, settings.split, settings.num_images)
    own_batches = range(rank(), -(-num_images // evaluation.batching.size), num_processes())
    with tqdm(total=len(own_batches), unit="batch", leave=False, disable=None) as bar:

        def diagnose(batch: Batch) -> dict[str, Tensor]:
            measured = model.diagnose(batch, num_importance_samples=settings.num_importance_samples)
            bar.update()
            return measured

        return averages_of_split(
            diagnose,
            dataset,
            settings.split,
            batching=evaluation.batching,
            seed=evaluation.seed,
            device=evaluation.device,
            limit=num_images,
        )


def _entered(evaluation: Evaluation, averages: Mapping[str, Average]) -> tuple[list[Entry], list[Entry]]:
    """Return the ledger entries of given images: measures of the model and its code, and baselines without a model."""
    settings, dataset, device = evaluation.settings, evaluation.dataset, evaluation.device
    num_images = _num_images(dataset, settings.split, settings.num_images)
    model = evaluation.trained.model
    measures = evaluation.enter(averages, model.measures, protocol=evaluation.batching.protocol)
    if isinstance(model, CodePredictor) and dataset.spec.num_classes > 0:
        codes = code_averages(
            model,
            dataset,
            settings.split,
            limit=num_images,
            batch_size=evaluation.batch_size,
            seed=evaluation.seed,
            device=device,
        )
        measures += evaluation.enter(codes, CODE_MEASURES)
    if not has_likelihood(model):
        return measures, []
    baselines = baseline_averages(dataset, settings.split, seed=evaluation.seed, device=device, limit=num_images)
    return measures, evaluation.enter(baselines, BASELINE_MEASURES, is_baseline=True)


def _num_images(dataset: Dataset, split: Split, limit: int | None) -> int:
    available = dataset.num_images(split)
    if available == 0:
        raise DataError(f"split {split} of dataset {dataset.name} is empty; choose another split")
    return available if limit is None else min(limit, available)


def _model_to_sample(evaluation: Evaluation) -> GenerativeModel | None:
    """Return the model if its samples are to be measured: on request, or because it has no likelihood."""
    settings, model = evaluation.settings, evaluation.trained.model
    if not isinstance(model, GenerativeModel):
        if settings.samples or settings.measure:
            rule = "samples must be null or false" if settings.samples else "measure must be empty"
            raise ConfigurationError(f"{rule} for {type(model).__name__}, which draws no images")
        return None
    is_asked = settings.samples or bool(settings.measure)
    if settings.samples is False or (not is_asked and has_likelihood(model)):
        return None
    count = _num_images(evaluation.dataset, settings.reference_split, settings.num_images)
    if count < LEAST_IMAGES:
        raise DataError(
            f"samples are compared with at least {LEAST_IMAGES} images, got {count} of split "
            f"{settings.reference_split} (num_images, reference_split)"
        )
    return model


def _extractors(evaluation: Evaluation) -> tuple[ReferenceClassifier | None, list[FeatureExtractor]]:
    """Return the feature extractors: the classifier if the data allow one, and Inception if its weights are given."""
    settings, dataset, device = evaluation.settings, evaluation.dataset, evaluation.device
    inception: list[FeatureExtractor] = []
    if settings.inception_weights is not None:
        inception.append(InceptionFeatures(Path(settings.inception_weights), device=device))
    reason = why_no_classifier(dataset)
    if settings.classifier is not None:
        found = load_classifier(Path(settings.classifier), spec=dataset.spec, device=device)
    elif reason is None:
        node, num_threads = evaluation.trained.run.configuration.dataset, settings.num_threads
        found = reference_classifier(dataset, node, device=device, num_threads=num_threads, tell=print, train=train)
    else:
        print(
            f"without measures on a classifier's features: {reason}; classifier=RUN names one, inception_weights=FILE "
            "gives other features"
        )
        return None, inception
    return found, [ClassifierFeatures(found.classifier, weights_id=found.weights_id), *inception]


def _comparison(evaluation: Evaluation, model: GenerativeModel, extractors: Sequence[FeatureExtractor]) -> Comparison:
    settings = evaluation.settings
    protocol = Protocol(
        num_generated=settings.num_generated,
        reference_split=settings.reference_split,
        num_reference=settings.num_images,
        seed=evaluation.seed,
        batch_size=evaluation.batch_size,
        parzen=settings.parzen,
    )
    measures = settings.further_measures
    for name, measure in measures.items():
        if measure.of_features and not extractors:
            raise ConfigurationError(f"measure.{name} needs features: classifier=RUN or inception_weights=FILE")
    return Comparison(model, evaluation.dataset, extractors, protocol, device=evaluation.device, measures=measures)


def _about(classifier: ReferenceClassifier) -> dict[str, Any]:
    return {
        "weights": classifier.weights_id,
        "run": str(absolute(classifier.run_folder)),
        "test_error": classifier.test_error,
    }
