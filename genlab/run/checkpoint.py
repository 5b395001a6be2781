"""Checkpoints that survive a kill at any instant and are believed only when their bytes verify.

A checkpoint is one torch file of tensors and plain values (read with ``weights_only=True`` and nothing else, after
:mod:`genlab.run.torch_file` has looked through it) and a sidecar with its SHA-256, step and the fingerprint of
the model. The sidecar is renamed into place before the data: a sidecar without its data is harmless, data without its
sidecar would look damaged.
"""

import hashlib
import io
import json
import logging
import math
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from torch import nn

from genlab.errors import CheckpointError
from genlab.printing import printable
from genlab.run.torch_file import require_harmless, require_own_size
from genlab.storage import largest_readable, read_within, remove_temporaries, replace_atomically, require_space

_log = logging.getLogger(__name__)

FORMAT = 1
_BEST_BEFORE = "best_before.json"
MAX_STEP = 10**15
_MAX_SIDECAR_BYTES = 10_000


@dataclass(frozen=True, kw_only=True)
class Sidecar:
    """What stands beside a checkpoint, readable without loading it."""

    sha256: str
    step: int
    model_fingerprint: str
    format: int = FORMAT


def model_fingerprint(model: nn.Module) -> str:
    """SHA-256 over the sorted names, shapes and types of a model's state: equal when a state fits."""
    entries = sorted((name, list(value.shape), str(value.dtype)) for name, value in model.state_dict().items())
    return hashlib.sha256(json.dumps(entries).encode()).hexdigest()


def first_not_finite(state: object, name: str = "") -> str | None:
    """Dotted name of the first number or tensor in a state that holds a NaN or an infinity; None when all are finite.

    Costs a read on the host for each tensor, little beside saving them.
    """
    if isinstance(state, torch.Tensor):
        return None if bool(torch.isfinite(state).all()) else name
    if isinstance(state, float):
        return None if math.isfinite(state) else name
    items: Iterable[tuple[object, object]] = ()
    if isinstance(state, Mapping):
        items = state.items()
    elif isinstance(state, list | tuple):
        items = enumerate(state)
    found = (first_not_finite(value, f"{name}.{key}" if name else str(key)) for key, value in items)
    return next((bad for bad in found if bad is not None), None)


