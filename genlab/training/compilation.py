"""Compilation of a model's networks, and the choice of ``trainer.compile=auto``.

The choice follows from the configuration and what was measured of the model (:meth:`Model.compilation_cost`), never
from times of the run itself: compiled steps differ from eager ones in their last digits, and a repeated run must
choose alike.
"""

import logging
import os
import shutil
import sys
import sysconfig
from pathlib import Path

import torch

from genlab.errors import ConfigurationError
from genlab.models.base import Model
from genlab.parallel.collectives import num_processes
from genlab.parallel.processes import gathered
from genlab.training.settings import TrainerSettings


def compile_networks(model: Model, *, mode: str = "default") -> None:
    """Compile in place, at their first call, the networks that ``model.compilable()`` names.

    Args:
        model: Trained in phases, each of which freezes the parameters of the others.
        mode: Of :func:`torch.compile`.
    """
    _guard_frozen_parameters()
    # Its warning that a toolkit of CUDA has no device to compile for.
    logging.getLogger("torch.utils.cpp_extension").setLevel(logging.ERROR)
    for module in model.compilable():
        module.compile(mode=mode)


def choose(model: Model, settings: TrainerSettings, device: torch.device) -> tuple[bool, str]:
    """Return ``trainer.compile`` for the model on the devices of all ranks, and the reason where it is ``auto``.

    The run folder keeps the choice and not ``auto``, so that a resumed run is bitwise equal on any machine.

    Args:
        model: To be trained.
        settings: With its number of steps.
        device: Of this process.

    Raises:
        ConfigurationError: The user asked for what this machine cannot compile.
    """
    missing: str | None = next(filter(None, gathered(missing_part(device.type))), None)
    if settings.compile is True and model.compilable() and missing is not None:
        raise ConfigurationError(f"trainer.compile must be auto or false here, got true: there is no {missing}")
    if isinstance(settings.compile, bool):
        return settings.compile, ""
    return choice(model, settings, device, num_ranks=num_processes(), missing=missing)


def choice(
    model: Model, settings: TrainerSettings, device: torch.device, *, num_ranks: int, missing: str | None
) -> tuple[bool, str]:
    """Return True if compilation is earned back within the run, and the reason; "" where nothing is weighed.

    Args:
        model: To be trained.
        settings: With its number of steps.
        device: Of the run.
        num_ranks: Processes that share a batch; each compiles for itself.
        missing: A part of the machine without which nothing is compiled.
    """
    cost = model.compilation_cost()
    if device.type != "cpu" or settings.sharding != "none" or cost is None:
        return False, ""
    speedup = cost.speedup
    if settings.precision == "bfloat16" and cost.speedup_in_bfloat16 is not None:
        speedup = cost.speedup_in_bfloat16
    if speedup <= 1:
        return False, ""
    num_steps = min(settings.num_steps, 2) if settings.dry_run else settings.num_steps
    num_images = num_steps * max(phase.repeats for phase in model.phases()) * settings.batch_size / num_ranks
    seconds, length = num_images * cost.milliseconds_per_image / 1e3, f"{num_steps:,} steps"
    if settings.max_minutes is not None and seconds > 60 * settings.max_minutes:
        seconds, length = 60 * settings.max_minutes, f"{settings.max_minutes:g} minutes"
    saved = seconds * (1 - 1 / speedup)
    takes = f"takes about {cost.seconds:.0f} s and"
    if saved <= cost.seconds:
        return False, f"no, it {takes} would save about {saved:.0f} s in {length}"
    if missing is not None:
        return False, f"no, there is no {missing}"
    return True, f"yes, it {takes} saves about {saved:.0f} s in {length}"


def missing_part(device_type: str) -> str | None:
    """Return what this machine lacks to compile for a kind of device; None if it has everything."""
    if device_type == "cuda":  # as Triton has it
        language, compilers = "C", (os.environ["CC"],) if os.environ.get("CC") else ("gcc", "clang")
    else:  # as torch.compile has it
        language = "C++"
        compilers = (os.environ.get("CXX") or ("clang++" if sys.platform == "darwin" else "g++"),)
    if not any(map(shutil.which, compilers)):
        return f"{language} compiler ({' or '.join(compilers)})"
    header = Path(sysconfig.get_path("include")) / "Python.h"
    return None if header.exists() else f"{header.name} (of Python's development package)"


def _guard_frozen_parameters() -> None:
    # PyTorch 2.11 takes a parameter to be unchanged while its module has the same attributes. A network that was
    # compiled while its parameters were frozen would then pass no gradient on (pytorch/pytorch#177158).
    if torch.__version__ < torch.torch_version.TorchVersion("2.12"):
        import torch._dynamo.config as dynamo

        dynamo.skip_tensor_guards_with_matching_dict_tags = False
        dynamo.use_recursive_dict_tags_for_guards = False
