"""Averages of per-example measures over a split, right on the last partial batch."""

import math
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from types import MappingProxyType

import torch
from jaxtyping import Float
from torch import Tensor

from genlab.data.dataset import Dataset, Split
from genlab.errors import ConfigurationError
from genlab.measures import Measure
from genlab.models.base import Model
from genlab.parallel.collectives import num_processes, rank
from genlab.parallel.processes import gathered, in_turn
from genlab.randomness import derive_seed
from genlab.training.randomness import seed_default_generators
from genlab.types import UNLABELLED, Batch


@dataclass(frozen=True, kw_only=True)
class Average:
    """Mean over examples of one measure, and of each point of one curve."""

    mean: float | list[float]
    standard_error: float | list[float]
    """Standard deviation over examples divided by the square root of their number; of a model that couples the images
    of a batch, over the means of batches."""
    num_examples: int
    """Examples that have the measure: of one that needs labels, the labelled ones."""


@dataclass(frozen=True, kw_only=True)
class Batching:
    """The batches in which the images of a split are measured."""

    size: int
    couples_images: bool = False
    """True if a measure of one image depends on the others of its batch. The images then come in a random order, for
    files may be ordered by class, and training images, which are not counted, fill the last batch up."""
    group_size: int = 1
    """Images that share one draw of a measure, such as those of a pack."""

    @property
    def protocol(self) -> str | None:
        """The ledger's note on the batches; None if the measures do not depend on them."""
        return f"in random batches of {self.size}" if self.couples_images else None


def batching_for(model: Model, *, training_size: int, size: int) -> Batching:
    """Return the batches in which a model is measured.

    Args:
        model: It may couple the images of a batch.
        training_size: Images of one forward pass of training, which is what such a model knows.
        size: Images at a time for every other model.
    """
    return Batching(
        size=training_size if model.couples_images else size,
        couples_images=model.couples_images,
        group_size=model.group_size,
    )


def evaluation_batch_size(model: Model, batch_size: int) -> int:
    """Return the batch size of evaluation, unless the user gives one.

    It depends on the model and on its training alone: the noise of an evaluation belongs to its batches.

    Args:
        model: It knows from how many images on it is fast.
        batch_size: Of its training.
    """
    return max(batch_size, min(model.evaluated_together, 4 * batch_size))


def with_noise_of_their_own(
    batches: Iterable[Batch], *, seed: int, purpose: str, device: torch.device, first: int = 0, stride: int = 1
) -> Iterator[Batch]:
    """Yield batches, and seed the default generators for each by its index.

    The noise of an evaluation is then the same at each step of a run, so that curves over time compare like with like,
    and however many processes share the pass.

    Args:
        batches: Of a pass over a split, or every stride-th one of it.
        seed: Of the run.
        purpose: Name of the evaluation.
        device: Device of the model.
        first: Place of the first one in the pass.
        stride: From one to the next.
    """
    for number, batch in enumerate(batches):
        seed_default_generators(derive_seed(seed, "evaluate", purpose, first + number * stride), device)
        yield batch


def averages_of_split(
    evaluate: Callable[[Batch], Mapping[str, Tensor]],
    dataset: Dataset,
    split: Split,
    *,
    declarations: Mapping[str, Measure],
    batching: Batching,
    seed: int,
    device: torch.device,
    limit: int | None = None,
) -> dict[str, Average]:
    """Return averages of measures over a split; processes take batches in turn, and all get the averages.

    Args:
        evaluate: Measures of a batch, per example.
        dataset: Dataset of the split.
        split: Not empty.
        declarations: Of the measures, by name.
        batching: Images at a time.
        seed: Of the noise, of the order, of binarisation and of the choice that `limit` makes.
        device: Device of the model.
        limit: Evaluate a random choice of so many images; None takes all.
    """
    if batching.couples_images:
        company = dataset.subset("train", batching.size, seed=seed, device=device)
        evaluate = _filled_up(evaluate, batching.size, company)
    batches = dataset.batches(
        split,
        batch_size=batching.size,
        seed=seed,
        device=device,
        limit=limit,
        is_shuffled=batching.couples_images,
        rank=rank(),
        num_processes=num_processes(),
    )
    noisy = with_noise_of_their_own(
        batches, seed=seed, purpose=split, device=device, first=rank(), stride=num_processes()
    )
    averages = average_measures(
        evaluate, noisy, declarations=declarations, is_shared=True, couples_images=batching.couples_images
    )
    if batching.group_size == 1 or batching.couples_images:
        return averages
    error = math.sqrt(batching.group_size)  # of so many times fewer independent values
    return {name: replace(it, standard_error=_times(error, it.standard_error)) for name, it in averages.items()}


def _times(factor: float, values: float | list[float]) -> float | list[float]:
    return [factor * value for value in values] if isinstance(values, list) else factor * values


