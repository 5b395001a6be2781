"""A number that is none: the run stops within the step, and no checkpoint ever holds one."""

import re
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from torch import Tensor

from genlab.data.dataset import BatchStream
from genlab.training import optimization, state, trainer
from genlab.training.optimization import PhaseUpdate
from genlab.training.trainer import Trainer
from genlab.types import Batch, Loss, Phase
from tests.conftest import Genlab
from tests.faults.harness import TINY, checkpoint_of, summary_of
from tests.faults.tally import Tally

FAULT = "8 non-finite"
BAD_STEP = 7
LAST_SAVED = 5  # TINY saves every five steps
PHASE = {"draw": "model", "gan": "discriminator", "gated_pixelcnn": "model"}
FAMILIES = [family if family == "gan" else pytest.param(family, marks=pytest.mark.slow) for family in TINY]


def not_finite(state: object, name: str) -> Iterator[str]:
    """Every number of a checkpoint that is a NaN or an infinity, found without genlab."""
    if isinstance(state, dict):
        for key, value in state.items():
            yield from not_finite(value, f"{name}.{key}")
    elif isinstance(state, list | tuple):
        for index, value in enumerate(state):
            yield from not_finite(value, f"{name}.{index}")
    elif isinstance(state, Tensor | float):
        number = torch.as_tensor(state)
        if bool(((number != number) | (number.abs() == float("inf"))).any()):
            yield name


def bad_numbers_of_checkpoints(run: Path) -> list[str]:
    names = [path.name for path in (run / "checkpoints").glob("*.safetensors")]
    return [bad for name in names for bad in not_finite(checkpoint_of(run, name), name)]


def poison_batches(monkeypatch: pytest.MonkeyPatch, *indices: int) -> None:
    """One image of each of some batches, as a data set of the user's own might deliver it."""
    deliver = BatchStream.batch_from

    def batch_from(self: BatchStream, start: int) -> Batch:
        delivered = deliver(self, start)
        if start // self.batch_size in indices:
            delivered.images[3] = float("nan")
        return delivered

    monkeypatch.setattr(BatchStream, "batch_from", batch_from)


def poison_loss(monkeypatch: pytest.MonkeyPatch, *, phase_name: str, step: int) -> None:
    """An infinite loss of one phase in one step."""

    class Poisoned(PhaseUpdate):
        def __init__(self, phase: Phase, **rest: object) -> None:
            num_asked = 0

            def loss(batch: Batch, *received: object) -> Loss:
                nonlocal num_asked
                num_asked += 1
                good = phase.loss(batch, *received)
                return replace(good, value=good.value + float("inf")) if num_asked == step + 1 else good

            super().__init__(replace(phase, loss=loss) if phase.name == phase_name else phase, **rest)  # type: ignore[arg-type]

    monkeypatch.setattr(state, "PhaseUpdate", Poisoned)


@pytest.mark.parametrize("family", FAMILIES)
def test_one_bad_image_stops_the_run_within_its_step(
    genlab: Genlab, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, tally: Tally, family: str
) -> None:
    run = tmp_path / "run"
    poison_batches(monkeypatch, BAD_STEP)
    with tally.trying(FAULT, "one NaN image"):
        outcome = genlab("train", *TINY[family], f"hydra.run.dir={run}")
        assert outcome.code == 5, outcome.errors
        (line,) = outcome.errors.splitlines()
        assert f"step {BAD_STEP}: not finite, nothing updated (phase {PHASE[family]}: " in line
        assert f"the last checkpoint is of step {LAST_SAVED}; try " in line
        assert re.search(r"resume=\S+ with a lower trainer\.max_gradient_norm \(now \S+\), or a new run with", line)
        assert (summary_of(run)["status"], summary_of(run)["step"]) == ("diverged", BAD_STEP)
        assert bad_numbers_of_checkpoints(run) == []
        assert checkpoint_of(run)["step"] == LAST_SAVED


@pytest.mark.parametrize("phase", ["discriminator", pytest.param("generator", marks=pytest.mark.slow)])
def test_an_infinite_loss_of_one_phase_is_named(
    genlab: Genlab, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, tally: Tally, phase: str
) -> None:
    poison_loss(monkeypatch, phase_name=phase, step=BAD_STEP)
    with tally.trying(FAULT, "infinite losses of one of two phases"):
        outcome = genlab("train", *TINY["gan"], f"hydra.run.dir={tmp_path / 'run'}")
        outcome.assert_error(5, f"step {BAD_STEP}: not finite, nothing updated (phase {phase}: loss inf")
        assert bad_numbers_of_checkpoints(tmp_path / "run") == []


