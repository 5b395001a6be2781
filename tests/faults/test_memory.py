"""Out of memory: nothing is made smaller unasked, the line says what to try, and the run resumes in smaller parts."""

import json
import signal
import subprocess
import sys
from pathlib import Path

import pytest
import torch
import yaml

from genlab.errors import is_out_of_memory
from genlab.launch import failures
from genlab.run.folder import resume_command
from genlab.training import run as training_run
from genlab.training.trainer import Trainer
from tests.conftest import Genlab
from tests.faults.harness import TINY, checkpoint_of, environment, run, start
from tests.faults.tally import Tally

FAULT = "16 memory"
BAD_STEP = 7
ON_A_DEVICE = torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB")
ON_THE_CPU = RuntimeError("[enforce fail at alloc_cpu.cpp:127] DefaultCPUAllocator: can't allocate memory")


def run_short(monkeypatch: pytest.MonkeyPatch, error: Exception) -> None:
    """Fail in a step, as torch does when memory ends there."""
    training_step = Trainer._training_step

    def fail(self: Trainer) -> None:
        if self.step == BAD_STEP:
            raise error
        training_step(self)

    monkeypatch.setattr(Trainer, "_training_step", fail)


@pytest.mark.parametrize(
    ("family", "error", "parts", "smaller"),
    [
        ("draw", ON_THE_CPU, 2, {"gradient_accumulation": 4}),
        pytest.param("gan", ON_A_DEVICE, 1, {"batch_size": 8}, marks=pytest.mark.slow),  # a technique refuses parts
        pytest.param("gated_pixelcnn", ON_A_DEVICE, 1, {"gradient_accumulation": 2}, marks=pytest.mark.slow),
    ],
)
def test_a_shortage_is_a_line_with_a_way_on_that_works(
    genlab: Genlab,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    tally: Tally,
    family: str,
    error: Exception,
    parts: int,
    smaller: dict[str, int],
) -> None:
    folder = tmp_path / "run"
    with tally.trying(FAULT, "errors of torch's allocators"):
        with monkeypatch.context() as patch:
            run_short(patch, error)
            outcome = genlab("train", *TINY[family], f"hydra.run.dir={folder}")
        assert outcome.code == 6, outcome.errors
        (line,) = outcome.errors.splitlines()
        assert f"out of memory at step {BAD_STEP} with trainer.batch_size=16 in {parts} part" in line
        assert str(error) in line
        ((key, value),) = smaller.items()
        told = f"trainer.{key}={value}" if key == "gradient_accumulation" else "a smaller trainer.batch_size"
        assert f"try again: {resume_command(folder)} with {told}" in line
        assert json.loads((folder / "summary.json").read_text(encoding="utf-8"))["status"] == "failed"
        assert checkpoint_of(folder)["step"] == 5
        genlab(*resume_command(folder).split()[1:], f"trainer.{key}={value}").checked()
        assert checkpoint_of(folder)["step"] == 40
        settings = yaml.safe_load((folder / "config.yaml").read_text(encoding="utf-8"))["trainer"]
        assert settings | smaller == settings


def test_parts_are_advised_that_hold_whole_groups_of_images(genlab: Genlab, monkeypatch: pytest.MonkeyPatch) -> None:
    """Ten images in two parts of five would be half a pair too many for a discriminator of pairs."""
    words = [word for word in TINY["gan"] if not word.startswith(("technique=", "trainer.batch_size="))]
    run_short(monkeypatch, ON_THE_CPU)
    outcome = genlab("train", *words, "model.pack=2", "trainer.batch_size=10")
    outcome.assert_error(6, "with trainer.gradient_accumulation=5, or a smaller")


@pytest.mark.slow
def test_the_wrong_variant_is_noticed(genlab: Genlab, monkeypatch: pytest.MonkeyPatch, tally: Tally) -> None:
    run_short(monkeypatch, ON_THE_CPU)
    for module in (training_run, failures):
        monkeypatch.setattr(module, "is_out_of_memory", lambda error: isinstance(error, torch.OutOfMemoryError))
    assert genlab("train", *TINY["gated_pixelcnn"]).code == 1
    tally.wrong_variant_noticed(FAULT, "torch.OutOfMemoryError alone is recognised")


