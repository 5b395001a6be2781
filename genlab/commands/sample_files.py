"""Samples of a run as files for other programs, drawn batch by batch; an interrupted sampling can be resumed."""

import json
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import asdict, dataclass
from functools import cache
from pathlib import Path
from typing import Any, Literal

import torch
from jaxtyping import Int
from torch import Tensor
from tqdm import tqdm

from genlab.data.sample_record import RECORD_NAME, read_record
from genlab.errors import ConfigurationError, DataError, NonFiniteError, StoppedBySignal, StorageError
from genlab.functional import to_bytes
from genlab.metrics.generation import IMAGES_AT_ONCE, draw_batches, draw_labels, training_classes
from genlab.models.base import GenerativeModel
from genlab.parallel.collectives import is_first
from genlab.parallel.processes import first_before_others, largest
from genlab.printing import printable, shown
from genlab.run.environment import saved_class_names
from genlab.run.folder import make
from genlab.run.loading import TrainedModel, build_dataset, weights_id
from genlab.sampling.files import NPZFile, PNGFolder, SampleFiles
from genlab.signals import signal_text
from genlab.storage import is_disk_full, json_bytes, locked_folder, replace_atomically
from genlab.training.progress import SECONDS_BETWEEN_LINES
from genlab.training.signals import StopRequest, listen_for_signals

Format = Literal["png", "npz"]
_SAME_COMMAND = "the same command draws the rest"


@dataclass(frozen=True, kw_only=True)
class Sampling:
    """The properties that determine the images of a folder; a sampling is resumed only if all of them are equal."""

    format: Format
    num_samples: int
    seed: int
    label: int | None
    """Class of all samples; None draws classes with the frequencies of the training images."""
    temperature: float | None
    weights_id: str
    shape: tuple[int, int, int]
    """Channels, height and width."""
    class_folders: tuple[str, ...]
    """Folder of each class; empty if samples have no classes."""


def describe_sampling(
    trained: TrainedModel,
    *,
    format: Format,
    num_samples: int,
    seed: int,
    label: int | None,
    temperature: float | None,
) -> Sampling:
    """Return the description of a sampling.

    Raises:
        ConfigurationError: A setting does not fit the model or the format.
    """
    model, spec = trained.model, trained.run.spec
    if not isinstance(model, GenerativeModel):
        raise ConfigurationError(f"format must be grid for {type(model).__name__}, which has no samples, got {format}")
    if label is not None and not 0 <= label < model.num_classes:
        rule = f"null for {type(model).__name__}, which takes no class"
        if model.num_classes:
            rule = f"between 0 and {model.num_classes - 1}"
        raise ConfigurationError(f"label must be {rule}, got {label}")
    if format == "png" and spec.channels not in (1, 3):
        raise ConfigurationError(f"format must be npz or grid for images of {spec.channels} channels, got png")
    return Sampling(
        format=format,
        num_samples=num_samples,
        seed=seed,
        label=label,
        temperature=temperature,
        weights_id=weights_id(model),
        shape=(spec.channels, spec.height, spec.width),
        class_folders=_class_folders(saved_class_names(trained.run.folder), model.num_classes),
    )


