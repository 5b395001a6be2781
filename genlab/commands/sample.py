"""`genlab sample`: pictures from a trained run, as its model allows, or its samples as files for other programs."""

import inspect
import sys
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

import torch
from torch import Generator, Tensor

from genlab.commands.sample_files import Format, describe_sampling, draw_files
from genlab.commands.sample_given import given_around, method_for_given, read_given, save_given
from genlab.config.compose import parse_overrides
from genlab.config.devices import choose_device
from genlab.config.fields import check_fields
from genlab.data.dataset import Split
from genlab.errors import ConfigurationError, DataError
from genlab.launch.contract import JobContext
from genlab.launch.devices import processes_on
from genlab.launch.failures import raised_elsewhere
from genlab.launch.processes import Processes
from genlab.models.base import GenerativeModel, Model
from genlab.models.pixelcnn.parallel import SamplingMethod
from genlab.parallel.collectives import is_first, shared_work
from genlab.parallel.processes import first_before_others, joined, own_device
from genlab.printing import shown
from genlab.randomness import derive_seed
from genlab.run.environment import class_number
from genlab.run.loading import TrainedModel, build_dataset, load_trained, set_num_threads, writable
from genlab.run.names import find_run
from genlab.run.record import moved, require_root_alone
from genlab.sampling.pictures import save_pictures
from genlab.training.randomness import generator_for, seed_default_generators
from genlab.types import Batch

_KEYS_OF_GRIDS = ("images", "split", "given_rows", "fill", "latent_steps")
_KEYS_OF_DATA = ("split", "dataset.root", "allow_other_data")
_KEYS_OF_A_SPLIT = ("given_rows", "fill", "dataset.root", "allow_other_data")
_ARGUMENTS = {
    "temperature": "temperature",
    "label": "label",
    "given_rows": "given",
    "fill": "given",
    "latent_steps": "num_steps",
    "method": "method",
}
"""The settings that only some models have, and the arguments of their methods."""


@dataclass(frozen=True, kw_only=True)
class SampleSettings:
    """The keys of configs/sample.yaml.

    Raises:
        ValueError: A value is out of its range.
    """

    run: str
    format: Literal["grid", Format]
    num_samples: int
    checkpoint: Literal["best", "last"]
    split: Split | None
    dataset: Mapping[str, Any]
    allow_other_data: bool
    out: str | None
    temperature: float | None
    method: SamplingMethod
    label: int | str | None
    """The number of a class, or its name."""
    images: str | None
    given_rows: int | None
    fill: tuple[int, int, int, int] | str | None
    """Pixels that a completion fills: first row and column, last row and column (exclusive); or the file of a mask."""
    latent_steps: int | None
    seed: int
    device: str
    devices: int
    num_threads: int | None

    def __post_init__(self) -> None:
        require_root_alone(self.dataset)
        if self.out is not None and self.out.endswith(".npz"):
            raise ValueError(f"out must be a folder, got {self.out}; format=npz writes samples.npz into it")
        if self.fill is not None and self.given_rows is not None:
            raise ValueError("given_rows must be null with fill, which also defines the given pixels")
        if self.latent_steps is not None and self.images is None:
            raise ValueError("latent_steps must be null without images=FOLDER, whose latents it finds")
        for key in ("num_samples", "devices"):
            if getattr(self, key) < 1:
                raise ValueError(f"{key} must be at least 1, got {getattr(self, key)}")
        if self.num_threads is not None and self.num_threads < 1:
            raise ValueError(f"num_threads must be null or at least 1, got {self.num_threads}")


def read(values: Mapping[str, Any], overrides: Sequence[str]) -> SampleSettings:
    """Return the checked settings.

    Raises:
        ConfigurationError: Something in them does not fit.
    """
    settings = check_fields(SampleSettings, values, "")
    keys = [override.key_or_group for override in parse_overrides(overrides)]
    for key in keys:
        if settings.format != "grid" and key in _KEYS_OF_GRIDS:
            raise ConfigurationError(f"{key} has no effect with format={settings.format}")
        if settings.images is not None and key in _KEYS_OF_DATA:
            raise ConfigurationError(f"{key} has no effect with images, which replace the run's data")
        if settings.split is None and settings.images is None and key in _KEYS_OF_A_SPLIT:
            raise ConfigurationError(f"{key} has no effect with split=null, which takes no images of the run's data")
    return settings


