"""`genlab evaluate`: the ledger of a trained run in its folder, or likelihoods of given images beside it."""

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from tqdm import tqdm

from genlab.commands.evaluate_settings import EvaluateSettings, require_consistent
from genlab.commands.likelihoods import measure_given_images
from genlab.commands.samples import (
    Ledger,
    feature_extractors,
    ledger_of_samples,
    measure_given_samples,
    protocol_of,
    reference_images,
    show_report,
)
from genlab.config.compose import parse_overrides
from genlab.config.devices import choose_device
from genlab.config.fields import check_fields
from genlab.data.dataset import Dataset
from genlab.errors import ConfigurationError, DataError
from genlab.launch.contract import JobContext
from genlab.launch.devices import processes_on
from genlab.launch.processes import Processes
from genlab.measures import Measure
from genlab.metrics.baselines import BASELINE_MEASURES, baseline_averages
from genlab.metrics.generation import generated_images
from genlab.metrics.ledger import Entry, entries_from, format_table
from genlab.metrics.likelihoods import has_likelihood
from genlab.metrics.matching import CODE_MEASURES, CodePredictor, code_averages
from genlab.metrics.quality import Comparison
from genlab.models.base import GenerativeModel
from genlab.parallel.collectives import is_first, num_processes, rank
from genlab.parallel.processes import first_before_others, joined, own_device
from genlab.run.loading import TrainedModel, build_dataset, load_trained, set_num_threads, writable
from genlab.run.names import find_run
from genlab.run.record import LIKELIHOODS_NAME, moved, save_evaluation
from genlab.training.evaluation import (
    Average,
    Batching,
    averages_of_split,
    batching_for,
    evaluation_batch_size,
)
from genlab.types import Batch


@dataclass(frozen=True, kw_only=True)
class Evaluation:
    """A trained model with the data set that it is measured on, the settings and the device."""

    settings: EvaluateSettings
    trained: TrainedModel
    dataset: Dataset
    device: torch.device
    batch_size: int
    seed: int

    @property
    def batching(self) -> Batching:
        """The batches in which the model is measured."""
        size = self.batch_size
        if self.settings.batch_size is None:
            size = evaluation_batch_size(self.trained.model, size)
        training_size = self.trained.run.configuration.settings.num_images_at_once
        return batching_for(self.trained.model, training_size=training_size, size=size)

    @property
    def num_images(self) -> int:
        """The number of images of the split that are measured.

        Raises:
            DataError: There are none.
        """
        available, limit = self.dataset.num_images(self.settings.split), self.settings.num_images
        if available == 0:
            raise DataError(
                f"split {self.settings.split} of dataset {self.dataset.name} is empty; choose another split"
            )
        return available if limit is None else min(limit, available)

    def enter(
        self,
        averages: Mapping[str, Average],
        declarations: Mapping[str, Measure],
        *,
        is_baseline: bool = False,
        protocol: str | None = None,
    ) -> list[Entry]:
        """Return measures of the images of the split as entries of the ledger."""
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
    keys = [re.split(r"[./]", override.key_or_group)[0] for override in parse_overrides(overrides)]
    settings = replace(settings, typed=frozenset(keys))
    require_consistent(settings)
    return settings


def processes(settings: EvaluateSettings) -> Processes:
    """Return the number of processes that measure together.

    Raises:
        ConfigurationError: This machine has fewer devices.
    """
    return processes_on(settings.device, num=settings.devices, key="devices")


def destination(settings: EvaluateSettings) -> Path:
    """Return the file that the results replace."""
    place = Path(settings.out or find_run(settings.run or ""))
    return place / (settings.ledger_name if settings.images is None else LIKELIHOODS_NAME)


def run(settings: EvaluateSettings, context: JobContext) -> None:
    """Measure, print and write. Processes share the work of the networks; rank 0 does the rest.

    Raises:
        ConfigurationError: A setting does not fit the run.
        DataError: The split is empty or its data are missing.
        CheckpointError: No checkpoint can be used.
    """
    device = own_device(choose_device(settings.device))
    with joined(device, is_patient=True):
        if settings.run is None:
            if settings.num_threads is not None:
                torch.set_num_threads(settings.num_threads)
            measure_given_samples(settings, device, context.command)
            return
        trained = load_trained(Path(settings.run), checkpoint=settings.checkpoint, device=device)
        trained = replace(trained, run=moved(trained.run, settings.dataset["root"]))
        _require_use_of_importance_samples(settings, trained)
        set_num_threads(settings.num_threads, trained)
        if settings.images is None:
            _measure_split(settings, trained, device, context.command)
        else:
            batch_size, seed = _batch_size_and_seed(settings, trained)
            measure_given_images(settings, trained, device, context.command, batch_size=batch_size, seed=seed)


def _require_use_of_importance_samples(settings: EvaluateSettings, trained: TrainedModel) -> None:
    model, given = trained.model, settings.num_importance_samples
    if given == 0 or "num_importance_samples" not in settings.typed:
        return
    if not any(measure.is_importance_weighted for measure in model.measures.values()):
        raise ConfigurationError(
            f"num_importance_samples must be 0 or left out for {type(model).__name__}, which declares no "
            f"importance-weighted measure, got {given}"
        )


