"""Safetensors files of checkpoints and exports: tensors by dotted name, everything else as JSON in the metadata.

The format itself notices no flipped bit. A sealed file holds, as ``sha256`` of its metadata, the SHA-256 of all its
bytes with the 64 digits of that entry replaced by zeros.
"""

import hashlib
import json
import math
from collections import Counter
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NoReturn

import safetensors
import safetensors.torch
import torch
from torch import Tensor

from genlab.errors import CheckpointError
from genlab.storage import opened_within, read_within

_DIGEST_KEY = b'"sha256":"'  # inside another entry, each quotation mark has a backslash before it
_NUM_DIGITS = 64
_LENGTH_BYTES = 8
_MAX_HEADER_BYTES = 100_000_000  # as in the library


def serialise(tensors: Mapping[str, Tensor], metadata: Mapping[str, str]) -> bytes:
    """Return the content of a safetensors file, which is the same for the same tensors and metadata."""
    content = _serialise(tensors, metadata)
    end = _end_of_header(content)
    header = json.loads(content[_LENGTH_BYTES:end])
    # The library's order is another in each call, and so is the digest of the file.
    header["__metadata__"] = dict(sorted(header["__metadata__"].items()))
    text = json.dumps(header, separators=(",", ":"), ensure_ascii=False).encode()
    text += b" " * (-len(text) % _LENGTH_BYTES)  # tensors stay aligned
    return b"".join((len(text).to_bytes(_LENGTH_BYTES, "little"), text, memoryview(content)[end:]))


def _serialise(tensors: Mapping[str, Tensor], metadata: Mapping[str, str]) -> bytes:
    """Return the content of a file with its metadata in any order, without a second copy of the tensors.

    Tensors that share memory are written one by one: the file knows no sharing, and the model restores it.
    """
    separate: dict[str, Tensor] = {}
    storages = set()
    for name, tensor in tensors.items():
        value = tensor.detach().contiguous()
        storage = (value.device, value.untyped_storage().data_ptr())
        separate[name] = value.clone() if storage in storages else value
        storages.add(storage)
    return safetensors.torch.save(separate, metadata={"format": "pt", **metadata})


def seal(tensors: Mapping[str, Tensor], metadata: Mapping[str, str]) -> tuple[bytes | memoryview, ...]:
    """Return the content of a safetensors file with its own SHA-256, in parts to be written one after the other."""
    content = _serialise(tensors, {**metadata, "sha256": "0" * _NUM_DIGITS})
    place = _place_of_digest(content)
    digest = hashlib.sha256(content).hexdigest().encode()
    return content[:place], digest, memoryview(content)[place + _NUM_DIGITS :]


def is_intact(content: bytes) -> bool:
    """Return True if the content of a sealed file matches its digest."""
    try:
        place = _place_of_digest(content)
    except ValueError:
        return False
    digest = hashlib.sha256(content[:place] + b"0" * _NUM_DIGITS)
    digest.update(memoryview(content)[place + _NUM_DIGITS :])
    return digest.hexdigest().encode() == content[place : place + _NUM_DIGITS]


def read_content(folder: Path, name: str) -> bytes:
    """Read a whole file of a folder.

    Raises:
        CheckpointError: It is missing or leads out of the folder.
    """
    try:
        return read_within(folder, name)
    except OSError as error:
        raise CheckpointError(f"{folder / name} cannot be read ({error.strerror})") from error
    except ValueError as error:
        raise CheckpointError(f"{folder / name} is refused: {error}") from error


def parse(content: bytes) -> tuple[dict[str, Tensor], dict[str, str]]:
    """Return the tensors of a file, on the CPU, and its metadata.

    Raises:
        ValueError: It is no safetensors file.
    """
    try:
        return safetensors.torch.load(content), parse_metadata(content)
    except (safetensors.SafetensorError, ValueError, TypeError, KeyError, RuntimeError, AssertionError) as error:
        raise ValueError((str(error) or type(error).__name__).splitlines()[0]) from error