def processes(settings: SampleSettings) -> Processes:
    """Return the number of processes that draw together.

    Raises:
        ConfigurationError: This machine has fewer devices.
    """
    return processes_on(settings.device, num=settings.devices, key="devices")


def destination(settings: SampleSettings) -> Path:
    """Return the folder in which the files replace those of the same names."""
    source = "images_" if settings.images is not None else ""
    kind = source if settings.format == "grid" else f"{settings.format}_"
    return Path(settings.out or find_run(settings.run) / "samples" / f"{kind}seed_{settings.seed}")


def run(settings: SampleSettings, context: JobContext) -> None:
    """Draw and write pictures; if the run's data are missing, only those that need no data.

    Raises:
        ConfigurationError: A setting does not fit the run.
        DataError: ``dataset.root`` does not hold the data of the run.
        CheckpointError: No checkpoint can be used.
        StorageError: The pictures cannot be written.
    """
    device = own_device(choose_device(settings.device))
    with joined(device, is_patient=True):
        trained = _load(settings, device)
        if settings.images is not None:
            _draw_given(trained, settings, device, context.command)
        elif settings.format == "grid":
            _draw_pictures(trained, settings, device)
        else:
            _draw_files(trained, settings, device, context.command)


def _load(settings: SampleSettings, device: torch.device) -> TrainedModel:
    trained = load_trained(Path(settings.run), checkpoint=settings.checkpoint, device=device)
    if not trained.model.draws_pictures:
        raise ConfigurationError(
            f"run must be of a model that draws pictures, got {settings.run}, a {type(trained.model).__name__}; "
            f"genlab evaluate run={settings.run} measures it"
        )
    set_num_threads(settings.num_threads, trained)
    return replace(trained, run=moved(trained.run, settings.dataset["root"]))


def _draw_files(trained: TrainedModel, settings: SampleSettings, device: torch.device, command: str) -> None:
    assert settings.format != "grid"
    sampling = describe_sampling(
        trained,
        format=settings.format,
        num_samples=settings.num_samples,
        seed=settings.seed,
        label=None if settings.label is None else class_number(trained.run.folder, settings.label),
        temperature=settings.temperature,
    )
    assert isinstance(trained.model, GenerativeModel)
    given = {"dataset.root": settings.dataset["root"] is not None, "allow_other_data": settings.allow_other_data}
    if (settings.label is not None or not sampling.class_folders) and any(given.values()):
        key, case = next(filter(given.get, given)), "with label" if sampling.class_folders else "without classes"
        raise ConfigurationError(f"{key} has no effect {case}: of the data only the frequencies of classes are taken")
    options = _chosen(trained, settings, trained.model.sample, ("temperature", "method"))
    folder = writable(destination(settings), settings.out)
    print(f"{settings.run}: {trained}")
    with _refusals_of_the_model():
        draw_files(
            trained,
            sampling,
            folder,
            options=options,
            allow_other_data=settings.allow_other_data,
            root_is_named=settings.dataset["root"] is not None,
            device=device,
            command=command,
        )


def _draw_given(trained: TrainedModel, settings: SampleSettings, device: torch.device, command: str) -> None:
    assert settings.images is not None
    method = method_for_given(trained.model)
    options = _options(trained, settings, method)
    folder = writable(destination(settings), settings.out)
    given = read_given(trained, settings.images, most=settings.num_samples, device=device)
    if is_first():
        print(f"{settings.run}: {trained}")
        print(given.account)
    seed_default_generators(derive_seed(settings.seed, "sample"), device)
    with torch.no_grad(), _refusals_of_the_model(), shared_work():
        result = method(given.batch, generator=generator_for(settings.seed, "sample", device=device), **options)
    if is_first():
        for path in save_given(result, given, trained, folder, seed=settings.seed, command=command):
            print(path)