def _measure_split(settings: EvaluateSettings, trained: TrainedModel, device: torch.device, command: str) -> None:
    """Print and write the ledger of a split, including measures of samples."""
    with first_before_others():  # a download, or images decoded once
        dataset = build_dataset(trained.run, allows_other=settings.allow_other_data)
    batch_size, seed = _batch_size_and_seed(settings, trained)
    evaluation = Evaluation(
        settings=settings, trained=trained, dataset=dataset, device=device, batch_size=batch_size, seed=seed
    )
    print(f"{settings.run}: {trained}, {dataset.provenance}")
    # Invalid settings are refused before anything is measured.
    place = writable(trained.run.folder, settings.out)
    writable(place / "samples", None)
    generator = _model_to_sample(evaluation)
    classifier = None
    if generator is not None:
        classifier, compare = _prepared_comparison(evaluation, generator)
    averages = _averages(evaluation)
    comparison = None if generator is None else compare()
    if not is_first():
        return
    measures, baselines = _entered(evaluation, averages)
    ledger = Ledger() if comparison is None else ledger_of_samples(comparison, weights=trained.weights)
    measures, baselines = [*measures, *ledger.measures], [*baselines, *ledger.baselines]
    print(format_table(measures, baselines))
    show_report(ledger.report, dataset, place)
    path = save_evaluation(
        place,
        name=settings.ledger_name,
        command=command,
        checkpoint=trained.checkpoint,
        step=trained.step,
        provenance=dataset.provenance,
        measures=measures,
        baselines=baselines,
        classifier=classifier,
    )
    print(f"written to {path}")


def _batch_size_and_seed(settings: EvaluateSettings, trained: TrainedModel) -> tuple[int, int]:
    """Return the batch size and seed; those of the run by default, which repeat its own test bit for bit."""
    configuration = trained.run.configuration
    batch_size = configuration.settings.batch_size if settings.batch_size is None else settings.batch_size
    return batch_size, configuration.seed if settings.seed is None else settings.seed


def _averages(evaluation: Evaluation) -> dict[str, Average]:
    """Return the model's measures averaged over the images of the split."""
    settings, model = evaluation.settings, evaluation.trained.model
    own_batches = range(rank(), -(-evaluation.num_images // evaluation.batching.size), num_processes())
    with tqdm(total=len(own_batches), unit="batch", leave=False, disable=None) as bar:

        def diagnose(batch: Batch) -> dict[str, Tensor]:
            measured = model.diagnose(batch, num_importance_samples=settings.num_importance_samples)
            bar.update()
            return measured

        return averages_of_split(
            diagnose,
            evaluation.dataset,
            settings.split,
            declarations=model.measures,
            batching=evaluation.batching,
            seed=evaluation.seed,
            device=evaluation.device,
            limit=evaluation.num_images,
        )


def _entered(evaluation: Evaluation, averages: Mapping[str, Average]) -> tuple[list[Entry], list[Entry]]:
    """Return the ledger entries of the split: measures of the model and of its code, and baselines without a model."""
    settings, dataset, device = evaluation.settings, evaluation.dataset, evaluation.device
    num_images, model = evaluation.num_images, evaluation.trained.model
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


def _model_to_sample(evaluation: Evaluation) -> GenerativeModel | None:
    """Return the model if its samples are to be measured: on request, or because it has no likelihood."""
    settings, model = evaluation.settings, evaluation.trained.model
    if not isinstance(model, GenerativeModel):
        rules = ["samples must be null or false"] if settings.samples else [*settings.requests_of_samples.values()]
        if rules:
            raise ConfigurationError(f"{rules[0]} for {type(model).__name__}, which draws no images")
        return None
    if not settings.samples and not settings.requests_of_samples and has_likelihood(model):
        return None
    return None if settings.samples is False else model


def _prepared_comparison(
    evaluation: Evaluation, model: GenerativeModel
) -> tuple[Mapping[str, Any] | None, Callable[[], Comparison]]:
    """Return a description of the classifier whose features are used, and a function that draws and compares samples.

    Raises:
        DataError: The reference images are too few, or cannot be used.
    """
    settings, dataset, device, seed = evaluation.settings, evaluation.dataset, evaluation.device, evaluation.seed
    node = evaluation.trained.run.configuration.dataset
    reference = reference_images(settings, dataset, seed=seed)
    with first_before_others():  # a classifier trained once
        classifier, extractors = feature_extractors(settings, dataset, node, spec=dataset.spec, device=device)
    protocol = protocol_of(settings, seed=seed, batch_size=evaluation.batch_size)

    def compare() -> Comparison:
        generated = generated_images(model, dataset, settings.num_generated, seed=seed, device=device)
        return Comparison(
            generated,
            reference,
            extractors,
            protocol,
            dataset=dataset,
            device=device,
            measures=settings.further_measures,
        )

    return classifier, compare
