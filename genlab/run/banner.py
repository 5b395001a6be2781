"""The banner at the start of a run: a few lines on the model, the data, the device and the run folder."""

import logging
import shlex
import shutil
import sys
import textwrap
from collections.abc import Iterator

import torch
import yaml  # type: ignore[import-untyped]

from genlab.config.consequences import remarks
from genlab.config.schema import RunConfiguration
from genlab.models.base import Model
from genlab.parallel.collectives import num_processes
from genlab.paths import from_here
from genlab.run.environment import describe_cpu, describe_device
from genlab.run.folder import read_summary
from genlab.run.hyperparameters import Origin
from genlab.training.averaging import warm_up
from genlab.training.phases import warnings_of_phases
from genlab.training.run import TrainingRun
from genlab.training.settings import TrainerSettings

_log = logging.getLogger(__name__)

_LABEL_WIDTH = 9


def announce(configuration: RunConfiguration, origin: Origin, run: TrainingRun) -> None:
    """Log the head of a run, its whole configuration for ``-v``, and the model's warnings.

    Args:
        configuration: Of the run.
        origin: The choices and overrides that it was composed of.
        run: About to be trained.
    """
    _log.info("%s", banner(configuration, origin, run))
    _log.debug("%s", yaml.safe_dump(configuration.as_dict(), sort_keys=False, allow_unicode=True).rstrip())
    for warning in (*run.model.warnings(), *warnings_of_phases(run.model)):
        _log.warning("%s", warning)


def banner(configuration: RunConfiguration, origin: Origin, run: TrainingRun) -> str:
    """Return a line each for the model, data, device, length, changed settings, their consequences and the run folder.

    Args:
        configuration: Of the run.
        origin: What it was composed of.
        run: With the model, the data and the folder.
    """
    # Choices of model and data are already shown.
    typed = [
        word for word in origin.overrides if word.partition("=")[0] not in ("model", "dataset", "resume", "init_from")
    ]
    is_resumed = configuration.resume is not None
    model, settings = run.model, run.settings
    is_over = is_resumed and read_summary(run.run_folder).get("step", 0) >= settings.num_steps
    rows = [
        ("model", f"{origin.choices.get('model', type(model).__name__)}, {describe_parameters(model)}"),
        ("data", f"{run.dataset.provenance} images (training/validation/test)"),
        ("device", ", ".join(_devices(configuration, run.device))),
        ("length", f"{settings.num_steps:,} steps of {run.images_per_step:,} images, {settings.num_epochs:.4g} epochs"),
        ("compile", run.why_compiled),
        ("changed", shlex.join(typed)),
        *(("note", remark) for remark in remarks(origin.choices, origin.overrides, origin.folders)),
        ("note", _idle_decay(settings) if any("trainer.ema_decay=" in word for word in typed) else ""),
        ("note", "no step is left; trainer.num_steps=N with a greater N lengthens the run" if is_over else ""),
        ("folder", f"{from_here(run.run_folder)}{' (resumed)' if is_resumed else ''}"),
    ]
    return "\n".join(_row(label, text) for label, text in rows if text)


def _idle_decay(settings: TrainerSettings) -> str:
    reached, decay = warm_up(settings.num_steps - 1), settings.ema_decay
    if decay is None or decay <= reached:
        return ""
    return f"trainer.ema_decay={decay:g} has the effect of {reached:.4g}, where its warm-up ends in this run"


def _devices(configuration: RunConfiguration, device: torch.device) -> Iterator[str]:
    yield f"cpu ({describe_cpu()})" if device.type == "cpu" else describe_device(device)
    if num_processes() > 1:
        yield f"{num_processes()} processes"
    yield configuration.settings.precision
    if configuration.settings.compile is True:
        yield "compiled"
    num_threads = torch.get_num_threads()
    yield f"{num_threads} thread{'' if num_threads == 1 else 's'}"


def describe_parameters(model: Model) -> str:
    """Return the number of parameters of a model, and that of each of its parts that has some."""
    total = sum(parameter.numel() for parameter in model.parameters())
    parts = [
        f"{name} {sum(parameter.numel() for parameter in child.parameters()):,}"
        for name, child in model.named_children()
        if any(True for _ in child.parameters())
    ]
    return f"{total:,} parameters ({', '.join(parts)})"


def _row(label: str, text: str) -> str:
    """Return a row whose text is wrapped in its column on a terminal, and on one line elsewhere."""
    if not sys.stdout.isatty():
        return f"{label:<{_LABEL_WIDTH}} {text}"
    width = max(shutil.get_terminal_size().columns - _LABEL_WIDTH - 1, 20)
    lines = textwrap.wrap(text, width, break_long_words=False, break_on_hyphens=False)
    return f"{label:<{_LABEL_WIDTH}} " + f"\n{'':<{_LABEL_WIDTH}} ".join(lines)
