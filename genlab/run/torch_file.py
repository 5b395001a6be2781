"""A torch file from a stranger, looked through before torch reads it, and what came of it afterwards.

``weights_only=True`` runs nothing, but it believes the file about sizes: an old-format file makes torch allocate
whatever storage it claims, a compressed record unfolds to a thousand times its size, ``bytearray(10**12)`` is
called, and a tensor of stride 0 has as many elements as its maker likes. Of thirty lists, each holding the one before
twice, whoever copies them makes a billion; hashing such a tuple takes as long. So only the format that ``torch.save``
writes is accepted, uncompressed, with the few names that tensors and plain values need, plain keys, and no more parts
than a model has.
"""

import io
import pickletools
import re
import struct
import zipfile
from collections.abc import Iterator, Mapping
from typing import Any

import torch

from genlab.run.torch_pickle import MAX_PARTS, require_plain_keys

MAX_DESCRIPTION_BYTES = 4_000_000
"""Of the pickle that describes the state: some hundred for a tensor, some ten thousand for a model of this project."""
_NAMES = re.compile(
    r"torch\._utils _rebuild_tensor_v2|torch [A-Za-z0-9]+Storage|collections (OrderedDict|Counter)|__builtin__ set"
)
MAX_DEPTH = 16
"""Of containers in containers: a moment of an optimiser is six deep."""
_REFUSED_OPCODES = frozenset({"STACK_GLOBAL", "INST", "OBJ", "NEWOBJ", "NEWOBJ_EX", "EXT1", "EXT2", "EXT4"})
_END = b"PK\x05\x06"
_END_BYTES, _LOCATOR_BYTES, _END_64_BYTES = 22, 20, 56


def require_harmless(content: bytes) -> None:
    """Refuse a file that makes torch do more than read tensors and plain values of the file's own size.

    Raises:
        ValueError: As said, with the name of what it would call where it would call anything.
    """
    if not content.startswith(b"PK"):
        names = sorted(set(_foreign_names(content)))
        calls = f" and names {', '.join(names)}" if names else ""
        raise ValueError(f"it is not in the format of torch.save{calls}")
    try:
        description = _description(content)
        names = sorted(set(_foreign_names(description, is_whole=True)))
    except ValueError:
        raise
    except Exception as error:  # zipfile promises no particular one for damage
        raise ValueError(f"it is no whole zip file: {error}") from error
    if names:
        raise ValueError(f"it names {', '.join(names)}, which no checkpoint needs")
    require_plain_keys(description)


def require_own_size(state: object, num_bytes: int) -> None:
    """Refuse a loaded state that is more than the file holds: in bytes of tensors, in parts or in depth.

    Args:
        state: What torch made of the file, on the CPU.
        num_bytes: Size of the file.

    Raises:
        ValueError: As said, or a tensor is of another kind than a model's.
    """
    storages: dict[int, int] = {}
    for tensor in _tensors(state):
        if tensor.layout != torch.strided or tensor.device.type != "cpu":
            raise ValueError(f"it holds a tensor of layout {tensor.layout} on {tensor.device}")
        storage = tensor.untyped_storage()
        if tensor.numel() * tensor.element_size() > storage.nbytes():
            raise ValueError(f"it claims {tensor.numel():,} elements of a tensor that has not so many")
        storages[storage.data_ptr()] = storage.nbytes()
    if sum(storages.values()) > num_bytes:
        raise ValueError(f"it claims {sum(storages.values()):,} bytes of tensors in a file of {num_bytes:,}")


def _description(content: bytes) -> bytes:
    """The pickle inside, out of a zip file whose records are what they seem."""
    _require_one_ending(content)
    with zipfile.ZipFile(io.BytesIO(content)) as archive:
        records = archive.infolist()
        if len({record.filename for record in records}) < len(records):
            raise ValueError("it holds two records of one name")
        if any(record.compress_type != zipfile.ZIP_STORED for record in records):
            raise ValueError("it holds compressed records")
        if sum(record.file_size for record in records) > len(content):
            raise ValueError("its records claim more bytes than it has")
        pickles = [record for record in records if record.filename.endswith(".pkl")]
        if len(pickles) != 1 or not pickles[0].filename.endswith("/data.pkl"):
            raise ValueError("it holds no data.pkl, or more pickles")
        if pickles[0].file_size > MAX_DESCRIPTION_BYTES:
            raise ValueError(f"its data.pkl has {pickles[0].file_size:,} bytes, and at most {MAX_DESCRIPTION_BYTES:,}")
        return archive.read(pickles[0])


def _require_one_ending(content: bytes) -> None:
    """Python and torch must find the same table of records: the end of the file, and nothing before it, tells where."""
    end = len(content) - _END_BYTES
    if content[end : end + 4] != _END or content[-2:] != b"\0\0":
        raise ValueError("it is no whole zip file: its end is missing")
    locator = end - _LOCATOR_BYTES
    if content[locator : locator + 4] == b"PK\x06\x07":
        (place,) = struct.unpack("<Q", content[locator + 8 : locator + 16])
        if place != locator - _END_64_BYTES:
            raise ValueError("it holds two tables of records")


def _foreign_names(content: bytes, *, is_whole: bool = False) -> Iterator[str]:
    """What the pickles in some bytes call that tensors and plain values do not need; nothing is called.

    Args:
        content: One pickle, or several in a row, or anything else: then it is read as far as it is one.
        is_whole: It must be one pickle and nothing else.

    Raises:
        ValueError: It should be one and is none.
    """
    stream = io.BytesIO(content)
    strings: list[str] = []
    try:
        while stream.tell() < len(content):
            for opcode, argument, _ in pickletools.genops(stream):
                if opcode.name == "GLOBAL" and not _NAMES.fullmatch(str(argument)):
                    yield str(argument).replace(" ", ".")
                elif opcode.name in _REFUSED_OPCODES:
                    yield ".".join(strings[-2:]) if opcode.name == "STACK_GLOBAL" else opcode.name
                elif isinstance(argument, str) and len(argument) < 100:
                    strings = [*strings[-1:], argument]
            if is_whole and stream.tell() < len(content):
                raise ValueError("its data.pkl holds more than one pickle")
    except Exception as error:  # of bytes that are no pickle, pickletools says all kinds of things
        if is_whole:
            raise ValueError(f"its data.pkl is damaged: {error}") from error


def _tensors(state: object) -> Iterator[torch.Tensor]:
    """Every tensor of a state, without recursion; a part that stands in several places is met in each, as by a copy.

    Raises:
        ValueError: It is nested too deeply, or has too many parts.
    """
    waiting: list[tuple[Any, int]] = [(state, 0)]
    num_parts = 1
    while waiting:
        part, depth = waiting.pop()
        if isinstance(part, torch.Tensor):
            yield part
            continue
        items = part.values() if isinstance(part, Mapping) else part if isinstance(part, list | tuple | set) else ()
        num_parts += len(items)
        if num_parts > MAX_PARTS:
            raise ValueError(f"it has more than {MAX_PARTS:,} parts")
        if items and depth == MAX_DEPTH:
            raise ValueError(f"it is nested more than {MAX_DEPTH} deep")
        waiting.extend((item, depth + 1) for item in items)