@pytest.mark.parametrize("family", FAMILIES)
def test_a_huge_learning_rate_reaches_no_checkpoint(genlab: Genlab, tmp_path: Path, tally: Tally, family: str) -> None:
    """Adam moves every weight by lr: they stay finite, what they lead to does not."""
    run = tmp_path / "run"
    words = ("recipe=none", "optimizer.default.lr=1e20")
    words += tuple(f"trainer.{name}_interval=1" for name in ("checkpoint", "validation", "sample"))
    with tally.trying(FAULT, "lr=1e20"):
        outcome = genlab("train", *TINY[family], *words, f"hydra.run.dir={run}")
        assert outcome.code == 5, outcome.errors
        (line,) = outcome.errors.splitlines()
        assert "step 0: " in line or "step 1: " in line
        assert summary_of(run)["status"] == "diverged"
        assert bad_numbers_of_checkpoints(run) == []
        if not (run / "checkpoints" / "last.safetensors").exists():
            hint = (
                "there is no checkpoint yet; start a new run with a lower optimizer.default.lr or trainer.max_gradient"
            )
            assert hint in line
            sampled = genlab("sample", f"run={run}")
            assert (sampled.code, f"{run} diverged: step" in sampled.errors) == (4, True)
            assert hint in sampled.errors


def overflow_a_weight(monkeypatch: pytest.MonkeyPatch) -> None:
    """The last update of a step makes a weight overflow, after its loss and its gradient were seen to be finite."""
    training_step = Trainer._training_step

    def overflow(self: Trainer) -> None:
        training_step(self)
        if self.step == BAD_STEP:
            next(self.model.parameters()).data.view(-1)[0] = float("inf")

    monkeypatch.setattr(Trainer, "_training_step", overflow)


@pytest.mark.parametrize(
    "family",
    ["draw", pytest.param("gan", marks=pytest.mark.slow), pytest.param("gated_pixelcnn", marks=pytest.mark.slow)],
)
def test_what_overflows_between_two_losses_is_not_saved(
    genlab: Genlab, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, tally: Tally, family: str
) -> None:
    run = tmp_path / "run"
    overflow_a_weight(monkeypatch)
    with tally.trying(FAULT, "weights that overflow just before a save"):
        outcome = genlab("train", *TINY[family], "trainer.checkpoint_interval=1", f"hydra.run.dir={run}")
        assert outcome.code == 5, outcome.errors
        assert re.search(rf"step {BAD_STEP + 1}: model\.\S+ not finite, nothing saved; the last", outcome.errors)
        assert checkpoint_of(run)["step"] == BAD_STEP
        assert bad_numbers_of_checkpoints(run) == []


BATCH_NORM = ("model=dcgan", *TINY["gan"][2:], "trainer.num_steps=12", "trainer.on_non_finite=skip")


@pytest.mark.parametrize(("limits", "code"), [((), 0), pytest.param((1,), 5, marks=pytest.mark.slow)])
def test_a_skipped_batch_leaves_no_trace_and_skips_have_a_limit(
    genlab: Genlab, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, tally: Tally, limits: tuple[int, ...], code: int
) -> None:
    """Batch normalisation takes its running means before anybody has seen the loss."""
    run = tmp_path / "run"
    poison_batches(monkeypatch, BAD_STEP, BAD_STEP + 1)
    with tally.trying(FAULT, "batches to skip", count=2):
        words = [f"trainer.max_skipped_steps={limit}" for limit in limits]
        outcome = genlab("train", *BATCH_NORM, *words, f"hydra.run.dir={run}")
        assert outcome.code == code, outcome.errors
        assert f"step {BAD_STEP}: phase discriminator: loss nan" in (run / "train.log").read_text(encoding="utf-8")
        assert summary_of(run)["num_skipped_steps"] == 2
        assert bad_numbers_of_checkpoints(run) == []
        assert any("running_mean" in name for name in checkpoint_of(run))


@pytest.mark.slow
def test_the_wrong_variants_are_noticed(
    genlab: Genlab, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, tally: Tally
) -> None:
    with monkeypatch.context() as patch:
        patch.setattr(trainer, "first_not_finite", lambda state: None)
        overflow_a_weight(patch)
        words = ("trainer.checkpoint_interval=1", "hydra.run.dir=overflowed")
        assert genlab("train", *TINY["draw"], *words).code == 5
    assert bad_numbers_of_checkpoints(tmp_path / "overflowed")
    tally.wrong_variant_noticed(FAULT, "no check before the save")
    poison_batches(monkeypatch, BAD_STEP)
    with monkeypatch.context() as patch:
        patch.setattr(PhaseUpdate, "_buffers_to_keep", lambda self: [])
        assert genlab("train", *BATCH_NORM, "trainer.max_skipped_steps=2", "hydra.run.dir=kept").code == 5
    tally.wrong_variant_noticed(FAULT, "running means of a skipped batch stay")
    with monkeypatch.context() as patch:
        patch.setattr(torch, "isfinite", lambda values: torch.ones((), dtype=torch.bool))
        patch.setattr(optimization, "math", SimpleNamespace(isfinite=lambda value: True))
        assert genlab("train", *TINY["gan"], "quality=off", "hydra.run.dir=poisoned").code == 0
    bad = bad_numbers_of_checkpoints(tmp_path / "poisoned")
    assert any(name.startswith("last.safetensors.model.") for name in bad)
    assert any(".exp_avg" in name for name in bad), "Adam's moments are poisoned too"
    tally.wrong_variant_noticed(FAULT, "no check before the update")
