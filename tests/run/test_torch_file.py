"""What a torch file may hold: each attack is first shown to work on torch's own reader, or on a plain check."""

import io
import pickle
import struct
import zipfile
from collections import Counter, OrderedDict
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import nn

from genlab.run import torch_pickle
from genlab.run.torch_file import require_harmless, require_own_size


def saved(state: object, *, legacy: bool = False) -> bytes:
    buffer = io.BytesIO()
    torch.save(state, buffer, _use_new_zipfile_serialization=not legacy)
    return buffer.getvalue()


def rewritten(content: bytes, *, compression: int = zipfile.ZIP_STORED, **records: bytes) -> bytes:
    """The same zip file with other records; a name stands for ``archive/NAME``."""
    buffer = io.BytesIO()
    with zipfile.ZipFile(io.BytesIO(content)) as before, zipfile.ZipFile(buffer, "w", compression) as after:
        for name in before.namelist():
            after.writestr(name, records.pop(name.removeprefix("archive/"), before.read(name)))
        for name, record in records.items():
            after.writestr(f"archive/{name}", record)
    return buffer.getvalue()


def loaded(content: bytes) -> Any:
    return torch.load(io.BytesIO(content), map_location="cpu", weights_only=True)


class Calls:
    """Pickles as a call."""

    def __init__(self, function: Callable[..., Any], *arguments: Any) -> None:
        self.call = (function, arguments)

    def __reduce__(self) -> Any:
        return self.call


def test_states_of_models_optimisers_and_schedules_pass() -> None:
    model = nn.Sequential(nn.Linear(3, 4), nn.BatchNorm1d(4), nn.LSTM(4, 5))
    for make in (torch.optim.Adam, torch.optim.RMSprop, torch.optim.Adamax, torch.optim.Adafactor):
        optimizer = make(model.parameters(), lr=1e-3)
        model[1](model[0](torch.ones(2, 3))).sum().backward()
        optimizer.step()
        schedule = torch.optim.lr_scheduler.MultiStepLR(optimizer, [3, 5])
        state = {
            "model": model.state_dict(),
            "optimizer": optimizer.state_dict(),
            "schedule": schedule.state_dict(),
            "average": OrderedDict(model.state_dict()),
            "half": torch.ones(3, dtype=torch.bfloat16).t(),
            "view": torch.arange(10)[2:5],
            "others": [None, True, 10**30, 1.5, "text", (1, 2), {3}, Counter("ab"), torch.zeros(0), torch.tensor(1)],
        }
        content = saved(state)
        require_harmless(content)
        require_own_size(loaded(content), len(content))


def test_a_compressed_record_would_unfold_in_memory_and_is_refused() -> None:
    bomb = rewritten(saved(torch.zeros(10**7)), compression=zipfile.ZIP_DEFLATED)
    assert len(bomb) < 100_000
    assert loaded(bomb).numel() == 10**7  # what torch alone makes of it
    with pytest.raises(ValueError, match="compressed records"):
        require_harmless(bomb)


def test_an_old_file_would_be_believed_about_its_storages_and_is_refused() -> None:
    honest = saved(torch.zeros(1000, dtype=torch.uint8), legacy=True)
    assert loaded(honest).numel() == 1000
    with pytest.raises(ValueError, match="not in the format of torch"):
        require_harmless(honest)


def test_a_call_for_memory_is_refused() -> None:
    bomb = saved({"model": Calls(bytearray, 10**7)})
    assert len(loaded(bomb)["model"]) == 10**7  # torch allows the call
    with pytest.raises(ValueError, match=r"it names __builtin__\.bytearray"):
        require_harmless(bomb)


def test_elements_that_no_byte_stands_for_are_refused() -> None:
    bomb = saved({"weight": torch.zeros(1).expand(10**6, 10**6)})
    state = loaded(bomb)
    assert state["weight"].numel() == 10**12
    require_harmless(bomb)
    with pytest.raises(ValueError, match=r"it claims 1,000,000,000,000 elements"):
        require_own_size(state, len(bomb))


@pytest.mark.parametrize("place", ["a key", "one of several keys", "an element of a set", "an attribute"])
@pytest.mark.parametrize("key", [((((), ()), ()), 1), (1,), 2**64, -(2**64)])
def test_what_takes_long_to_hash_is_refused(place: str, key: Any) -> None:
    """torch hashes it while it reads: nested in itself thirty times, a tuple takes a billion steps."""
    states: dict[str, Any] = {"a key": {key: 1}, "one of several keys": {"a": 1, key: 2}, "an element of a set": {key}}
    states["an attribute"] = OrderedDict()
    states["an attribute"]._metadata = {key: 1}
    content = saved({"state": states[place]})
    assert loaded(content)  # torch alone makes no difference
    with pytest.raises(ValueError, match="keys that are neither texts nor ordinary numbers"):
        require_harmless(content)


def test_a_byte_for_a_list_is_no_bargain(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch_pickle, "MAX_PARTS", 1000)
    for part in (b"]", b"}", b")", b"K\x01", b"(", b"K\x01\x85"):
        description = b"\x80\x02](" + part * 1000 + b"e."
        with pytest.raises(ValueError, match="more than 1,000 parts"):
            require_harmless(rewritten(saved({}), **{"data.pkl": description}))


