"""Exported weights: a safetensors file and its SHA-256 in the format of ``sha256sum --check``."""

import hashlib
import re
from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from pathlib import Path

from torch import Tensor

import genlab
from genlab.errors import CheckpointError
from genlab.run.names import DIGESTS_NAME, WEIGHTS_NAME
from genlab.run.tensor_file import parse, read_content, serialise
from genlab.storage import replace_atomically


@dataclass(frozen=True, kw_only=True)
class Origin:
    """The origin of exported weights; the metadata of their file."""

    step: str
    """Step of training, in decimal digits since metadata are texts."""
    checkpoint: str
    """File name of the checkpoint in the run."""
    weights: str
    """``trained`` or ``averaged``."""
    model_fingerprint: str
    genlab_version: str = genlab.__version__


def save_weights(folder: Path, weights: Mapping[str, Tensor], origin: Origin) -> str:
    """Write the weights and their digest into an existing folder.

    Returns:
        The SHA-256.
    """
    content = serialise(weights, asdict(origin))
    digest = hashlib.sha256(content).hexdigest()
    replace_atomically(folder / DIGESTS_NAME, f"{digest}  {WEIGHTS_NAME}\n".encode())
    replace_atomically(folder / WEIGHTS_NAME, content)
    return digest


def load_weights(folder: Path) -> tuple[dict[str, Tensor], Origin]:
    """Read and verify exported weights, on the CPU.

    Raises:
        CheckpointError: The file is missing, damaged or not a safetensors file, or its digest is missing or differs.
    """
    path = folder / WEIGHTS_NAME
    content = read_content(folder, WEIGHTS_NAME)
    digests = read_content(folder, DIGESTS_NAME).decode(errors="replace")
    if not re.search(rf"^{hashlib.sha256(content).hexdigest()} [ *]{re.escape(WEIGHTS_NAME)}$", digests, re.MULTILINE):
        raise CheckpointError(f"{path} is damaged: its SHA-256 is not that of {DIGESTS_NAME}")
    try:
        weights, metadata = parse(content)
        return weights, _origin(metadata)
    except ValueError as error:
        raise CheckpointError(f"{path} is refused: {error}") from error


def _origin(metadata: Mapping[str, str]) -> Origin:
    missing = [field.name for field in fields(Origin) if field.name not in metadata]
    if missing:
        raise ValueError(f"its metadata have no {', '.join(missing)}, so genlab export did not write it")
    origin = Origin(**{field.name: metadata[field.name] for field in fields(Origin)})
    if (
        not re.fullmatch(r"\d{1,15}", origin.step, re.ASCII)
        or not re.fullmatch(r"[\w.-]{1,100}", origin.checkpoint)
        or origin.weights not in ("trained", "averaged")
    ):
        raise ValueError("its metadata are not those of an export")
    return origin
