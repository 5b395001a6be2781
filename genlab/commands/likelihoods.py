"""`genlab evaluate images=`: the likelihood of pictures that a user names, without the run's data."""

from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from tqdm import tqdm

from genlab.commands.evaluate_settings import EvaluateSettings
from genlab.data.given_images import GivenImages, read_images, reading_of
from genlab.errors import ConfigurationError
from genlab.measures import GIVEN_CLASS
from genlab.metrics.likelihoods import Likelihood, format_likelihoods, has_likelihood, likelihoods, likelihoods_as_json
from genlab.metrics.novelty import aurocs, format_novelty, novelty_as_json
from genlab.models.base import GenerativeModel
from genlab.parallel.collectives import is_first
from genlab.printing import printable
from genlab.run.environment import class_number
from genlab.run.loading import TrainedModel, writable
from genlab.run.record import save_likelihoods
from genlab.training.evaluation import with_noise_of_their_own
from genlab.types import UNLABELLED, Batch


def measure_given_images(
    settings: EvaluateSettings, trained: TrainedModel, device: torch.device, command: str, *, batch_size: int, seed: int
) -> None:
    """Print the likelihood of each given image, or of two folders the means and the AUROC, and write them to a file.

    Args:
        settings: With ``images``.
        trained: The model.
        device: Device of the model.
        command: For the record.
        batch_size: Images at once.
        seed: Of the noise.

    Raises:
        ConfigurationError: The model gives a file no likelihood of its own.
        DataError: A file cannot be read as an image of the run.
    """
    _require_likelihood_of_files(trained)
    label = _class_of_files(trained, settings.label)
    place = writable(trained.run.folder, settings.out)
    reading = reading_of(trained.run.configuration.dataset, trained.run.spec)
    given = {
        key: (path, read_images(Path(path), reading, key=key))
        for key, path in (("images", settings.images), ("against", settings.against))
        if path is not None
    }
    print(f"{settings.run}: {trained}")
    for key, (path, images) in given.items():
        print(f"{key}={printable(path)}: {images.account}")
    measured = {
        key: likelihoods(
            trained.model,
            _batches(images, key, label=label, batch_size=batch_size, seed=seed, device=device),
            num_importance_samples=settings.num_importance_samples,
        )
        for key, (_, images) in given.items()
    }
    if not is_first():
        return
    records = {key: _record(path, images, measured[key]) for key, (path, images) in given.items()}
    record: dict[str, Any] = {**trained.origin, "seed": seed, "label": settings.label, **records["images"]}
    if settings.against is None:
        names = [printable(name) for name in given["images"][1].names]
        print(format_likelihoods(names, measured["images"]))
    else:
        areas = aurocs(measured["images"], measured["against"])
        print(format_novelty(measured["images"], measured["against"], areas))
        record |= {"against": records["against"], "novelty": novelty_as_json(measured["images"], areas)}
    print(f"written to {save_likelihoods(place, command=command, record=record)}")


def _require_likelihood_of_files(trained: TrainedModel) -> None:
    model = trained.model
    if not has_likelihood(model):
        raise ConfigurationError(f"images must be null for {type(model).__name__}, which declares no likelihood")
    if model.couples_images:
        raise ConfigurationError(
            f"images must be null for {type(model).__name__}: the likelihood of a picture would depend on the others"
        )


def _class_of_files(trained: TrainedModel, label: int | str | None) -> int:
    """Return the class on which the likelihood depends; UNLABELLED if it is declared of the image alone."""
    model = trained.model
    name, num_classes = type(model).__name__, model.num_classes if isinstance(model, GenerativeModel) else 0
    if not any((measure.quantity or "").endswith(GIVEN_CLASS) for measure in model.measures.values()):
        if label is not None:
            raise ConfigurationError(f"label must be null for {name}, which takes no class, got {label}")
        return UNLABELLED
    if label is None:
        raise ConfigurationError(
            f"label must name the class of the images, on which their likelihood by {name} depends"
        )
    number = class_number(trained.run.folder, label)
    if not 0 <= number < num_classes:
        raise ConfigurationError(f"label must be between 0 and {num_classes - 1}, got {label}")
    return number


def _batches(
    given: GivenImages, key: str, *, label: int, batch_size: int, seed: int, device: torch.device
) -> Iterator[Batch]:
    unlabelled = given.dataset.batches("train", batch_size=batch_size, seed=seed, device=device)
    batches = with_noise_of_their_own(
        (replace(batch, labels=torch.full_like(batch.labels, label)) for batch in unlabelled),
        seed=seed,
        purpose=key,
        device=device,
    )
    num_batches = -(-len(given.names) // batch_size)
    return iter(tqdm(batches, desc=key, total=num_batches, unit="batch", leave=False, disable=None))


def _record(path: str, given: GivenImages, measures: Sequence[Likelihood]) -> dict[str, Any]:
    return {
        "source": str(Path(path).absolute()),
        "account": given.account,
        "fingerprint": given.dataset.fingerprint,
        **likelihoods_as_json(given.names, measures),
    }