class CheckpointFolder:
    """``last.pt``, ``previous.pt`` and ``best.pt`` of one run."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._is_last_damaged = False
        self._newest = "last.pt"

    def prepare(self) -> None:
        """Make the folder, and tidy up after a process killed while it saved; call it holding the run's lock.

        A damaged last.pt that `newest` has met is set aside, so that the next save does not rotate it over the good
        one.
        """
        self.path.mkdir(parents=True, exist_ok=True)
        if self._is_last_damaged:
            (self.path / "last.pt").replace(self.path / "last.pt.damaged")
            self._is_last_damaged = False
        remove_temporaries(self.path)
        # The next save would overwrite the only sidecar that vouches for a checkpoint which a kill has parted from its
        # own: two kills in a row, each harmless, would together leave none that verifies.
        if not self.has("last.pt"):
            self._reunite("previous.pt")
        if self.has(_BEST_BEFORE):
            self._reunite("best.pt")
            (self.path / _BEST_BEFORE).unlink(missing_ok=True)

    def save_last(self, state: Mapping[str, Any], *, step: int, fingerprint: str) -> None:
        """Save as last.pt after making the former last.pt previous.pt."""
        content, sidecar = _serialise(state, step=step, fingerprint=fingerprint)
        last, previous = self.path / "last.pt", self.path / "previous.pt"
        require_space(last, len(content) + len(sidecar))  # else the oldest of two good ones would go for nothing
        if last.exists():
            # Between these two renames previous.pt's digest stands in last.json; `newest` accepts either sidecar.
            last.replace(previous)
            if _sidecar_path(last).exists():
                _sidecar_path(last).replace(_sidecar_path(previous))
        replace_atomically(_sidecar_path(last), sidecar)
        replace_atomically(last, content)

    def save_best(self, state: Mapping[str, Any], *, step: int, fingerprint: str) -> None:
        """Save as best.pt; after the same step was saved as last.pt, which tells whose measures are the best."""
        content, sidecar = _serialise(state, step=step, fingerprint=fingerprint)
        self._write_best(content, sidecar)

    def agree_on_best(self, step: int | None, *, newest_step: int) -> None:
        """Leave no best.pt but the one that the checkpoint to go on from knows; after `newest` and `prepare`.

        A kill between the saves of last.pt and of best.pt has left an older one, or none: it is the same weights. A
        checkpoint that is older than best.pt does not know it, and it is set aside.

        Args:
            step: Of the best weights, as that checkpoint has it; None where it knows none.
            newest_step: Of that checkpoint itself.
        """
        best = self.path / "best.pt"
        if best.exists() and self._step_of("best.pt") == step:
            return
        if step == newest_step:
            content = read_within(self.path, self._newest, limit=largest_readable())
            digest = hashlib.sha256(content).hexdigest()
            sidecar = next(sidecar for sidecar in self._sidecars() if sidecar.sha256 == digest)
            self._write_best(content, _as_json(sidecar))
        elif best.exists():
            best.replace(self.path / "best.pt.lost")

    def _write_best(self, content: bytes, sidecar: bytes) -> None:
        best = self.path / "best.pt"
        if best.exists() and _sidecar_path(best).exists():
            # A crash between the two writes below must leave one best checkpoint that verifies.
            _sidecar_path(best).replace(self.path / _BEST_BEFORE)
        replace_atomically(_sidecar_path(best), sidecar)
        replace_atomically(best, content)
        (self.path / _BEST_BEFORE).unlink(missing_ok=True)

    def newest(self, *, device: torch.device) -> dict[str, Any]:
        """The newest of last.pt and previous.pt that verifies, to go on from; nothing is changed.

        Args:
            device: Where the tensors go.

        Raises:
            CheckpointError: None verifies.
        """
        reasons = []
        for name in ("last.pt", "previous.pt"):
            try:
                state = self.load(name, device=device)
            except CheckpointError as error:
                reasons.append(str(error))
                continue
            if reasons:
                _log.warning("%s; going on from %s (step %d)", printable("; ".join(reasons)), name, state["step"])
                self._is_last_damaged = self.has("last.pt")
            self._newest = name
            return state
        raise CheckpointError("no usable checkpoint: " + "; ".join(reasons))

    def load(self, name: str, *, device: torch.device) -> dict[str, Any]:
        """Read and verify one checkpoint.

        Raises:
            CheckpointError: It is missing or damaged, no sidecar vouches for it, or it holds anything but tensors and
                plain values.
        """
        path = self.path / name
        try:
            content = read_within(self.path, name, limit=largest_readable())
        except OSError as error:
            raise CheckpointError(f"{path} cannot be read ({error.strerror})") from error
        except ValueError as error:
            raise CheckpointError(f"{path} is refused: {error}") from error
        if hashlib.sha256(content).hexdigest() not in {sidecar.sha256 for sidecar in self._sidecars()}:
            raise CheckpointError(f"{path} is damaged: its SHA-256 matches no sidecar")
        return _deserialise(content, path=path, device=device)

    @property
    def last_step(self) -> int | None:
        """The step that last.json speaks of, without loading anything."""
        return self._step_of("last.pt")

    def _step_of(self, name: str) -> int | None:
        path = _sidecar_path(self.path / name)
        sidecar = self._sidecar(path) if path.exists() else None
        return None if sidecar is None else sidecar.step

    @property
    def num_bytes(self) -> int:
        """Size of the largest checkpoint; 0 without one."""
        return max((path.stat().st_size for path in self.path.glob("*.pt") if path.is_file()), default=0)

    def has(self, name: str) -> bool:
        return (self.path / name).exists()

    def _reunite(self, name: str) -> None:
        """Give a checkpoint the sidecar of its own name, where another holds its digest."""
        try:
            digest = hashlib.sha256(read_within(self.path, name, limit=largest_readable())).hexdigest()
        except (OSError, ValueError):
            return  # missing, or refused when it is loaded
        fitting = next((sidecar for sidecar in self._sidecars() if sidecar.sha256 == digest), None)
        if fitting is not None:
            replace_atomically(_sidecar_path(self.path / name), _as_json(fitting))

    def _sidecars(self) -> list[Sidecar]:
        found = (self._sidecar(path) for path in self.path.glob("*.json"))
        return [sidecar for sidecar in found if sidecar is not None]

    def _sidecar(self, path: Path) -> Sidecar | None:
        try:
            return Sidecar(**json.loads(read_within(self.path, path.name, limit=_MAX_SIDECAR_BYTES)))
        except (OSError, ValueError, TypeError, RecursionError):
            _log.warning("%s is damaged and ignored", printable(str(path)))
            return None


def _sidecar_path(path: Path) -> Path:
    return path.with_suffix(".json")


def _serialise(state: Mapping[str, Any], *, step: int, fingerprint: str) -> tuple[bytes, bytes]:
    buffer = io.BytesIO()
    torch.save({"format": FORMAT, "step": step, **state}, buffer)
    content = buffer.getvalue()
    digest = hashlib.sha256(content).hexdigest()
    sidecar = Sidecar(sha256=digest, step=step, model_fingerprint=fingerprint)
    return content, _as_json(sidecar)


def _as_json(sidecar: Sidecar) -> bytes:
    return json.dumps(asdict(sidecar), indent=1).encode()


def _deserialise(content: bytes, *, path: Path, device: torch.device) -> dict[str, Any]:
    try:
        require_harmless(content)
        state = torch.load(io.BytesIO(content), map_location="cpu", weights_only=True)
        require_own_size(state, len(content))
        if device.type != "cpu":
            state = torch.load(io.BytesIO(content), map_location=device, weights_only=True)
    except Exception as error:  # whatever a hostile file makes torch's reader stumble over
        raise CheckpointError(f"{path} is refused: {(str(error) or type(error).__name__).splitlines()[0]}") from error
    if not isinstance(state, dict) or state.get("format") != FORMAT:
        raise CheckpointError(f"{path} is not a genlab checkpoint of format {FORMAT}")
    if not _is_whole_number(state.get("step")) or not _is_state_dict(state.get("model")):
        raise CheckpointError(f"{path} is not a genlab checkpoint: it has no step or no weights")
    if state.get("average") is not None and not _is_state_dict(state["average"]):
        raise CheckpointError(f"{path} is not a genlab checkpoint: its averaged weights are none")
    return state


def _is_whole_number(value: object) -> bool:
    return type(value) is int and 0 <= value <= MAX_STEP


def _is_state_dict(value: object) -> bool:
    return isinstance(value, dict) and all(
        isinstance(name, str) and isinstance(tensor, torch.Tensor) for name, tensor in value.items()
    )