def draw_files(
    trained: TrainedModel,
    sampling: Sampling,
    folder: Path,
    *,
    options: Mapping[str, Any],
    allow_other_data: bool,
    root_is_named: bool = False,
    device: torch.device,
    command: str,
) -> None:
    """Draw the samples that are missing in a folder, and print the progress.

    Args:
        trained: The model.
        sampling: Its description.
        folder: New, empty, or with an unfinished sampling of the same description.
        options: Arguments of the model's ``sample``: the temperature of the description, and the sampler of an
            autoregressive model, which the description lacks since all draw the same images.
        allow_other_data: Take the frequencies of classes of data other than those of the run.
        root_is_named: The user has named the folder of the data, which must then hold them.
        device: Device of the model.
        command: The command line, for the record.

    Raises:
        ConfigurationError: The folder contains other files or another sampling.
        StorageError: The disk is full; finished batches remain.
        NonFiniteError: The model draws images that are not finite.
        StoppedBySignal: A signal asked to stop; finished batches remain.
    """
    model = trained.model
    assert isinstance(model, GenerativeModel)
    make(folder, setting="out=FOLDER")
    with locked_folder(folder) if is_first() else nullcontext():
        with first_before_others():
            counts = cache(
                lambda: _class_counts(trained, sampling, allow_other_data=allow_other_data, root_is_named=root_is_named)
            )
            data_are_named = allow_other_data or root_is_named
            record = _begun(
                trained, sampling, folder, class_counts=counts, data_are_named=data_are_named, command=command
            )
            labels = _labels(sampling, record["class_counts"])
            files = _files(sampling, folder, labels)
            starts = files.missing(IMAGES_AT_ONCE)
        num_missing = sum(min(IMAGES_AT_ONCE, sampling.num_samples - start) for start in starts)
        counter = _Counter(sampling.num_samples, num_done=sampling.num_samples - num_missing)
        batches = draw_batches(
            model, sampling.num_samples, starts=starts, labels=labels, seed=sampling.seed, device=device, **options
        )
        with _accounted_for(counter) as request, counter:
            if record["is_finished"] and starts and is_first():  # files were removed
                _save_record(folder, {**record, "is_finished": False})
            for start, images in batches:
                _require_no_stop(request)
                if not torch.isfinite(images).all():
                    raise NonFiniteError(f"the images from {start} on are not finite: the model has diverged")
                if is_first():
                    files.write(start, to_bytes(images))
                counter.advance(len(images))
            if is_first():
                path = files.finish()
                _save_record(folder, {**record, "is_finished": True})
                before = f" ({counter.num_before:,} of them existed before)" if counter.num_before else ""
                print(f"{sampling.num_samples:,} images{before}: {printable(str(path))}")


def _begun(
    trained: TrainedModel,
    sampling: Sampling,
    folder: Path,
    *,
    class_counts: Callable[[], list[int] | None],
    data_are_named: bool,
    command: str,
) -> dict[str, Any]:
    """Return the record of a folder, which is written first if the folder is empty.

    Raises:
        ConfigurationError: It contains other files or another sampling.
    """
    record = read_record(folder)
    described = json.loads(json.dumps(asdict(sampling)))
    if record is not None and data_are_named:
        described["class_counts"] = class_counts()
    differing = next((name for name, value in described.items() if record and record.get(name) != value), None)
    others = sorted(entry.name for entry in folder.iterdir() if entry.name != RECORD_NAME)
    # A record alone is of a sampling that was refused before its first image: another one may replace it.
    if record is not None and (others or not differing):
        if differing:
            raise ConfigurationError(
                f"out must be a new folder or one of the same sampling, got {folder}, whose {differing} is "
                f"{_shown(record.get(differing))} and not {_shown(described[differing])}"
            )
        if set(record["class_counts"] or ()) == {1} and not data_are_named and is_first():
            print("classes are drawn uniformly, as before: the folder was begun without the run's data")
        return record
    if others:
        raise ConfigurationError(
            f"out must be a new or empty folder, or one with an unfinished sampling, got {folder}, which contains "
            f"{printable(others[0])}" + (f" and {len(others) - 1:,} more" if others[1:] else "")
        )
    names = saved_class_names(trained.run.folder)
    record = {
        "command": command,
        "run": str(trained.run.folder.absolute()),
        **trained.origin,
        **described,
        # Folders may be called by numbers, which count the classes of the run and not those of other data.
        "class_names": names if len(names) == len(sampling.class_folders) else [],
        "class_counts": class_counts(),
        "is_finished": False,
    }
    _save_record(folder, record)
    return record


def _save_record(folder: Path, record: dict[str, Any]) -> None:
    replace_atomically(folder / RECORD_NAME, json_bytes(record) + b"\n")


def _shown(value: Any) -> str:
    text = printable(shown(value))
    return text if len(text) <= 40 else f"{text[:40]}..."


