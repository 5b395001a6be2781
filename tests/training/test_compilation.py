"""``trainer.compile=auto`` compiles what earns it back within the run, and a run keeps what it began with."""

import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from torch.optim import SGD
from torch.optim.optimizer import _use_grad_for_differentiable

from genlab.compiler import keep_out_of_optimizers
from genlab.errors import ConfigurationError
from genlab.training import compilation
from genlab.training.compilation import choice, choose, missing_part
from genlab.types import CompilationCost
from tests.conftest import Genlab
from tests.training.conftest import TinyGAN, make_settings

CPU = torch.device("cpu")


class Measured(TinyGAN):
    """A step takes 2 batches; 1 ms an image, half of it when compiled."""

    def compilation_cost(self) -> CompilationCost:
        return CompilationCost(seconds=10.0, milliseconds_per_image=1.0, speedup=2.0, speedup_in_bfloat16=1.25)

    def compilable(self) -> tuple[torch.nn.Module, ...]:
        return (self.generator,)


@pytest.mark.parametrize(
    ("changes", "num_ranks", "expected"),
    [
        ({"num_steps": 1200}, 1, "no, it takes about 10 s and would save about 10 s in 1,200 steps"),
        ({"num_steps": 1300}, 1, "yes, it takes about 10 s and saves about 10 s in 1,300 steps"),
        ({"num_steps": 1300}, 2, "no, it takes about 10 s and would save about 5 s in 1,300 steps"),
        ({"num_steps": 1300, "dry_run": True}, 1, "no, it takes about 10 s and would save about 0 s in 2 steps"),
        (
            {"num_steps": 9999, "max_minutes": 0.3},
            1,
            "no, it takes about 10 s and would save about 9 s in 0.3 minutes",
        ),
        ({"num_steps": 9999, "max_minutes": 0.4}, 1, "yes, it takes about 10 s and saves about 12 s in 0.4 minutes"),
        ({"num_steps": 10**6, "sharding": "fsdp2"}, 2, ""),
        (
            {"num_steps": 2000, "precision": "bfloat16"},
            1,
            "no, it takes about 10 s and would save about 6 s in 2,000 steps",
        ),
    ],
)
def test_compilation_is_chosen_where_the_run_earns_it_back(
    changes: dict[str, Any], num_ranks: int, expected: str
) -> None:
    settings = make_settings(compile="auto", **changes)
    chooses, reason = choice(Measured(), settings, CPU, num_ranks=num_ranks, missing=None)
    assert reason == expected
    assert chooses == expected.startswith("yes")


class Slower(Measured):
    def compilation_cost(self) -> CompilationCost:
        return CompilationCost(seconds=10.0, milliseconds_per_image=1.0, speedup=1.0)


def test_nothing_is_said_where_compilation_gains_nothing() -> None:
    settings = make_settings(compile="auto", num_steps=10**6)
    assert choice(Slower(), settings, CPU, num_ranks=1, missing=None) == (False, "")


def test_models_that_nobody_has_measured_and_other_devices_stay_eager() -> None:
    settings = make_settings(compile="auto", num_steps=10**6)
    assert choice(TinyGAN(), settings, CPU, num_ranks=1, missing=None) == (False, "")
    for device in ("cuda", "mps"):
        assert choice(Measured(), settings, torch.device(device), num_ranks=1, missing=None) == (False, "")


def test_without_a_compiler_auto_stays_eager_and_true_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", "")
    monkeypatch.delenv("CXX", raising=False)
    settings = make_settings(compile="auto", num_steps=10**6)
    missing = missing_part("cpu")
    assert choose(Measured(), settings, CPU) == (False, f"no, there is no {missing}")
    assert "C++ compiler (" in str(missing)
    with pytest.raises(ConfigurationError, match=r"must be auto or false here, got true: there is no C\+\+ compiler"):
        choose(Measured(), make_settings(compile=True), CPU)
    assert choose(TinyGAN(), make_settings(compile=True), CPU) == (True, "")  # has nothing to compile


def test_triton_needs_a_c_compiler_of_either_name(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.delenv("CC", raising=False)
    assert missing_part("cuda") == "C compiler (gcc or clang)"
    compiler = tmp_path / "clang"
    compiler.touch(0o700)
    assert "compiler" not in str(missing_part("cuda"))
    monkeypatch.setenv("CC", "gcc")
    assert missing_part("cuda") == "C compiler (gcc)"


def test_all_ranks_stay_eager_if_one_has_no_compiler(monkeypatch: pytest.MonkeyPatch) -> None:
    settings = make_settings(compile="auto", num_steps=10**6)
    for other, expected in ((None, True), ("C++ compiler", False)):
        monkeypatch.setattr(compilation, "gathered", lambda own, other=other: [None, other])
        assert choose(Measured(), settings, CPU)[0] == expected


@pytest.mark.slow
def test_the_choice_is_kept_in_the_run_folder_and_taken_over(
    genlab: Genlab, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    compiled: list[bool] = []
    monkeypatch.setattr("genlab.training.trainer.compile_networks", lambda *_, **__: compiled.append(True))
    words = ("model=gan", "dataset.size=8", "trainer=smoke", "trainer.test_at_end=false", "trainer.num_steps=2")
    words = (
        *words,
        "trainer.precision=float32",
        "trainer.sample_interval=0",
        "trainer.validation_interval=0",
        f"hydra.run.dir={tmp_path / 'run'}",
    )
    for arguments, chooses in ((words, True), ((f"resume={tmp_path / 'run'}", "trainer.num_steps=3"), False)):
        monkeypatch.setattr(compilation, "choice", lambda *_, chooses=chooses, **__: (chooses, "yes, it was measured"))
        outcome = genlab("train", *arguments, "num_threads=1", "device=cpu").checked()
        assert yaml.safe_load((tmp_path / "run" / "config.yaml").read_text())["trainer"]["compile"] is True
        assert ("compile   yes, it was measured" in outcome.output) == chooses
        assert "float32, compiled, 1 thread" in outcome.output
    assert compiled == [True, True]


class Own(SGD):
    @_use_grad_for_differentiable
    def step(self, closure: Callable[[], float] | None = None) -> float | None:  # type: ignore[override]
        assert not torch.is_grad_enabled()
        return super().step(closure)


def test_optimizers_compute_the_same_without_the_import_of_the_compiler(monkeypatch: pytest.MonkeyPatch) -> None:
    assert Own.step.__code__.co_name == "_use_grad", "torch wraps a step otherwise: see keep_out_of_optimizers"
    monkeypatch.delitem(sys.modules, "torch._dynamo", raising=False)
    keep_out_of_optimizers(Own)
    keep_out_of_optimizers(SGD)
    weight = torch.nn.Parameter(torch.linspace(-1, 1, 5))
    expected, velocity = weight.detach().clone(), torch.zeros(5)
    optimizer = Own([weight], lr=0.1, momentum=0.9)
    for _ in range(3):
        velocity.mul_(0.9).add_(2 * expected)
        expected.add_(velocity, alpha=-0.1)
        weight.square().sum().backward()
        optimizer.step()
        optimizer.zero_grad()
    optimizer.load_state_dict(optimizer.state_dict())
    assert torch.equal(weight, expected)
    assert "torch._dynamo" not in sys.modules
