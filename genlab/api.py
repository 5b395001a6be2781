"""The commands as functions, for scripts and notebooks: the names of ``import genlab`` besides ``load``."""

import base64
import html
import json
import logging
import operator
import os
import random
import sys
import textwrap
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
from os import PathLike
from pathlib import Path
from typing import Any

import numpy as np
import torch
from hydra.core.global_hydra import GlobalHydra
from hydra.core.hydra_config import HydraConfig
from jaxtyping import Int
from torch import Tensor

from genlab.cli import Job
from genlab.comparison.runs import metrics_of
from genlab.config.catalogue import options_of
from genlab.config.compose import parse_overrides, quoted
from genlab.config.location import config_directory
from genlab.data.dataset import Dataset
from genlab.errors import ConfigurationError, GenlabError, MemoryExhaustedError, StorageError
from genlab.launch.command import launch
from genlab.launch.failures import explain
from genlab.launch.sweep_job import QUIET
from genlab.models.base import GenerativeModel, require_labels_of_samples
from genlab.models.ranges import require_count
from genlab.numerics import has_subnormals, own_arithmetic
from genlab.paths import absolute, from_here
from genlab.run.folder import read_summary
from genlab.run.loading import build_dataset, load
from genlab.run.names import find_run
from genlab.run.pretrained import outside
from genlab.run.record import evaluation_name, load_run
from genlab.storage import read_within

_FILM = "samples/canvases.gif"
_NO_LEDGER = ("run", "out", "images", "against")  # settings of `genlab evaluate`
_ERRORS = {kind.exit_code: kind for kind in (ConfigurationError, MemoryExhaustedError, StorageError)}


