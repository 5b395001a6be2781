"""Checkpoints that survive a kill at any instant and are used only if their digest verifies.

A checkpoint is one sealed safetensors file (:mod:`genlab.run.tensor_file`): the weights as ``model.NAME`` and
``average.NAME``, the moments as ``optimizer.PHASE.NAME.KEY``, and the rest of the state as JSON in the metadata.
"""

import hashlib
import json
import logging
import math
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

import genlab
from genlab.errors import CheckpointError
from genlab.printing import printable
from genlab.run.formats import CHECKPOINT_FORMAT, FORMAT_KEY, newer_format
from genlab.run.tensor_file import decode, encode, is_intact, parse, read_content, read_metadata, seal
from genlab.storage import remove_temporaries, replace_atomically

_log = logging.getLogger(__name__)

LAST, PREVIOUS, BEST = "last.safetensors", "previous.safetensors", "best.safetensors"
MAX_STEP = 10**15
_WEIGHTS = ("model", "average")


def model_fingerprint(model: nn.Module) -> str:
    """Return the SHA-256 over the sorted names, shapes and types of a model's state: equal if a state is compatible."""
    entries = sorted((name, list(value.shape), str(value.dtype)) for name, value in model.state_dict().items())
    return hashlib.sha256(json.dumps(entries).encode()).hexdigest()


def first_not_finite(state: object, name: str = "") -> str | None:
    """Return the dotted name of the first NaN or infinity in a state; None if all values are finite.

    Costs a read on the host for each tensor, little beside saving them.
    """
    if isinstance(state, Tensor):
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
    """``last``, ``previous`` and ``best`` of one run, each a safetensors file."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._is_last_damaged = False
        self._newest = LAST

    def prepare(self) -> None:
        """Make the folder, and remove leftovers of a process killed while saving; the run's lock must be acquired.

        A damaged last checkpoint that `newest` has met is renamed, so that the next save does not overwrite the
        good previous one with it.
        """
        self.path.mkdir(parents=True, exist_ok=True)
        if self._is_last_damaged:
            (self.path / LAST).replace(self.path / f"{LAST}.damaged")
            self._is_last_damaged = False
        remove_temporaries(self.path)

    def save_last(self, state: Mapping[str, Any], *, step: int) -> None:
        """Save as the last checkpoint, and make the one before it the previous.

        Args:
            state: ``model`` and ``average`` (or None) are tensors by name; the rest is nested, of tensors, numbers,
                texts and containers.
            step: After which it was taken.

        Raises:
            CheckpointError: The state holds something else.
            StorageError: The disk is full; both checkpoints are untouched.
        """
        tensors = {f"{part}.{name}": value for part in _WEIGHTS for name, value in (state.get(part) or {}).items()}
        rest = {key: value for key, value in state.items() if key not in _WEIGHTS or value is None}
        rest |= {FORMAT_KEY: CHECKPOINT_FORMAT, "genlab_version": genlab.__version__, "step": step}
        try:
            encoded = {key: json.dumps(encode(value, key, tensors), allow_nan=False) for key, value in rest.items()}
            parts = seal(tensors, encoded)
        except (TypeError, ValueError, KeyError) as error:
            raise CheckpointError(f"a checkpoint cannot hold the state of this run: {error}") from error
        replace_atomically(self.path / LAST, *parts, previous=self.path / PREVIOUS)

    def save_best(self) -> None:
        """Keep the last checkpoint as the best one too, so that a run resumed from it knows the best weights."""
        self._copy_to_best(LAST)

    def agree_on_best(self, step: int | None, *, newest_step: int) -> None:
        """Make the best checkpoint that of the resumed checkpoint's record; call it after `newest` and `prepare`.

        After a kill between the saves of the last and of the best checkpoint, the best one is older or missing: it is
        made of the last one. A checkpoint that is older than the best one does not know it, so the best one is renamed.

        Args:
            step: Of the best weights, according to that checkpoint; None if it knows none.
            newest_step: Of that checkpoint itself.
        """
        best = self.path / BEST
        if best.exists() and self._step_of(BEST) == step:
            return
        if step == newest_step:
            self._copy_to_best(self._newest)
        elif best.exists():
            best.replace(self.path / f"{BEST}.lost")

    def _copy_to_best(self, name: str) -> None:
        replace_atomically(self.path / BEST, read_content(self.path, name))

    def newest(self, *, device: torch.device) -> dict[str, Any]:
        """Return the last checkpoint, or the previous one if it does not verify; no file is changed.

        Args:
            device: Where the tensors go.

        Raises:
            CheckpointError: None verifies.
        """
        reasons = []
        for name in (LAST, PREVIOUS):
            try:
                state = self.load(name, device=device)
            except CheckpointError as error:
                reasons.append(str(error))
                continue
            if reasons:
                _log.warning("%s; resuming from %s (step %d)", printable("; ".join(reasons)), name, state["step"])
                self._is_last_damaged = self.has(LAST)
            self._newest = name
            return state
        raise CheckpointError("no usable checkpoint: " + "; ".join(reasons))

    def load(self, name: str, *, device: torch.device) -> dict[str, Any]:
        """Read and verify one checkpoint.

        Raises:
            CheckpointError: It is missing, damaged, of another format version, or no checkpoint.
        """
        path = self.path / name
        content = read_content(self.path, name)
        is_whole = is_intact(content)
        try:
            tensors, metadata = parse(content)
            if told := newer_format(path, decode(metadata.get(FORMAT_KEY, "null"), {}), CHECKPOINT_FORMAT):
                raise CheckpointError(told)
            if is_whole:
                return _state(tensors, metadata, device)
        except ValueError as error:
            if is_whole:
                raise CheckpointError(f"{path} is refused: {error}") from error
        raise CheckpointError(f"{path} is damaged: its SHA-256 is not that of its content")

    @property
    def last_step(self) -> int | None:
        """Return the step of the last checkpoint, without loading it."""
        return self._step_of(LAST)

    @property
    def seen_at(self) -> tuple[int, int]:
        """Return the step of the newest checkpoint and the images seen by then, without loading it; zeros without."""
        for name in (LAST, PREVIOUS):
            step, images_seen = self._step_of(name), self._count_of(name, "images_seen")
            if step is not None and images_seen is not None:
                return step, images_seen
        return 0, 0

    def _step_of(self, name: str) -> int | None:
        return self._count_of(name, "step")

    def _count_of(self, name: str, key: str) -> int | None:
        try:
            count = json.loads(read_metadata(self.path, name)[key])
        except (OSError, ValueError, KeyError, RecursionError):
            return None
        return count if _is_count(count) else None

    def has(self, name: str) -> bool:
        """Return True if there is a file of that name."""
        return (self.path / name).exists()


def _state(tensors: dict[str, Tensor], metadata: Mapping[str, str], device: torch.device) -> dict[str, Any]:
    """Return the state from a file's parts.

    Raises:
        ValueError: It is not that of a run.
    """
    placed = {name: tensor.to(device) for name, tensor in tensors.items()}
    weights = {
        part: {name.removeprefix(f"{part}."): value for name, value in placed.items() if name.startswith(f"{part}.")}
        for part in _WEIGHTS
    }
    rest = {key: decode(text, placed) for key, text in metadata.items() if key not in ("format", "sha256")}
    if not _is_count(rest.get("step")):
        raise ValueError("it has no step, so it is not a checkpoint of a run")
    if "model" in rest or rest.get("average") is not None:
        raise ValueError("its weights are not tensors")
    return {**weights, **rest}


def _is_count(value: object) -> bool:
    return type(value) is int and 0 <= value <= MAX_STEP
