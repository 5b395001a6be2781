"""``trainer.precision=auto`` is what the hardware computes with, and a run keeps what it began with."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any
from unittest import mock

import pytest
import torch
import yaml

from genlab.training import precision
from genlab.training.precision import has_bfloat16, precision_of_all_ranks, slowness, threads_for
from genlab.training.trainer import Trainer
from tests.conftest import Genlab
from tests.thinning import thinned

CPU = torch.device("cpu")
AVX2 = {"avx2": True, "avx512_f": False, "avx512_bf16": False, "amx_bf16": False}
CPUS = {
    "avx2": (AVX2, False),
    "avx512 without bfloat16": (AVX2 | {"avx512_f": True}, False),
    "avx512_bf16": (AVX2 | {"avx512_f": True, "avx512_bf16": True}, True),
    "amx": (AVX2 | {"avx512_f": True, "amx_bf16": True}, True),
    "arm": ({"neon": True, "bf16": True}, False),  # never measured
}


def set_cpu(monkeypatch: pytest.MonkeyPatch, capabilities: Mapping[str, bool]) -> None:
    monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: capabilities)


@pytest.mark.parametrize("cpu", CPUS)
def test_a_cpu_has_bfloat16_with_instructions_for_its_products(cpu: str, monkeypatch: pytest.MonkeyPatch) -> None:
    capabilities, expected = CPUS[cpu]
    set_cpu(monkeypatch, capabilities)
    assert has_bfloat16(CPU) == expected
    assert (slowness("bfloat16", CPU) is None) == expected


def test_torch_tells_the_capabilities_that_are_asked_for() -> None:
    """A name that torch does not know would be false everywhere."""
    if torch.cpu.get_capabilities()["architecture"] != "x86_64":
        pytest.skip("of x86 alone")
    assert {name for names in precision._CPU_INSTRUCTIONS.values() for name in names} <= set(
        torch.cpu.get_capabilities()
    )


@pytest.mark.parametrize("has_it", [True, False])
def test_a_cuda_device_has_bfloat16_in_hardware_and_not_by_emulation(has_it: bool) -> None:
    def is_supported(including_emulation: bool = True) -> bool:
        return including_emulation or has_it

    with mock.patch("torch.cuda.is_bf16_supported", is_supported), mock.patch("torch.cuda.device"):
        assert has_bfloat16(torch.device("cuda", 0)) == has_it
    assert slowness("bfloat16", torch.device("cuda", 0)) is None
    assert not has_bfloat16(torch.device("mps"))


def test_a_reduced_type_without_instructions_is_slow_and_float32_never(monkeypatch: pytest.MonkeyPatch) -> None:
    set_cpu(monkeypatch, AVX2)
    for name in ("bfloat16", "float16"):
        assert f"trainer.precision={name} on a CPU" in str(slowness(name, CPU))  # type: ignore[arg-type]
        assert "5 to 14 times" in str(slowness(name, CPU))  # type: ignore[arg-type]
    assert slowness("float32", CPU) is None
    set_cpu(monkeypatch, AVX2 | {"avx512_bf16": True})
    assert slowness("float16", CPU) is not None  # other instructions


SMALL = ("model=gan", "dataset.size=8", "num_threads=1", "device=cpu", "trainer=smoke", "trainer.test_at_end=false")
STEPS = ("trainer.num_steps=2", "trainer.sample_interval=0", "trainer.validation_interval=0")


def kept(folder: Path) -> tuple[str, str]:
    values = yaml.safe_load((folder / "config.yaml").read_text())
    environment = json.loads((folder / "environment.json").read_text())
    return values["trainer"]["precision"], environment["precision"]


@pytest.mark.slow
def test_the_resolved_type_is_what_a_run_shows_keeps_and_resumes_with(
    genlab: Genlab, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    columns: list[Any] = []

    class Watched(Trainer):
        def __init__(self, **arguments: Any) -> None:
            super().__init__(**arguments)
            columns.append((arguments["hyperparameters"]["trainer.precision"], arguments["settings"].precision))

    monkeypatch.setattr("genlab.train.Trainer", Watched)
    for capabilities, expected in ((AVX2, "float32"), (AVX2 | {"amx_bf16": True}, "bfloat16")):
        set_cpu(monkeypatch, capabilities)
        folder = tmp_path / expected
        genlab("train", *SMALL, *STEPS, f"hydra.run.dir={folder}").checked()
        assert kept(folder) == (expected, expected)
        assert columns.pop() == (expected, expected)
        log = (folder / "train.log").read_text()
        assert expected in log
        assert "precision: auto" not in log
        assert "times as slow" not in log

    set_cpu(monkeypatch, AVX2)
    genlab("train", f"resume={tmp_path / 'bfloat16'}", "trainer.num_steps=3").checked()
    assert kept(tmp_path / "bfloat16") == ("bfloat16", "bfloat16")
    assert "5 to 14 times as slow as float32" in (tmp_path / "bfloat16" / "train.log").read_text()


def test_all_ranks_take_the_type_that_each_of_them_has(monkeypatch: pytest.MonkeyPatch) -> None:
    set_cpu(monkeypatch, AVX2 | {"amx_bf16": True})
    for other in ("bfloat16", "float32"):
        monkeypatch.setattr("genlab.training.precision.gathered", lambda own, other=other: [own, other])
        assert precision_of_all_ranks("auto", CPU) == other


def test_auto_is_one_thread_with_bfloat16_on_two_cores_unless_the_user_has_a_number(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    monkeypatch.setattr(torch, "get_num_threads", lambda: 8)
    assert threads_for("bfloat16", CPU) is None, "never measured"
    monkeypatch.setattr(torch, "get_num_threads", lambda: 2)
    assert threads_for("bfloat16", CPU) == 1
    assert threads_for("float32", CPU) is None
    assert threads_for("bfloat16", torch.device("cuda", 0)) is None
    monkeypatch.setenv("OMP_NUM_THREADS", "4")
    assert threads_for("bfloat16", CPU) is None


@pytest.mark.parametrize(("capabilities", "expected"), thinned([(AVX2 | {"amx_bf16": True}, 1), (AVX2, None)], 2))
def test_a_run_folder_keeps_the_number_of_threads_and_not_auto(
    genlab: Genlab,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capabilities: Mapping[str, bool],
    expected: int | None,
) -> None:
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    set_cpu(monkeypatch, capabilities)
    before = torch.get_num_threads()
    torch.set_num_threads(2)
    words = [word for word in SMALL if word != "num_threads=1"]
    outcome = genlab("train", *words, *STEPS, f"hydra.run.dir={tmp_path / 'run'}")
    torch.set_num_threads(before)
    assert outcome.code == 0, outcome.errors
    assert yaml.safe_load((tmp_path / "run" / "config.yaml").read_text())["num_threads"] == expected