@pytest.mark.parametrize(
    ("description", "message"),
    [
        (b"}(K\x01\x85K\x01u.", "neither texts nor"),
        (b"}K\x01\x85K\x01s.", "neither texts nor"),
        (b"(X\x07\x00\x00\x00storageK\x01\x85K\x01K\x01tQ.", "neither texts nor"),
        (b"ccollections\nOrderedDict\n](K\x01\x85K\x01\x86e\x85R.", "calls collections OrderedDict"),
        (b"ccollections\nCounter\n]K\x01\x85a\x85R.", "calls collections Counter"),
        (b"c__builtin__\nset\nK\x01\x85R.", "calls __builtin__ set"),
        (b"ccollections\nOrderedDict\n)R]b.", "attributes that have no names"),
        (b"]2.", "instruction DUP"),
        (b"h\x05.", "takes what is not there"),
        (b"K\x01a.", "takes what is not there"),
        (b"K\x01K\x02a.", "takes what is not there"),
    ],
)
def test_a_description_that_torch_would_not_write_is_refused(description: bytes, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        require_harmless(rewritten(saved({}), **{"data.pkl": b"\x80\x02" + description}))


def test_more_bytes_than_the_file_has_are_refused() -> None:
    with pytest.raises(ValueError, match=r"it claims 4,000 bytes of tensors in a file of 3,999"):
        require_own_size({"a": torch.zeros(1000)}, 3999)
    shared = torch.zeros(1000)
    require_own_size({"a": shared, "b": [shared[:10], {"c": shared.view(10, 100)}]}, 4000)
    with pytest.raises(ValueError, match="sparse"):
        require_own_size({"a": torch.zeros(3, 3).to_sparse()}, 10**6)


def test_parts_that_stand_in_many_places_are_counted_in_each() -> None:
    """As whoever copies them finds out: two to the 17th lists out of 17."""
    shared = [0.5] * 500_000
    require_own_size({"a": shared, "b": {"c": torch.zeros(2)}}, 100)
    with pytest.raises(ValueError, match="more than 1,000,000 parts"):
        require_own_size({"a": shared, "b": [shared]}, 100)
    doubling: list[Any] = [torch.zeros(2)]
    for _ in range(13):
        doubling = [doubling, doubling]
    require_own_size(doubling, 100)
    for _ in range(10_000):
        doubling = [doubling, doubling]
    with pytest.raises(ValueError, match="nested more than 16 deep"):
        require_own_size(doubling, 100)


def test_a_state_that_holds_itself_is_refused() -> None:
    state: dict[str, Any] = {"weight": torch.zeros(2)}
    state["self"] = state
    with pytest.raises(ValueError, match="nested more than 16 deep"):
        require_own_size(state, 100)


@pytest.mark.parametrize("protocol", range(6))
@pytest.mark.parametrize("function", [eval, open, pickle.loads, torch.load])
def test_what_would_be_called_is_named(function: Callable[..., Any], protocol: int) -> None:
    description = pickle.dumps({"model": Calls(function, "x")}, protocol=protocol)
    name = function.__name__
    for content in (description, rewritten(saved({}), **{"data.pkl": description}), b"\x80\x02K\x01." + description):
        with pytest.raises(ValueError, match=rf"names .*\b{name}\b"):
            require_harmless(content)


def test_a_name_is_told_whatever_bytes_follow() -> None:
    """Behind the pickles of an old file stand the bytes of its tensors, which read as any opcode."""
    description = pickle.dumps({"model": Calls(eval, "x")}, protocol=2)
    generator = torch.Generator().manual_seed(0)
    noise = [torch.randint(256, (60,), dtype=torch.uint8, generator=generator).numpy().tobytes() for _ in range(500)]
    for following in (*noise, b"S'\\q'\n.", b"\x8b\xff\xff\xff\x7f", b"I_\n", b"Fx\n"):
        with pytest.raises(ValueError, match=r"names .*eval"):
            require_harmless(description + following)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "not in the format"),
        (b"PK\x03\x04", "its end is missing"),
        (saved({})[:-1], "its end is missing"),
        (saved({}) + b"\0", "its end is missing"),
        (rewritten(saved({}), **{"more.pkl": b"."}), "more pickles"),
        (rewritten(saved({}), **{"data.pkl": b"X"}), "its data.pkl is damaged"),
        (rewritten(saved({}), **{"data.pkl": b"K\x01.K\x02."}), "more than one pickle"),
        (rewritten(saved({}), **{"data.pkl": b"K\x01." + bytes(4_000_000)}), "data.pkl has 4,000,003 bytes"),
    ],
)
def test_what_is_no_file_of_torch_is_refused(content: bytes, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        require_harmless(content)


def test_a_second_table_of_records_is_refused() -> None:
    """Python looks for the wide table before its locator, other readers where the locator says."""
    content = bytearray(saved({}))
    locator = len(content) - 42
    assert content[locator : locator + 4] == b"PK\x06\x07"
    require_harmless(bytes(content))
    struct.pack_into("<Q", content, locator + 8, 0)
    with pytest.raises(ValueError, match="two tables of records"):
        require_harmless(bytes(content))


@pytest.mark.parametrize("position", ["start", "middle", "directory", "end"])
def test_no_damage_gives_anything_but_a_refusal(position: str) -> None:
    content = saved({"weight": torch.arange(100.0)})
    starts = {"start": 0, "middle": 600, "directory": len(content) - 600, "end": len(content) - 100}
    for offset in range(100):
        damaged = bytearray(content)
        damaged[starts[position] + offset] ^= 0xFF
        try:
            require_harmless(bytes(damaged))
        except ValueError:
            continue
