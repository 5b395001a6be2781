"""The pickle that describes a torch file, gone through as torch's reader goes through it, and nothing built.

That reader hashes keys, elements of sets and names of records before anybody can look at them. Of thirty tuples, each
holding the one before twice, a hash takes a billion steps; and among keys whose hashes are equal, as can be arranged
for large numbers and for tuples, every search goes through all.
"""

import pickletools
from collections.abc import Iterable
from typing import Any

MAX_PARTS = 1_000_000
"""Of a state, and of what its description puts it together from: some thousands for a model of this project."""
_VALUES = frozenset(
    {"NONE", "NEWTRUE", "NEWFALSE", "BININT", "BININT1", "BININT2", "LONG1", "BINFLOAT"}
    | {"BINUNICODE", "SHORT_BINSTRING", "GLOBAL"}
)
_EMPTY: dict[str, type] = {"EMPTY_LIST": list, "EMPTY_TUPLE": tuple, "EMPTY_DICT": dict}
_ADDS_NOTHING = frozenset({"BINPUT", "LONG_BINPUT", "APPEND", "APPENDS", "SETITEM", "SETITEMS", "BUILD"})
_LARGEST_KEY = 2**64  # hashes of smaller numbers differ, but for a few
_NEITHER = object()  # a tensor, a storage or a set: nothing is taken out of it


def require_plain_keys(description: bytes) -> None:
    """Refuse a pickle that hashes anything but texts and ordinary numbers.

    Raises:
        ValueError: As said, or it is written otherwise than ``torch.save`` writes, or it has too many parts, for one
            byte can make a list of sixty.
    """
    reader = _Reader()
    try:
        for opcode, argument, _ in pickletools.genops(description):
            reader.take(opcode.name, argument)
    except (IndexError, KeyError, AttributeError) as error:
        raise ValueError("its data.pkl is damaged: it takes what is not there") from error


class _Reader:
    """The stack of the reader. Dictionaries stay empty; tuples and lists hold what they hold in the file."""

    def __init__(self) -> None:
        self._stack: list[Any] = []
        self._outer: list[list[Any]] = []
        self._noted: dict[int, Any] = {}
        self._num_parts = 0

    def take(self, name: str, argument: Any) -> None:
        """Follow one instruction."""
        stack = self._stack
        self._num_parts += name not in _ADDS_NOTHING
        if self._num_parts > MAX_PARTS:
            raise ValueError(f"it has more than {MAX_PARTS:,} parts")
        match name:
            case "PROTO" | "STOP":
                pass
            case _ if name in _VALUES:
                stack.append(argument)
            case _ if name in _EMPTY:
                stack.append(_EMPTY[name]())
            case "BINGET" | "LONG_BINGET":
                stack.append(self._noted[argument])
            case "BINPUT" | "LONG_BINPUT":
                self._noted[argument] = stack[-1]
            case "MARK":
                self._outer.append(stack)
                self._stack = []
            case "TUPLE":
                self._since_mark().append(tuple(stack))
            case "TUPLE1" | "TUPLE2" | "TUPLE3":
                num_items = int(name[-1])
                stack[-num_items:] = [tuple(stack[-num_items:])]
            case "APPEND":
                stack[-2].append(stack.pop())
            case "APPENDS":
                self._since_mark()[-1].extend(stack)
            case "SETITEM":
                _require_plain(stack[-2:-1])
                del stack[-2:]
            case "SETITEMS":
                _require_plain(stack[::2])
                self._since_mark()
            case "BINPERSID":
                _require_plain(stack[-1])
                stack[-1] = _NEITHER
            case "REDUCE":
                arguments = stack.pop()
                stack[-1] = _called(stack[-1], arguments)
            case "BUILD":
                if not isinstance(stack.pop(), dict):
                    raise ValueError("it gives attributes that have no names")
            case _:
                raise ValueError(f"it holds the instruction {name}, which torch.save does not write")

    def _since_mark(self) -> list[Any]:
        """Leave what stands on the stack since the last mark, for what stood there before it."""
        self._stack = self._outer.pop()
        return self._stack


def _called(function: object, arguments: Any) -> Any:
    """What a call stands for."""
    if function == "torch._utils _rebuild_tensor_v2":
        return _NEITHER
    if function == "collections OrderedDict" and arguments == ():
        return {}
    if function == "collections Counter" and isinstance(arguments[0], dict):
        return {}
    if function == "__builtin__ set" and isinstance(arguments[0], list):
        _require_plain(arguments[0])
        return _NEITHER
    raise ValueError(f"it calls {function} with what torch.save does not hand to it")


def _require_plain(keys: Iterable[object]) -> None:
    for key in keys:
        if not isinstance(key, str | int | float | None) or (isinstance(key, int) and abs(key) >= _LARGEST_KEY):
            raise ValueError("it has keys that are neither texts nor ordinary numbers")
