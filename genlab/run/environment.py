"""Record of the commit, the versions and the machine on which a result depends."""

import json
import os
import platform
import subprocess
from collections.abc import Mapping, Sequence
from datetime import datetime
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import torch

import genlab
from genlab.config.suggestions import suggestion
from genlab.errors import ConfigurationError
from genlab.parallel.collectives import num_processes
from genlab.printing import printable
from genlab.storage import read_json_if_whole, replace_atomically

ENVIRONMENT_NAME = "environment.json"
_CLASS_NAMES = "class_names"
_PACKAGES = ("torch", "torchvision", "hydra-core", "omegaconf", "numpy", "scikit-learn", "tensorboard", "pillow")


def save_environment(
    run_folder: Path,
    *,
    command: str,
    device: torch.device,
    precision: str,
    seed: int,
    class_names: Sequence[str],
    init_from: Mapping[str, Any] | None = None,
) -> None:
    """Write environment.json at each start of a run; the commands of earlier starts and the first date are kept.

    Args:
        run_folder: An existing folder that this process has locked.
        command: The command line of this start.
        device: Of this process.
        precision: Of training, resolved.
        seed: Of training.
        class_names: Of the data, in the order of the labels.
        init_from: Origin of the initial weights of the run; None keeps the recorded one.
    """
    previous = _previous(run_folder)
    commands = saved_commands(run_folder)
    if command not in commands[-1:]:  # restarted processes have the same command line
        commands.append(command)
    now = datetime.now().astimezone().isoformat(timespec="seconds")
    content = {
        "command": command,
        "commands": commands,
        "started": str(previous.get("started", now)),
        "date": now,
        **describe_environment(device=device, precision=precision, seed=seed),
        _CLASS_NAMES: list(class_names),
        "init_from": init_from or previous.get("init_from"),
    }
    replace_atomically(run_folder / ENVIRONMENT_NAME, f"{json.dumps(content, indent=2)}\n".encode())


def save_class_names(folder: Path, class_names: Sequence[str]) -> None:
    """Write an environment.json that holds the names of the classes alone, for an export."""
    replace_atomically(
        folder / ENVIRONMENT_NAME, f"{json.dumps({_CLASS_NAMES: list(class_names)}, indent=2)}\n".encode()
    )


def saved_class_names(run_folder: Path) -> list[str]:
    """Return the names of the classes of a run's data, in the order of the labels; empty where no names are kept."""
    names = _previous(run_folder).get(_CLASS_NAMES)
    return [printable(str(name)) for name in names] if isinstance(names, list) else []


def class_number(run_folder: Path, label: int | str) -> int:
    """Return the label of a class that was given by its name, or else by its number.

    The name comes first: of a run of the digits 4 and 7, label=4 asks for the digit 4, whose label is 0.

    Args:
        run_folder: Of the run, or an export.
        label: As given.

    Raises:
        ConfigurationError: The run has no such class.
    """
    names, name = saved_class_names(run_folder), printable(str(label))
    if name in names:
        return names.index(name)
    if isinstance(label, str) or (names and not 0 <= label < len(names)):
        hint = "this folder has no class names"
        if names:  # a number that is out of range is near no other one
            hint = suggestion(str(label) if isinstance(label, str) else "", names, kind="classes")
        raise ConfigurationError(f"label must be the name or the number of a class, got {label}; {hint}")
    return label


def saved_commands(run_folder: Path) -> list[str]:
    """Return the command line of each start of a run; empty where none is kept."""
    return [str(line) for line in _previous(run_folder).get("commands") or ()]


def saved_init_from(run_folder: Path) -> Mapping[str, Any]:
    """Return the recorded origin of a run's initial weights; empty where none is kept."""
    origin = _previous(run_folder).get("init_from")
    return origin if isinstance(origin, dict) else {}


def _previous(run_folder: Path) -> Mapping[str, Any]:
    """Return the content of environment.json; empty if it is damaged, which must not end a run."""
    previous = read_json_if_whole(run_folder, ENVIRONMENT_NAME)
    return previous if isinstance(previous.get("commands", []), list) else {}


def describe_environment(*, device: torch.device, precision: str, seed: int) -> dict[str, Any]:
    """Return the environment of a result: versions, devices, threads and seed."""
    return {
        "git": git_state(),
        "versions": versions(),
        "device": describe_device(device),
        "precision": precision,
        "seed": seed,
        "num_processes": num_processes(),
        "num_threads": torch.get_num_threads(),
        "cpu": describe_cpu(),
        "cpu_capability": torch.backends.cpu.get_cpu_capability(),
        "num_cpus": os.cpu_count(),
        "platform": platform.platform(),
    }


def versions() -> dict[str, str]:
    """Return the versions of Python, genlab and the packages that affect results."""
    found = {"python": platform.python_version(), "genlab": genlab.__version__}
    for package in _PACKAGES:
        try:
            found[package] = version(package)
        except PackageNotFoundError:
            found[package] = "not installed"
    return found


def describe_device(device: torch.device) -> str:
    """Return the device with the name of its card."""
    return f"{device} ({torch.cuda.get_device_name(device)})" if device.type == "cuda" else str(device)


def describe_cpu() -> str:
    """Return the processor's name, as given by the operating system."""
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:
        return platform.processor() or platform.machine()
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.machine()


def git_state() -> dict[str, Any] | None:
    """Return the commit of the clone that genlab runs from, and True if it has changes; None for an installed wheel."""
    root = Path(genlab.__file__).resolve().parent.parent
    if not (root / ".git").exists():
        return None
    commit = _git(root, "rev-parse", "HEAD")
    status = _git(root, "status", "--porcelain")
    return None if commit is None else {"commit": commit, "is_dirty": status is None or bool(status)}


def ancestors(commit: str) -> list[str]:
    """Return a commit of the clone that genlab runs from and all before it; empty if it is not in the history."""
    return (_git(Path(genlab.__file__).resolve().parent.parent, "rev-list", commit, "--") or "").split()


def _git(root: Path, *arguments: str) -> str | None:
    try:
        result = subprocess.run(
            ["git", "-C", str(root), *arguments], capture_output=True, text=True, timeout=10, check=False
        )
    except (OSError, subprocess.TimeoutExpired):
        return None
    return result.stdout.strip() if result.returncode == 0 else None
