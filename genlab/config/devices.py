"""Names of devices: ``auto``, ``cpu``, ``cuda``, ``cuda:N`` and ``mps``."""

import re

import torch

from genlab.config.suggestions import suggestion
from genlab.errors import ConfigurationError

# Device indices of torch, which have no leading zero and are less than 128.
_DEVICE = re.compile(r"auto|cpu|mps|cuda(:(0|[1-9]\d?))?", re.ASCII)
_CARD = re.compile(r"(?:gpu|cuda|nvidia)?[:_-]?(\d{0,2})", re.ASCII)


def choose_device(name: str) -> torch.device:
    """Return the device of a name; ``auto`` takes CUDA, then MPS, then the CPU.

    Raises:
        ConfigurationError: There is no such device, or this machine has none.
    """
    require_device_name(name)
    if name == "auto":
        if torch.cuda.is_available():
            return torch.device("cuda")
        return torch.device("mps" if torch.backends.mps.is_available() else "cpu")
    device = torch.device(name)
    if device.type == "cuda" and (device.index or 0) >= torch.cuda.device_count():
        raise ConfigurationError(
            f"device must exist, got {name}: there are {torch.cuda.device_count()} CUDA devices; device=auto chooses"
        )
    if device.type == "cuda" and not torch.cuda.is_available():
        raise ConfigurationError(
            f"device must be usable, got {name}: the driver is too old for this torch (CUDA {torch.version.cuda}), or "
            "another process forbids it; device=cpu works"
        )
    if device.type == "mps" and not torch.backends.mps.is_available():
        raise ConfigurationError("device must exist, got mps: this machine has no such device; device=auto chooses")
    return device


def require_device_name(name: str) -> None:
    """Refuse a name that is not a valid device name.

    Raises:
        ConfigurationError: As said.
    """
    if not _DEVICE.fullmatch(name):
        card = _CARD.fullmatch(name.casefold())
        meant = f"cuda{f':{card[1]}' if card[1] else ''}" if card else name
        tail = suggestion(meant, ("auto", "cpu", "cuda", meant if card else "cuda:0", "mps"), kind="devices")
        raise ConfigurationError(f"device must be auto, cpu, cuda, cuda:N or mps, got {name}; {tail}")
