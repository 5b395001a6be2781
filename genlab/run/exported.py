"""Weights to hand on: a safetensors file, which holds tensors and nothing else, and the SHA-256 that it lacks itself.

The file notices no flipped bit, so its digest stands beside it, in the form that ``sha256sum --check`` reads.
"""

import hashlib
import json
import re
from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from pathlib import Path

import safetensors
import safetensors.torch
from torch import Tensor

import genlab
from genlab.errors import CheckpointError
from genlab.storage import read_within, replace_atomically

WEIGHTS_NAME = "model.safetensors"
DIGESTS_NAME = "SHA256SUMS"
_HEADER_LENGTH_BYTES = 8


@dataclass(frozen=True, kw_only=True)
class Origin:
    """Where exported weights come from; the metadata of their file."""

    step: str
    """Of training, in decimal digits, for metadata are texts."""
    checkpoint: str
    """File name in the run."""
    weights: str
    """``trained`` or ``averaged``."""
    model_fingerprint: str
    genlab_version: str = genlab.__version__


def is_export(folder: Path) -> bool:
    """Whether a folder holds exported weights in the place of checkpoints."""
    return (folder / WEIGHTS_NAME).exists()


def save_weights(folder: Path, weights: Mapping[str, Tensor], origin: Origin) -> str:
    """Write the weights and their digest into an existing folder.

    Tensors that share memory are written each for itself: the file knows no sharing, and a model restores it.

    Returns:
        The SHA-256.
    """
    separate = {name: value.detach().cpu().clone().contiguous() for name, value in weights.items()}
    content = safetensors.torch.save(separate, metadata={"format": "pt", **asdict(origin)})
    digest = hashlib.sha256(content).hexdigest()
    replace_atomically(folder / DIGESTS_NAME, f"{digest}  {WEIGHTS_NAME}\n".encode())
    replace_atomically(folder / WEIGHTS_NAME, content)
    return digest


def load_weights(folder: Path) -> tuple[dict[str, Tensor], Origin]:
    """Read and verify exported weights, on the CPU.

    Raises:
        CheckpointError: The file is missing, damaged or no such file, or no digest vouches for it.
    """
    path = folder / WEIGHTS_NAME
    try:
        content = read_within(folder, WEIGHTS_NAME)
        digests = read_within(folder, DIGESTS_NAME).decode()
    except OSError as error:
        raise CheckpointError(f"{error.filename} cannot be read ({error.strerror})") from error
    except ValueError as error:
        raise CheckpointError(f"{path} is refused: {error}") from error
    if not re.search(rf"^{hashlib.sha256(content).hexdigest()} [ *]{re.escape(WEIGHTS_NAME)}$", digests, re.MULTILINE):
        raise CheckpointError(f"{path} is damaged: its SHA-256 is not that of {DIGESTS_NAME}")
    try:
        header = int.from_bytes(content[:_HEADER_LENGTH_BYTES], "little")
        if header > len(content):
            raise ValueError(f"its header claims {header:,} bytes")
        return safetensors.torch.load(content), _origin(content)
    except (safetensors.SafetensorError, ValueError, TypeError, KeyError, RuntimeError) as error:
        raise CheckpointError(f"{path} is refused: {str(error).splitlines()[0]}") from error


def _origin(content: bytes) -> Origin:
    length = int.from_bytes(content[:_HEADER_LENGTH_BYTES], "little")
    header = json.loads(content[_HEADER_LENGTH_BYTES : _HEADER_LENGTH_BYTES + length])
    metadata = header.get("__metadata__", {})
    missing = [field.name for field in fields(Origin) if field.name not in metadata]
    if missing:
        raise ValueError(f"its metadata have no {', '.join(missing)}, so it is none that genlab export wrote")
    origin = Origin(**{field.name: metadata[field.name] for field in fields(Origin)})
    if (
        not re.fullmatch(r"\d{1,15}", origin.step, re.ASCII)
        or not re.fullmatch(r"[\w.-]{1,100}", origin.checkpoint)
        or origin.weights not in ("trained", "averaged")
    ):
        raise ValueError("its metadata are not those of an export")
    return origin
