"""The number of processes of a command, checked against the devices of this machine."""

import os

import torch

from genlab.config.devices import choose_device, require_device_name
from genlab.errors import ConfigurationError
from genlab.launch.processes import Processes


def processes_on(device: str, *, num: int, key: str, max_restarts: int = 0) -> Processes:
    """Return the description of ``num`` processes, if this machine has a device for each.

    Args:
        device: A name.
        num: Number of processes.
        key: The setting that asks for them.
        max_restarts: How often they may be started again.

    Raises:
        ConfigurationError: There is no such device, or there are fewer of them.
    """
    require_device_name(device)
    visible: tuple[str, ...] = ()
    if device.startswith(("auto", "cuda")) and torch.cuda.is_available():
        visible = visible_devices()
    if num > 1 and device != "cpu":
        found = choose_device(device)
        if found.type == "mps" or ":" in device:
            raise ConfigurationError(f"device must be auto, cpu or cuda with {key}={num}, got {device}")
        if found.type == "cuda" and num > torch.cuda.device_count():
            raise ConfigurationError(
                f"{key} must be at most {torch.cuda.device_count()}, the CUDA devices of this machine, got {num}; "
                "device=cpu allows any number"
            )
    return Processes(num=num, max_restarts=max_restarts, key=key, visible_devices=visible)


def visible_devices() -> tuple[str, ...]:
    """Return the CUDA devices that this process sees, as ``CUDA_VISIBLE_DEVICES`` names them."""
    num = torch.cuda.device_count()
    named = os.environ.get("CUDA_VISIBLE_DEVICES")
    return tuple(map(str, range(num))) if named is None else tuple(name.strip() for name in named.split(",")[:num])