def parse_metadata(content: bytes) -> dict[str, str]:
    """Return the metadata of a file that begins with these bytes.

    Raises:
        ValueError: It is no safetensors file.
    """
    try:
        header = json.loads(content[_LENGTH_BYTES : _end_of_header(content)])
        metadata = header.get("__metadata__", {})
        return {str(key): str(value) for key, value in metadata.items()}
    except (AttributeError, RecursionError) as error:
        raise ValueError("its header is not that of a safetensors file") from error


def read_metadata(folder: Path, name: str) -> dict[str, str]:
    """Read the metadata of a file without its tensors; its digest is not verified.

    Raises:
        OSError: It cannot be read.
        ValueError: It leads out of the folder, or is no safetensors file.
    """
    with opened_within(folder, name) as file:
        length = file.read(_LENGTH_BYTES)
        size = int.from_bytes(length, "little")
        return parse_metadata(length + file.read(min(size, _MAX_HEADER_BYTES)))


def encode(value: object, name: str, tensors: dict[str, Tensor]) -> Any:
    """Return a nested state as JSON values; its tensors are added to a mapping under dotted names.

    Strings, numbers, None, lists and dictionaries with strings for keys stand for themselves. The rest
    are objects with one key: ``$tensor`` (its name), ``$tuple``, ``$items`` (any dictionary), ``$counter``, ``$float``.

    Args:
        value: The state.
        name: Its dotted name.
        tensors: By name; those of the state are added.

    Raises:
        TypeError: Something in it is of another type.
    """
    if isinstance(value, Tensor) and value.layout == torch.strided:
        while name in tensors:
            name += "_"
        tensors[name] = value
        return {"$tensor": name}
    if isinstance(value, float) and not math.isfinite(value):
        return {"$float": repr(float(value))}
    if value is None or isinstance(value, bool | int | float | str):
        return value
    if isinstance(value, list | tuple):
        items = [encode(item, f"{name}.{index}", tensors) for index, item in enumerate(value)]
        return items if isinstance(value, list) else {"$tuple": items}
    if isinstance(value, Mapping):
        encoded = [(key, encode(item, f"{name}.{key}", tensors)) for key, item in value.items()]
        if isinstance(value, Counter):
            return {"$counter": encoded}
        if all(isinstance(key, str) and not key.startswith("$") for key in value):
            return dict(encoded)
        return {"$items": [(encode(key, name, tensors), item) for key, item in encoded]}
    raise TypeError(
        f"{name} is a {type(value).__name__}, which is neither a tensor, nor a number, a text or a container"
    )


def decode(text: str, tensors: Mapping[str, Tensor]) -> Any:
    """Return a nested state from JSON text and its tensors.

    Raises:
        ValueError: It is not what `encode` makes.
    """

    def restored(node: dict[str, Any]) -> Any:
        match node:
            case {"$tensor": str(name)}:
                return tensors[name]
            case {"$tuple": list(items)}:
                return tuple(items)
            case {"$items": list(pairs)}:
                return dict(pairs)
            case {"$counter": list(pairs)}:
                return Counter(dict(pairs))
            case {"$float": str(number)}:
                return float(number)
        return node

    try:
        return json.loads(text, object_hook=restored, parse_constant=_refuse)
    except KeyError as error:
        raise ValueError(f"it has no tensor {error}") from error
    except (TypeError, RecursionError) as error:
        raise ValueError(str(error).splitlines()[0]) from error


def _refuse(constant: str) -> NoReturn:
    raise ValueError(f"{constant} is no JSON")


def _end_of_header(content: bytes) -> int:
    size = int.from_bytes(content[:_LENGTH_BYTES], "little")
    if size > min(_MAX_HEADER_BYTES, len(content) - _LENGTH_BYTES):
        raise ValueError(f"its header claims {size:,} bytes")
    return _LENGTH_BYTES + size


def _place_of_digest(content: bytes) -> int:
    return content.index(_DIGEST_KEY, _LENGTH_BYTES, _end_of_header(content)) + len(_DIGEST_KEY)
