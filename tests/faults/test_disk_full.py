"""A full disk: exit code 7, what was needed and what is free; what was saved stays good, and the run can go on."""

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from tensorboard.summary.writer.record_writer import RecordWriter

from genlab.run import checkpoint
from genlab.training.trainer import Trainer
from tests.conftest import Genlab
from tests.faults.harness import TINY, checkpoint_of, environment, run
from tests.faults.tally import Tally

FAULT = "10 disk full"
CHECKPOINT_BYTES = 2_302_273  # about; of the tiny GAN


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A disk of 8 MB."""
    place = tmp_path / "disk"
    place.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=8m", "tmpfs", str(place)]
    if sys.platform != "linux" or os.geteuid() != 0 or subprocess.run(mount, capture_output=True).returncode != 0:
        pytest.skip("mounting a small disk takes root on Linux")
    yield place
    subprocess.run(["umount", str(place)], check=True)


def fill(disk: Path, *, but: int) -> None:
    """Leave so many bytes."""
    free = shutil.disk_usage(disk).free
    with (disk / "filler").open("wb") as file:
        file.write(bytes(free - but))


def fill_at(monkeypatch: pytest.MonkeyPatch, disk: Path, *, step: int, but: int) -> None:
    """Fill a disk when training comes to a step."""
    training_step = Trainer._training_step

    def fill_and_train(self: Trainer) -> None:
        if self.step == step:
            fill(disk, but=but)
        training_step(self)

    monkeypatch.setattr(Trainer, "_training_step", fill_and_train)


def require_a_line(errors: str) -> str:
    """The last line of the terminal, the only one about an error, and no traceback before it."""
    assert "Traceback" not in errors
    assert "Logging error" not in errors
    (line,) = [line for line in errors.splitlines() if line.startswith("genlab: error: ")]
    return line


@pytest.mark.parametrize("free", [16384, pytest.param(0, marks=pytest.mark.slow)])
def test_nothing_is_begun_on_a_full_disk(genlab: Genlab, small_disk: Path, tally: Tally, free: int) -> None:
    fill(small_disk, but=free)
    with tally.trying(FAULT, "starts"):
        outcome = genlab("train", *TINY["gan"], f"hydra.run.dir={small_disk / 'runs' / 'run'}")
        assert outcome.code == 7, outcome.errors
        assert outcome.errors.splitlines() == [require_a_line(outcome.errors)]
        assert f"disk full at {small_disk / 'runs' / 'run'}: 1,000,000 bytes to write, {free:,} free" in outcome.errors
        assert [path.name for path in small_disk.iterdir()] == ["filler"]


@pytest.mark.parametrize("family", ["gan", pytest.param("draw", marks=pytest.mark.slow)])
def test_a_checkpoint_that_does_not_fit_leaves_those_before(
    genlab: Genlab, small_disk: Path, monkeypatch: pytest.MonkeyPatch, tally: Tally, family: str
) -> None:
    folder = small_disk / "run"
    with tally.trying(FAULT, "saves"):
        with monkeypatch.context() as patch:
            fill_at(patch, small_disk, step=12, but=100_000)
            outcome = genlab("train", *TINY[family], f"hydra.run.dir={folder}")
        assert outcome.code == 7, outcome.errors
        line = require_a_line(outcome.errors)
        assert f"disk full at {folder / 'checkpoints' / 'last.safetensors'}: " in line
        assert "bytes to write, " in line
        assert (checkpoint_of(folder)["step"], checkpoint_of(folder, "previous.safetensors")["step"]) == (10, 5)
        assert not list(folder.rglob("*.tmp"))
        summary = json.loads((folder / "summary.json").read_text(encoding="utf-8"))
        assert (summary["status"], summary["step"]) == ("failed", 15)
        assert "disk full" in summary["reason"]
        # A run cannot resume on a full disk either; with space, it resumes from the last checkpoint.
        again = genlab("train", f"resume={folder}")
        assert again.code == 7
        require_a_line(again.errors)
        (small_disk / "filler").unlink()
        genlab("train", f"resume={folder}").checked()
        assert checkpoint_of(folder)["step"] == 40
        lines = (folder / "metrics.jsonl").read_text(encoding="utf-8").splitlines()
        assert [json.loads(line)["step"] for line in lines].count(15) == 1


@pytest.mark.slow
@pytest.mark.parametrize(("written", "words"), [("metrics", ()), ("pictures", ("trainer.sample_interval=12",))])
def test_numbers_and_pictures_that_do_not_fit_stop_the_run_too(
    genlab: Genlab,
    small_disk: Path,
    monkeypatch: pytest.MonkeyPatch,
    tally: Tally,
    written: str,
    words: tuple[str, ...],
) -> None:
    folder = small_disk / "run"
    with tally.trying(FAULT, f"writing {written}"):
        with monkeypatch.context() as patch:
            fill_at(patch, small_disk, step=11, but=0)
            log = ("trainer.log_interval=1",) if written == "metrics" else ("trainer.log_interval=1000",)
            outcome = genlab("train", *TINY["gan"], *log, *words, f"hydra.run.dir={folder}")
        assert outcome.code == 7, outcome.errors
        assert "disk full " in require_a_line(outcome.errors)
        assert checkpoint_of(folder)["step"] == 10
        (small_disk / "filler").unlink()
        assert genlab("train", f"resume={folder}").code == 0
        lines = [json.loads(line) for line in (folder / "metrics.jsonl").read_text(encoding="utf-8").splitlines()]
        written_once = [(line["step"], tag) for line in lines for tag in line if "/" in tag]
        assert len(set(written_once)) == len(written_once) > 0


@pytest.mark.slow
@pytest.mark.parametrize("num_records", [9, 0])
def test_tensorboards_failure_is_a_warning(
    genlab: Genlab, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, tally: Tally, num_records: int
) -> None:
    write = RecordWriter.write
    num_written = 0

    def fail(self: RecordWriter, data: bytes) -> None:
        nonlocal num_written
        num_written += 1
        if num_written > num_records:
            raise OSError(28, "No space left on device")
        write(self, data)

    monkeypatch.setattr(RecordWriter, "write", fail)
    folder = tmp_path / "run"
    with tally.trying(FAULT, "writing TensorBoard's file"):
        outcome = genlab("train", *TINY["gan"], f"hydra.run.dir={folder}").checked()
        assert "Traceback" not in outcome.errors
        warning = "logger.tensorboard cannot be written ([Errno 28] No space left on device); metrics.jsonl continues"
        assert outcome.output.count(warning) == 1
        assert checkpoint_of(folder)["step"] == 40
        assert len((folder / "metrics.jsonl").read_text(encoding="utf-8").splitlines()) >= 8


@pytest.mark.slow
def test_the_wrong_variants_are_noticed(
    genlab: Genlab, small_disk: Path, monkeypatch: pytest.MonkeyPatch, tally: Tally
) -> None:
    """A save on the final name, while another program takes the space that this sets free."""
    folder = small_disk / "run"

    def write_plainly(path: Path, *parts: bytes, previous: Path | None = None) -> None:
        is_second = path.exists()
        with path.open("wb") as file:
            if is_second:
                fill(small_disk, but=1_000_000)
            for part in parts:
                file.write(part)

    monkeypatch.setattr(checkpoint, "replace_atomically", write_plainly)
    outcome = genlab("train", *TINY["gan"], f"hydra.run.dir={folder}")
    assert outcome.code == 7
    assert 0 < (folder / "checkpoints" / "last.safetensors").stat().st_size < CHECKPOINT_BYTES / 2
    tally.wrong_variant_noticed(FAULT, "a plain write leaves a torn last.safetensors")


# Files of at most so many bytes: what a user without root meets as a quota.
LIMITED = """
import resource, sys
from genlab.cli import main
resource.setrlimit(resource.RLIMIT_FSIZE, (int(sys.argv[1]),) * 2)
sys.exit(main(sys.argv[2:]))
"""


@pytest.mark.slow
@pytest.mark.parametrize("family", TINY)
def test_a_limit_of_files_is_met_in_a_process_of_its_own(tmp_path: Path, tally: Tally, family: str) -> None:
    folder = tmp_path / "run"
    with tally.trying(FAULT, "limits of the size of files"):
        begun = run("train", *TINY[family], "trainer.num_steps=10", folder=folder)
        assert begun.returncode == 0, begun.stderr
        limit = str((folder / "checkpoints" / "last.safetensors").stat().st_size - 1)
        line = [sys.executable, "-c", LIMITED, limit, "train", f"resume={folder}", "trainer.num_steps=20"]
        limited = subprocess.run(line, capture_output=True, text=True, env=environment(), timeout=120)
        assert limited.returncode == 7, limited.stderr
        assert "file too large at " in require_a_line(limited.stderr)
        resumed = run("train", f"resume={folder}", "trainer.num_steps=20")
        assert resumed.returncode == 0, resumed.stderr
        assert checkpoint_of(folder)["step"] == 20