class Run:
    """A run, an export or a pretrained model: its folder and files. A notebook shows a run as its picture.

    Args:
        run: A folder or a name, as on the command line: ``outputs/digits-draw/0001``, ``digits-draw/0001``, ``last``,
            ``digits_draw``.

    Raises:
        ConfigurationError: There is no such run.
    """

    def __init__(self, run: str | PathLike[str]) -> None:
        self.folder = absolute(find_run(os.fspath(run)))
        """The run folder."""
        self._loaded: tuple[object, GenerativeModel] | None = None  # with the state of the run

    @property
    def summary(self) -> dict[str, Any]:
        """The content of summary.json: status, step, and the final, best and test measures."""
        return read_summary(self.folder)

    def history(self) -> list[dict[str, int | float | None]]:
        """Return a row for each line of metrics.jsonl: ``step``, ``images_seen``, ``seconds`` and the logged tags.

        ``pandas.DataFrame(run.history())`` is a table of them. A value that was not finite is None. Empty for a folder
        without metrics.jsonl, such as an export.
        """
        return list(metrics_of(self.folder, []))

    @property
    def dataset(self) -> Dataset:
        """The data of the run; ``run.dataset.batches("test", batch_size=100, seed=0, device=...)`` are for
        ``run.model.evaluate``.

        Raises:
            DataError: They are missing, or differ from those of the run.
        """
        return build_dataset(load_run(self.folder))

    @property
    def model(self) -> GenerativeModel:
        """The trained model, as :func:`genlab.load` returns it, on a GPU if there is one; loaded again after a
        resumption.

        Raises:
            ConfigurationError: It is a classifier; ``genlab.load(run.folder, kind=Classifier)`` returns it.
            CheckpointError: The checkpoint does not verify.
        """
        state = (self.summary.get("step"), self.summary.get("best"))
        if self._loaded is None or self._loaded[0] != state:
            self._loaded = (state, load(self.folder, device="auto"))
        return self._loaded[1]

    def sample(self, num_samples: int = 16, *, labels: Tensor | Sequence[int] | None = None, seed: int = 0) -> Tensor:
        """Return images in [0, 1] of shape (num_samples, C, H, W), on the CPU.

        Args:
            num_samples: Number of images.
            labels: One class for each image; None where the model takes none, or draws them.
            seed: Of the noise: the same images for the same seed.

        Raises:
            ConfigurationError: Fewer than one sample, a seed that is no number, or labels that do not fit.
        """
        with suppress(TypeError):  # else it is refused below
            num_samples = operator.index(num_samples)  # NumPy's integers too
        device = next(self.model.parameters()).device
        try:
            generator = torch.Generator(device).manual_seed(operator.index(seed))
        except (TypeError, ValueError) as error:
            raise ConfigurationError(f"seed must be a whole number, got {seed!r}") from error
        chosen = None if labels is None else _classes(labels).to(device)
        try:
            require_count("num_samples", num_samples)
            if self.model.num_classes > 0:
                require_labels_of_samples(chosen, num_samples, self.model)
            with torch.no_grad():
                return self.model.sample(num_samples, labels=chosen, generator=generator).cpu()
        except ValueError as error:
            raise ConfigurationError(str(error)) from error

    def evaluate(self, overrides: Sequence[str] = (), *, config_dir: str | Path | None = None) -> list[dict[str, Any]]:
        """Run ``genlab evaluate`` and return the ledger: a row for each measure, as in the file that it writes.

        The baselines that it prints are in that file alone. The ``value`` of a curve is a list.

        Args:
            overrides: Such as ``num_importance_samples=100`` or ``split=validation``.
            config_dir: A configuration tree of your own, as ``--config-dir``, for ``measure=[NAME]``.

        Raises:
            ConfigurationError: An override does not fit, writes something other than the ledger of this run, or asks
                for a sweep.
            GenlabError: As of the command.
        """
        overrides = _settings(overrides)
        given = {override.key_or_group: override.value() for override in parse_overrides(overrides)}
        for key in _NO_LEDGER:
            if key in given:
                raise ConfigurationError(f"{key} must be left out for the run's own ledger, got {key}={given[key]}")
        name = evaluation_name(*(str(given.get(key, "test")) for key in ("split", "reference_split")))
        with _restored():
            _launch("evaluate", [f"run={quoted(str(from_here(self.folder)))}", *overrides, *_tree(config_dir)])
        record: dict[str, list[dict[str, Any]]] = json.loads(read_within(outside(self.folder), name))
        return record["measures"]

    def __fspath__(self) -> str:
        """Return the run folder: a run can be given in place of its path, to :func:`genlab.load` for example."""
        return str(self.folder)

    def __repr__(self) -> str:
        summary = self.summary
        if not summary:
            return f"Run({from_here(self.folder)})"
        tag, best = summary.get("selected_by"), summary.get("best") or {}
        measure = f", {tag} {best[tag]:.4g}" if tag in best else ""
        return f"Run({from_here(self.folder)}: {summary.get('status')} at step {summary.get('step')}{measure})"

    def _repr_html_(self) -> str:
        """Return the film of the canvases, else the newest samples, with a line of text."""
        pictures = [self.folder / _FILM, *sorted((self.folder / "samples").glob("step_*.png"), reverse=True)]
        text = html.escape(repr(self))
        for path in filter(Path.is_file, pictures):
            data = base64.b64encode(path.read_bytes()).decode()
            kind = path.suffix.removeprefix(".")
            return f'<img src="data:image/{kind};base64,{data}" alt="{text}"><p><code>{text}</code></p>'
        return f"<code>{text}</code>"


def train(
    model: str | None = None,
    *,
    dataset: str | None = None,
    overrides: Sequence[str] = (),
    config_dir: str | Path | None = None,
    quiet: bool = False,
) -> Run:
    """Train a model, as ``genlab train`` does, and return its run.

    The process is left as it was found: handlers of signals and of logging, generators of the CPU, number of threads,
    type of numbers, TF32.

    Args:
        model: Option of ``model=``; None leaves it to the overrides and the default.
        dataset: Option of ``dataset=``; None leaves it to the overrides and the model.
        overrides: Settings as on the command line, such as ``trainer.num_steps=200``; ``resume=RUN`` resumes a run.
        config_dir: A configuration tree of your own, as ``--config-dir``.
        quiet: Print warnings and the last lines only, as ``-q``.

    Raises:
        ConfigurationError: A setting does not exist or does not fit, or the overrides ask for a sweep.
        StoppedBySignal: The run was interrupted; it has saved, and can be resumed.
        GenlabError: The run failed in another expected way (:mod:`genlab.errors`).
    """
    overrides = _settings(overrides)
    arguments = []
    for key, value in {"model": model, "dataset": dataset}.items():
        if not isinstance(value, str | None):
            raise ConfigurationError(f"{key} must be the name of one option, got {value!r}")
        arguments += [] if value is None else [f"{key}={value}"]
    arguments += [*overrides, *([QUIET] if quiet else []), *_tree(config_dir)]
    with _restored():
        folder = _launch("train", arguments)
    assert folder is not None
    return Run(folder)