def _filled_up(
    evaluate: Callable[[Batch], Mapping[str, Tensor]], batch_size: int, company: Batch
) -> Callable[[Batch], Mapping[str, Tensor]]:
    """Fill incomplete batches with further images, and drop the measures of these."""

    def measure(batch: Batch) -> dict[str, Tensor]:
        num_own, num_further = len(batch.images), batch_size - len(batch.images)
        further = torch.arange(num_further, device=company.images.device) % len(company.images)
        images = torch.cat((batch.images, company.images[further]))
        labels = torch.cat((batch.labels, company.labels[further]))
        return {name: values[:num_own] for name, values in evaluate(Batch(images=images, labels=labels)).items()}

    return measure


@torch.no_grad()
def average_measures(
    evaluate: Callable[[Batch], Mapping[str, Tensor]],
    batches: Iterable[Batch],
    *,
    declarations: Mapping[str, Measure] = MappingProxyType({}),
    is_shared: bool = False,
    couples_images: bool = False,
) -> dict[str, Average]:
    """Return the averages of the measures of ``evaluate`` over all examples, in float64, for any batch sizes.

    A measure that needs labels is averaged over the labelled examples, and is NaN where none is labelled.

    Args:
        evaluate: Measures of a batch, per example.
        batches: May be none in some of several processes.
        declarations: Of the measures, by name; one without a declaration needs no labels.
        is_shared: True if the batches of all processes are averaged together; all of them must call this then.
        couples_images: True if the measures of a batch depend on each other: their error is then that of the means of
            the batches.

    Raises:
        ConfigurationError: A measure is not per example.
        ValueError: There are no batches.
    """
    need_labels = {name for name, measure in declarations.items() if measure.needs_label}
    measured: list[dict[str, Tensor]] = []
    for batch in batches:
        size = len(batch.images)
        measures = evaluate(batch)
        for name, values in measures.items():
            if not isinstance(values, Tensor) or values.dim() == 0 or len(values) != size:
                got = f"shape {tuple(values.shape)}" if isinstance(values, Tensor) else f"a {type(values).__name__}"
                raise ConfigurationError(f"measure {name} must be a tensor of a value per example ({size}), got {got}")
        # Left out by its label, and not by its value: a NaN of a labelled example shows in the average.
        labelled = {
            name: values[(batch.labels != UNLABELLED).to(values.device)]
            for name, values in measures.items()
            if name in need_labels
        }
        measured.append({name: _in_float64(values) for name, values in {**measures, **labelled}.items()})
    if is_shared and num_processes() > 1:
        own = [{name: values.cpu() for name, values in measures.items()} for measures in measured]
        measured = in_turn(gathered(own))
    if not measured:
        raise ValueError("there are no images to evaluate")
    of_batches = {name: [measures[name] for measures in measured] for name in measured[0]}
    averages = {name: _average(torch.cat(values)) for name, values in of_batches.items()}
    if not couples_images:
        return averages
    return {name: replace(it, standard_error=_error_of_batches(of_batches[name])) for name, it in averages.items()}


def _in_float64(values: Tensor) -> Float[Tensor, "N ..."]:
    return values.to("cpu" if values.device.type == "mps" else values.device, torch.float64)


def _average(values: Float[Tensor, "N ..."]) -> Average:
    """Return the mean and its standard error from the deviations of each example: a constant has the error 0."""
    if not len(values):
        empty = values.mean(0).tolist()  # NaN
        return Average(mean=empty, standard_error=empty, num_examples=0)
    # About one of the values, so that equal ones deviate by 0 and not by the rounding of their sum.
    origin = values[0].where(values[0].isfinite(), 0.0)
    deviations = values - origin
    mean = deviations.mean(0)
    variance = (deviations - mean).square().mean(0) / max(len(values) - 1, 1)
    return Average(mean=(origin + mean).tolist(), standard_error=variance.sqrt().tolist(), num_examples=len(values))


def _error_of_batches(batches: list[Tensor]) -> float | list[float]:
    """Return the standard error of the mean over examples if batches are independent and their examples are not.

    NaN for one batch.
    """
    weights = torch.tensor([float(len(values)) for values in batches if len(values)], dtype=torch.float64)
    if len(weights) < 2:
        return torch.full_like(batches[0].mean(0), math.nan).tolist()
    means = torch.stack([values.mean(0) for values in batches if len(values)])
    shares = (weights / weights.sum()).to(means.device).view(-1, *[1] * (means.dim() - 1))
    deviations = shares * (means - (shares * means).sum(0))
    return (deviations.square().sum(0) * len(means) / (len(means) - 1)).sqrt().tolist()


def scalar_means(averages: Mapping[str, Average]) -> dict[str, float]:
    """Return the measures that are one number, without the curves."""
    return {name: average.mean for name, average in averages.items() if isinstance(average.mean, float)}