def _class_counts(
    trained: TrainedModel, sampling: Sampling, *, allow_other_data: bool, root_is_named: bool = False
) -> list[int] | None:
    """Return the frequencies of the classes to draw; None if samples have no classes, or one for all."""
    if not sampling.class_folders or sampling.label is not None:
        return None
    try:
        counts = training_classes(build_dataset(trained.run, allows_other=allow_other_data))
    except DataError as error:
        if root_is_named:
            raise
        print(f"classes are drawn uniformly, and not as often as in training: {error}")
        counts = None
    return [1] * len(sampling.class_folders) if counts is None else counts.tolist()


def _labels(sampling: Sampling, counts: Sequence[int] | None) -> Int[Tensor, " N"] | None:
    if not sampling.class_folders:
        return None
    if counts is None:
        assert sampling.label is not None
        return torch.full((sampling.num_samples,), sampling.label)
    return draw_labels(torch.tensor(counts), sampling.num_samples, seed=sampling.seed)


def _files(sampling: Sampling, folder: Path, labels: Int[Tensor, " N"] | None) -> SampleFiles:
    if sampling.format == "npz":
        return NPZFile(folder, sampling.num_samples, shape=sampling.shape, labels=labels)
    names = None if labels is None else [sampling.class_folders[label] for label in labels.tolist()]
    return PNGFolder(folder, sampling.num_samples, class_folders=names)


def _class_folders(names: Sequence[str], num_classes: int) -> tuple[str, ...]:
    """Return a folder name for each class: its own name if all are valid names, else its number."""
    are_plain = all(
        name.strip() == name and not name.startswith(".") and not {*name} & {*'/\\:*?"<>|'} for name in names
    )
    are_different = len({name.casefold() for name in names}) == num_classes
    if len(names) == num_classes and are_plain and are_different and all(names):
        return tuple(names)
    return tuple(f"{label:0{len(str(num_classes - 1))}d}" for label in range(num_classes))


def _require_no_stop(request: StopRequest) -> None:
    """Stop all processes together if a signal reached one of them.

    Raises:
        StoppedBySignal: As said.
    """
    (number,) = largest([request.signal_number or 0])
    if number:
        raise StoppedBySignal(f"stopped by {signal_text(number)}", number)


class _Counter:
    """The number of images so far: a bar on a terminal, a line every SECONDS_BETWEEN_LINES elsewhere."""

    def __init__(self, total: int, *, num_done: int) -> None:
        self.total = total
        self.num_done = num_done
        self.num_before = num_done
        self._started = self._last_line = time.monotonic()

    def advance(self, num_images: int) -> None:
        """Count images."""
        self.num_done += num_images
        self._bar.update(num_images)
        now = time.monotonic()
        if is_first() and not sys.stderr.isatty() and now - self._last_line >= SECONDS_BETWEEN_LINES:
            self._last_line = now
            seconds = (now - self._started) / (self.num_done - self.num_before) * (self.total - self.num_done)
            print(f"{self}, {tqdm.format_interval(seconds)} left", flush=True)

    def __str__(self) -> str:
        return f"{self.num_done:,} of {self.total:,} images"

    def __enter__(self) -> "_Counter":
        self._bar = tqdm(
            total=self.total,
            initial=self.num_done,
            desc="drawing",
            unit="image",
            leave=False,
            dynamic_ncols=True,
            disable=None if is_first() else True,
        )
        return self

    def __exit__(self, *_: object) -> None:
        self._bar.close()


@contextmanager
def _accounted_for(counter: _Counter) -> Iterator[StopRequest]:
    """Let signals stop the drawing, and add the number of images and the command for the rest to each failure."""
    try:
        with (
            listen_for_signals(lambda: f"stopped at {counter}; {_SAME_COMMAND}") as request,
            request.waiting_for_nothing(),
        ):
            yield request
    except StoppedBySignal as stop:
        raise StoppedBySignal(f"{stop} at {counter}; {_SAME_COMMAND}", stop.exit_code - 128) from stop
    except OSError as error:
        if not (is_disk_full(error) or isinstance(error, StorageError)):
            raise
        raise StorageError(f"disk full at {counter}; {_SAME_COMMAND} once there is space") from error