def list_models() -> dict[str, str]:
    """Return the options of ``model=`` with a sentence on each."""
    return options_of("model", [config_directory()])


def list_datasets() -> dict[str, str]:
    """Return the options of ``dataset=`` with a sentence on each."""
    return options_of("dataset", [config_directory()])


def list_experiments() -> dict[str, str]:
    """Return the options of ``experiment=``, published results and quick twins, with a sentence on each."""
    return options_of("experiment", [config_directory()])


def _classes(labels: Tensor | Sequence[int]) -> Int[Tensor, " N"]:
    with suppress(TypeError, ValueError, RuntimeError):  # torch's for texts, for sequences of unequal length, for None
        classes = torch.as_tensor(labels)
        if classes.dim() == 1 and not classes.is_floating_point():
            return classes
    given = textwrap.shorten(repr(labels), 60, placeholder="...")
    raise ConfigurationError(f"labels must be a list with the number of a class for each image, got {given}")


def _tree(config_dir: str | Path | None) -> list[str]:
    return [] if config_dir is None else ["--config-dir", str(config_dir)]


def _settings(overrides: Iterable[str]) -> list[str]:
    if isinstance(overrides, str):
        raise ConfigurationError(f"overrides must be a list of key=value, got {overrides!r}")
    settings = list(overrides)
    for override in settings:
        if not isinstance(override, str):
            raise ConfigurationError(f"overrides must be a list of key=value, got {override!r} in it")
        if override.startswith("-") or override.lstrip("+").startswith("hydra.mode="):
            raise ConfigurationError(f"overrides must be key=value of one run, got {override}; genlab train -m sweeps")
    return settings


def _launch(command: str, arguments: Sequence[str]) -> Path | None:
    """Run a command.

    Raises:
        GenlabError: For every failure that the command line explains in one line.
    """
    try:
        return launch(command, arguments, job=Job(command), positional=None)
    except GenlabError:
        raise
    except Exception as error:
        message, code = explain(error)
        if (kind := _ERRORS.get(code)) is None:
            raise
        raise kind(message) from error


@contextmanager
def _restored() -> Iterator[None]:
    """Restore the settings of the process that a command changes, except for signal handlers.

    Hydra's configuration of logging removes the handlers that it finds, and closes all that it knows of.
    """
    loggers = {logging.getLogger(name): logging.getLogger(name).level for name in (None, "genlab", "genlab.progress")}
    handlers, raises = list(logging.root.handlers), logging.raiseExceptions
    known: list[Any] = vars(logging)["_handlerList"]
    to_close = list(known)
    hydra, job = GlobalHydra.instance().hydra, HydraConfig.instance().cfg
    streams, num_threads, subnormals = (sys.stdout, sys.stderr), torch.get_num_threads(), has_subnormals()
    of_python, of_numpy = random.getstate(), np.random.get_state()
    known.clear()
    try:
        # The generators of GPUs would be set up for it, on every one.
        with torch.random.fork_rng(devices=[]), own_arithmetic():
            yield
    finally:
        for handler in set(logging.root.handlers) - set(handlers):
            handler.close()
        logging.root.handlers[:] = handlers
        known[:] = to_close
        logging.raiseExceptions = raises
        for logger, level in loggers.items():
            logger.setLevel(level)
        GlobalHydra.instance().hydra, HydraConfig.instance().cfg = hydra, job
        sys.stdout, sys.stderr = streams
        torch.set_num_threads(num_threads)
        torch.set_flush_denormal(not subnormals)
        random.setstate(of_python)
        np.random.set_state(of_numpy)