# The address space may grow by so many MiB once everything is imported.
LIMITED = """
import resource, sys
from pathlib import Path
import sklearn.datasets, tensorboard.compat.proto.summary_pb2, genlab.train
from genlab.cli import main
used = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
resource.setrlimit(resource.RLIMIT_AS, (used + int(sys.argv[1]) * 2**20,) * 2)
sys.exit(main(sys.argv[2:]))
"""
LARGE = ("model=dcgan", "dataset.size=28", "device=cpu", "num_threads=1", "trainer.batch_size=1024", "recipe=none")
LARGE += ("trainer.num_steps=4", "trainer.checkpoint_interval=1", "trainer.sample_interval=0", "optimizer=adam")
LARGE += (
    "trainer.precision=float32",
    "trainer.validation_interval=0",
    "trainer.test_at_end=false",
    "trainer.num_initialization_images=16",
)


def run_limited(mebibytes: int, *words: str) -> subprocess.CompletedProcess[str]:
    line = [sys.executable, "-c", LIMITED, str(mebibytes), *words]
    return subprocess.run(line, capture_output=True, text=True, env=environment(), timeout=300)


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="limits of the address space are Linux's")
def test_a_process_with_too_little_memory_resumes_in_smaller_parts(tmp_path: Path, tally: Tally) -> None:
    folder = tmp_path / "run"
    with tally.trying(FAULT, "limits of the address space", count=2):
        refused = run_limited(350, "train", *LARGE, f"hydra.run.dir={folder}")
        assert refused.returncode == 6, refused.stderr
        assert "out of memory at step 0 with trainer.batch_size=1024 in 1 part" in refused.stderr
        assert "try again: the same line with trainer.gradient_accumulation=2" in refused.stderr
        assert "Traceback" not in refused.stderr
        begun = run("train", *LARGE, "trainer.num_steps=2", folder=tmp_path / "begun")
        assert begun.returncode == 0, begun.stderr
        resume = ("train", f"resume={tmp_path / 'begun'}", "trainer.num_steps=4")
        assert run_limited(350, *resume).returncode == 6
        smaller = run_limited(350, *resume, "trainer.gradient_accumulation=32")
        assert smaller.returncode == 0, smaller.stderr
        assert checkpoint_of(tmp_path / "begun")["step"] == 4


@pytest.mark.slow
@pytest.mark.parametrize("family", TINY)
def test_a_run_that_the_system_took_for_its_memory_resumes_in_smaller_parts(
    tmp_path: Path, tally: Tally, family: str
) -> None:
    folder = tmp_path / "run"
    with tally.trying(FAULT, "kills as by the system's OOM killer"):
        process = start("train", *TINY[family], "trainer.num_steps=100000", folder=folder)
        while not (folder / "checkpoints" / "last.safetensors").exists():
            assert process.poll() is None, process.communicate()
        process.send_signal(signal.SIGKILL)
        process.communicate()
        step = checkpoint_of(folder)["step"]
        assert isinstance(step, int)
        smaller = "trainer.batch_size=4" if family == "gan" else "trainer.gradient_accumulation=4"
        words = (f"resume={folder}", f"trainer.num_steps={step + 5}", smaller)
        resumed = run("train", *words)
        assert resumed.returncode == 0, resumed.stderr
        assert checkpoint_of(folder)["step"] == step + 5


@pytest.mark.parametrize(
    ("error", "is_shortage"),
    [
        (ON_A_DEVICE, True),
        (ON_THE_CPU, True),
        (MemoryError(), True),
        (RuntimeError("could not create a primitive"), True),  # a convolution below a limit of the address space
        (RuntimeError("could not create a primitive descriptor for a convolution"), False),
        (ValueError("out of memory"), False),
    ],
)
def test_shortages_are_told_from_other_errors(error: Exception, is_shortage: bool) -> None:
    assert is_out_of_memory(error) == is_shortage
