"""The newest checkpoint is damaged: a run resumes from the one before and says so; asked for by name, it is refused."""

import random
import shutil
import signal
from collections.abc import Callable
from functools import partial
from pathlib import Path

import pytest
import safetensors.torch

from tests.conftest import Genlab
from tests.faults import hooks
from tests.faults.harness import TINY, assert_runs_equal, checkpoint_of, fork, resume, strays_of
from tests.faults.tally import Tally

pytestmark = pytest.mark.slow
FAULT = "5 damage"
LAST, PREVIOUS = 23, 20
NAMES = ("last.safetensors", "previous.safetensors")
WORDS = TINY["draw"]


def cut(length: Callable[[bytes], int]) -> Callable[[Path], object]:
    return lambda path: path.write_bytes(path.read_bytes()[: length(path.read_bytes())])


def flip_a_bit(path: Path) -> None:
    """In the fraction of a weight."""
    content = bytearray(path.read_bytes())
    weights = max(safetensors.torch.load_file(path).values(), key=lambda value: value.numel())
    content[content.index(weights.numpy().tobytes()) + 2] ^= 1
    path.write_bytes(content)


def put_a_folder_in_its_place(path: Path) -> None:
    path.unlink()
    path.mkdir()


DAMAGES: dict[str, Callable[[Path], object]] = {
    "empty": cut(lambda content: 0),
    "one byte": cut(lambda content: 1),
    "half": cut(lambda content: len(content) // 2),
    "one byte short": cut(lambda content: len(content) - 1),
    "one bit flipped": flip_a_bit,
    "zeros": lambda path: path.write_bytes(bytes(path.stat().st_size)),
    "random": lambda path: path.write_bytes(random.Random(5).randbytes(path.stat().st_size)),
    "a folder in its place": put_a_folder_in_its_place,
}
QUICK = ("one bit flipped",)


@pytest.fixture(scope="module")
def stopped(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run that was stopped, with two checkpoints."""
    folder = tmp_path_factory.mktemp("stopped") / "run"
    ended = fork(*WORDS, folder=folder, hook=partial(hooks.signalled_at, LAST, signal.SIGTERM)).wait()
    assert ended.returncode == 143, ended.stderr
    assert [checkpoint_of(folder, name)["step"] for name in NAMES] == [
        LAST,
        PREVIOUS,
    ]
    return folder


CASES = [pytest.param(name, marks=() if name in QUICK else pytest.mark.slow) for name in DAMAGES]


@pytest.mark.parametrize("damage", CASES)
def test_a_run_resumes_from_the_checkpoint_before(
    tmp_path: Path, genlab: Genlab, whole: Path, stopped: Path, tally: Tally, damage: str
) -> None:
    folder = tmp_path / "run"
    shutil.copytree(stopped, folder)
    DAMAGES[damage](folder / "checkpoints" / "last.safetensors")
    with tally.trying(FAULT, "damaged checkpoints asked for by name"):
        outcome = genlab("sample", f"run={folder}", "checkpoint=last", "num_threads=1")
        assert outcome.code == 4, outcome.errors
        (line,) = outcome.errors.splitlines()
        assert "last.safetensors" in line
    with tally.trying(FAULT, "damaged newest checkpoints"):
        ended = resume(folder).succeed()
        (warning,) = [line for line in ended.stdout.splitlines() if "resuming from" in line]
        assert "last.safetensors" in warning
        assert f"resuming from previous.safetensors (step {PREVIOUS})" in warning
        assert_runs_equal(whole, folder)
        assert strays_of(folder) == []


def test_both_checkpoints_damaged_end_with_one_line(tmp_path: Path, stopped: Path, tally: Tally) -> None:
    folder = tmp_path / "run"
    shutil.copytree(stopped, folder)
    for name in NAMES:
        flip_a_bit(folder / "checkpoints" / name)
    with tally.trying(FAULT, "two damaged checkpoints"):
        before = (folder / "metrics.jsonl").read_bytes()
        ended = resume(folder).wait()
        assert ended.returncode == 4
        (line,) = ended.stderr.splitlines()
        assert all(name in line for name in ("no usable checkpoint", "last.safetensors", "previous.safetensors"))
        assert (folder / "metrics.jsonl").read_bytes() == before


def test_a_reader_without_digests_would_be_noticed(tmp_path: Path, whole: Path, stopped: Path, tally: Tally) -> None:
    folder = tmp_path / "run"
    shutil.copytree(stopped, folder)
    flip_a_bit(folder / "checkpoints" / "last.safetensors")
    assert resume(folder, hook=hooks.believing_every_checkpoint).wait().returncode == 0  # it has noticed nothing
    with pytest.raises(AssertionError):
        assert_runs_equal(whole, folder)
    tally.wrong_variant_noticed(FAULT, "a reader without a digest")