def _draw_pictures(trained: TrainedModel, settings: SampleSettings, device: torch.device) -> None:
    folder = writable(destination(settings), settings.out)
    visualize = _visualizer(trained.model, labelled=settings.label is not None)
    options = _options(trained, settings, visualize)
    with first_before_others():  # a download, or images decoded once
        batch = _images_of_split(trained, settings, device)
    seed_default_generators(derive_seed(settings.seed, "sample"), device)
    with torch.no_grad(), _refusals_of_the_model(), shared_work():
        pictures = visualize(
            batch,
            num_samples=settings.num_samples,
            generator=generator_for(settings.seed, "sample", device=device),
            **options,
        )
    if not pictures:
        name = type(trained.model).__name__
        raise ConfigurationError(f"split must have images for {name}, whose pictures show them, got {settings.split}")
    if not is_first():
        return
    print(f"{settings.run}: {trained}")
    for path in save_pictures(pictures, folder, groups=trained.model.picture_groups):
        print(path)


def _visualizer(model: Model, *, labelled: bool) -> Callable[..., dict[str, Tensor]]:
    """Return the method that draws pictures: of a class, the samples alone if ``visualize`` has no choice of one."""
    takes_label = "label" in inspect.signature(model.visualize).parameters
    if not labelled or takes_label or not isinstance(model, GenerativeModel) or model.num_classes == 0:
        return model.visualize

    def samples(batch: object, *, num_samples: int, generator: Generator, label: int) -> dict[str, Tensor]:
        del batch
        labels = torch.full((num_samples,), label, device=generator.device)
        return {"samples": model.sample(num_samples, labels=labels, generator=generator)}

    return samples


@contextmanager
def _refusals_of_the_model() -> Iterator[None]:
    """Report a value that only the model can check as a configuration error."""
    try:
        yield
    except ValueError as error:
        if raised_elsewhere(error) is not None:
            raise  # the user's own code, which is to be mended and not a value
        raise ConfigurationError(str(error)) from error


def _options(trained: TrainedModel, settings: SampleSettings, method: Callable[..., Any]) -> dict[str, Any]:
    """Return the settings that only some models have, as arguments of their method that draws pictures.

    Raises:
        ConfigurationError: One was given that this model does not have, or does not fit its images.
    """
    options = _chosen(trained, settings, method, _ARGUMENTS)
    if settings.label is not None:
        options["label"] = class_number(trained.run.folder, settings.label)
    if settings.fill is not None:
        options["given"] = given_around(settings.fill, trained.run.spec)
    if "progress" in inspect.signature(method).parameters:
        options["progress"] = sys.stderr.isatty()
    return options


def _chosen(
    trained: TrainedModel, settings: SampleSettings, method: Callable[..., Any], keys: Iterable[str]
) -> dict[str, Any]:
    """Return the settings of these keys that were chosen, as arguments of a method of the model."""
    options = {}
    for key in keys:
        value = getattr(settings, key)
        default = "auto" if key == "method" else None
        if value == default:
            continue
        if _ARGUMENTS[key] not in inspect.signature(method).parameters:
            model, reason = type(trained.model).__name__, "takes no class" if key == "label" else "has no such choice"
            raise ConfigurationError(
                f"{key} must be {default or 'null'} for {model}, which {reason}, got {shown(value)}"
            )
        options[_ARGUMENTS[key]] = value
    return options


def _images_of_split(trained: TrainedModel, settings: SampleSettings, device: torch.device) -> Batch | None:
    if settings.split is None:
        return None
    try:
        dataset = build_dataset(trained.run, allows_other=settings.allow_other_data)
    except DataError as error:
        if settings.dataset["root"] is not None:
            raise
        print(f"without pictures of the data: {error}")
        return None
    if dataset.num_images(settings.split) == 0:
        print(f"without pictures of the data: split {settings.split} of dataset {dataset.name} is empty")
        return None
    return dataset.subset(settings.split, settings.num_samples, seed=settings.seed, device=device)
