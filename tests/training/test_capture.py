"""Recorded updates against the same updates as written, bit for bit; the recording itself is a stand-in on the CPU."""

import functools
import logging
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from benchmarks.recorded_graph import RecordedGraphs
from genlab.errors import ConfigurationError, NonFiniteError
from genlab.training.capture import WARM_UP_STEPS, StepCapture, step_capture
from genlab.training.optimization import PhaseUpdate
from genlab.training.trainer import Trainer
from genlab.types import Batch, Loss, Phase
from tests.training.conftest import PoisonOnce, TinyGAN, make_dataset, make_trainer

CPU = torch.device("cpu")
NUM_STEPS = 9
OPTIMIZERS = {
    "adam": functools.partial(torch.optim.Adam, lr=1e-2, betas=(0.5, 0.9), fused=True),
    "adamw": functools.partial(torch.optim.AdamW, lr=1e-2, fused=True),
    "sgd": functools.partial(torch.optim.SGD, lr=1e-2, momentum=0.9),
    "sgd_without_momentum": functools.partial(torch.optim.SGD, lr=1e-2),
}


class ReusingGAN(TinyGAN):
    """The generator's update scores the images of the discriminator's last update again."""

    def phases(self) -> tuple[Phase, ...]:
        return (
            Phase(
                name="discriminator",
                modules=(self.discriminator,),
                loss=self.reused_discriminator_loss,
                repeats=2,
                records=(self.generator,),
            ),
            Phase(name="generator", modules=(self.generator,), loss=self.reused_generator_loss, receives=True),
        )

    def reused_discriminator_loss(self, batch: Batch) -> Loss:
        images = self.fakes(len(batch.images))
        real, fake = self.discriminator(batch.images.flatten(1)), self.discriminator(images.detach())
        value = F.softplus(-real).mean() + F.softplus(fake).mean()
        return Loss(value=value, metrics={"adversarial_nats": value}, handed_on=images)

    def reused_generator_loss(self, batch: Batch, received: torch.Tensor) -> Loss:
        value = F.softplus(-self.discriminator(received)).mean()
        return Loss(value=value, metrics={"adversarial_nats": value})


class Choosy(TinyGAN):
    """Looks at a value on the host in the discriminator's loss."""

    def discriminator_loss(self, batch: Batch) -> Loss:
        loss = super().discriminator_loss(batch)
        return loss if bool(loss.value > -1) else Loss(value=-loss.value, metrics=loss.metrics)


def make(folder: Path, model: nn.Module, optimizer: str = "adam", graphs: object = None, **changes: object) -> Trainer:
    folder.mkdir(exist_ok=True)
    quiet = {"num_steps": NUM_STEPS, "validation_interval": 0, "test_at_end": False}
    return make_trainer(folder, model, optimizer=OPTIMIZERS[optimizer], graphs=graphs, **(quiet | changes))


def as_written(folder: Path, model: nn.Module, optimizer: str = "adam", **changes: object) -> Trainer:
    """A trained model whose updates stay on the device and are never recorded: the warm-up has no end."""
    trainer = make(folder, model, optimizer, RecordedGraphs(), **changes)
    trainer._capture.begin_step = lambda: None
    trainer.fit(resume=False)
    return trainer


def weights(trainer: Trainer) -> list[torch.Tensor]:
    return [value.clone() for value in trainer.model.state_dict().values()]


def assert_equal(first: list[torch.Tensor], second: list[torch.Tensor]) -> None:
    for one, other in zip(first, second, strict=True):
        assert torch.equal(one, other)


@pytest.mark.parametrize(
    ("model", "optimizer", "changes"),
    [
        (TinyGAN, "adam", {}),
        (TinyGAN, "adamw", {"on_non_finite": "skip"}),
        (TinyGAN, "sgd", {"precision": "bfloat16"}),
        (TinyGAN, "sgd_without_momentum", {}),
        (ReusingGAN, "adam", {"gradient_accumulation": 2}),
    ],
)
def test_replayed_steps_are_the_steps_as_written(tmp_path: Path, model, optimizer, changes) -> None:
    """With a learning rate that changes in every update, dropout, batch statistics and two updates of one phase."""
    written = as_written(tmp_path / "written", model(), optimizer, **changes)
    graphs = RecordedGraphs()
    captured = make(tmp_path / "captured", model(), optimizer, graphs, **changes)
    captured.fit(resume=False)
    assert graphs.num_recorded == 2
    assert graphs.num_replays == 3 * (NUM_STEPS - WARM_UP_STEPS)
    assert_equal(weights(written), weights(captured))
    for name in written.summary.final:
        assert written.summary.final[name] == captured.summary.final[name], name


def test_a_run_resumes_bitwise_within_and_without_a_recording(tmp_path: Path) -> None:
    whole = make(tmp_path / "whole", TinyGAN(), graphs=RecordedGraphs())
    whole.fit(resume=False)
    make(tmp_path / "cut", TinyGAN(), graphs=RecordedGraphs(), max_minutes=1e-9).fit(resume=False)
    resumed = make(tmp_path / "cut", TinyGAN(), graphs=RecordedGraphs())
    resumed.fit(resume=True)
    assert_equal(weights(whole), weights(resumed))


def test_what_waits_for_the_device_runs_as_written_and_says_why(tmp_path: Path, caplog) -> None:
    written = as_written(tmp_path / "written", Choosy())
    graphs = RecordedGraphs()
    captured = make(tmp_path / "captured", Choosy(), graphs=graphs)
    captured._capture._is_required = False
    with caplog.at_level(logging.INFO, "genlab"):
        captured.fit(resume=False)
    lines = [record.getMessage() for record in caplog.records if "captured" in record.getMessage()]
    assert len(lines) == 1
    assert lines[0].startswith("trainer.cuda_graph: phase discriminator is not captured, ")
    assert "waits for the device" in lines[0]
    assert graphs.num_recorded == 1, "the generator is"
    assert_equal(weights(written), weights(captured))


def test_a_schedule_that_moves_the_momentum_is_not_recorded(tmp_path: Path, caplog) -> None:
    def one_cycle(optimizer: torch.optim.Optimizer, num_steps: int) -> torch.optim.lr_scheduler.LRScheduler:
        constant = torch.optim.lr_scheduler.ConstantLR(optimizer, factor=1.0)
        cycle = torch.optim.lr_scheduler.OneCycleLR(optimizer, max_lr=0.1, total_steps=num_steps)
        return torch.optim.lr_scheduler.SequentialLR(optimizer, [constant, cycle], [1])

    trainer = make(tmp_path / "a", TinyGAN())
    phase = trainer.model.phases()[0]
    adam, settings = OPTIMIZERS["adam"], trainer.settings
    update = PhaseUpdate(phase, optimizer=adam, schedule=one_cycle, settings=settings, device=CPU)
    with caplog.at_level(logging.INFO, "genlab"):
        assert update.capture(StepCapture(RecordedGraphs(), is_required=False), None) is None
    assert "SequentialLR changes the momentum" in caplog.text


def test_a_required_capture_that_is_not_possible_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(
        ConfigurationError,
        match=r"trainer\.cuda_graph must be auto or false here, got true: phase d\w+ cannot be captured: ",
    ):
        make(tmp_path / "required", Choosy(), graphs=RecordedGraphs()).fit(resume=False)


def assert_trains_unrecorded(folder: Path, model: Callable[[], nn.Module]) -> None:
    written = as_written(folder / "written", model())
    graphs = RecordedGraphs()
    captured = make(folder / "captured", model(), graphs=graphs)
    captured._capture._is_required = False
    captured.fit(resume=False)
    assert graphs.num_recorded == 0
    assert_equal(weights(written), weights(captured))


def test_a_phase_that_continues_an_unrecorded_one_is_not_recorded(tmp_path: Path) -> None:
    """Its recording would read memory that only the first step has written."""

    class Both(Choosy, ReusingGAN):
        def reused_discriminator_loss(self, batch: Batch) -> Loss:
            loss = super().reused_discriminator_loss(batch)
            return loss if bool(loss.value > -1) else Loss(value=-loss.value, metrics=loss.metrics)

    assert_trains_unrecorded(tmp_path, Both)


class ChoosyReceiver(ReusingGAN):
    """Looks at a value on the host in the phase that continues a graph."""

    def reused_generator_loss(self, batch: Batch, received: torch.Tensor) -> Loss:
        loss = super().reused_generator_loss(batch, received)
        return loss if bool(loss.value > -1) else Loss(value=-loss.value, metrics=loss.metrics)


@pytest.mark.parametrize("keeps_to_host", [False, True])
def test_a_phase_whose_graph_an_unrecorded_one_continues_is_not_recorded(
    tmp_path: Path, keeps_to_host: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its recorded graph could be continued once only."""
    model = ReusingGAN if keeps_to_host else ChoosyReceiver
    if keeps_to_host:

        def stays(update: PhaseUpdate) -> bool:
            return update.phase.name != "generator"

        monkeypatch.setattr(PhaseUpdate, "can_stay_on_device", property(stays))
        monkeypatch.setattr(StepCapture, "refuse", lambda *_: None)
    assert_trains_unrecorded(tmp_path, model)


@pytest.mark.parametrize("optimizer", OPTIMIZERS)
def test_a_bad_update_is_withheld_without_a_read_and_leaves_no_trace(tmp_path: Path, optimizer: str) -> None:
    """Updates 12 and 13 are those of the discriminator in step 6; the host hears of them at the log line after it."""
    bad = PoisonOnce(12, 13)
    graphs = RecordedGraphs()
    trainer = make(tmp_path / "skip", bad, optimizer, graphs, on_non_finite="skip", max_skipped_steps=2)
    before: list[torch.Tensor] = []
    step = trainer._training_step

    def watched() -> None:
        if trainer.step == 6:
            before.extend(value.clone() for value in bad.discriminator.state_dict().values())
        step()
        if trainer.step == 6:
            assert_equal(before, [value.clone() for value in bad.discriminator.state_dict().values()])

    trainer._training_step = watched  # type: ignore[method-assign]
    trainer.fit(resume=False)
    assert trainer.summary.num_skipped_steps == 2
    logged = (tmp_path / "skip" / "metrics.jsonl").read_text()
    assert "train/discriminator/gradient_norm" in logged
    assert "null" not in logged, "a withheld update has no part in the means"
    assert all(bool(value.isfinite().all()) for value in weights(trainer))


def test_a_bad_update_stops_the_run_before_anything_is_saved(tmp_path: Path) -> None:
    graphs = RecordedGraphs()
    trainer = make(tmp_path / "stop", PoisonOnce(14), graphs=graphs, log_interval=50, checkpoint_interval=4)
    with pytest.raises(NonFiniteError, match="withheld on the device"):
        trainer.fit(resume=False)
    assert trainer.summary.saved_step == 4


def test_the_cpu_has_no_graphs(tmp_path: Path) -> None:
    assert step_capture("auto", CPU, obstacle=None) is None
    assert step_capture(False, CPU, obstacle=None) is None
    with pytest.raises(ConfigurationError, match=r"trainer\.cuda_graph must be auto or false on device cpu, got t"):
        step_capture(True, CPU, obstacle=None)


def test_captured_semi_supervised_steps_are_the_steps_as_written(tmp_path: Path) -> None:
    """A fixed number of labelled images at the head of each batch divides it without a look at the labels."""

    class Divided(TinyGAN):
        def discriminator_loss(self, batch: Batch) -> Loss:
            assert batch.num_labelled == 2
            scores = self.discriminator(batch.images[batch.num_labelled :].flatten(1))
            value = (
                F.softplus(-scores).mean() + self.discriminator(batch.images[: batch.num_labelled].flatten(1)).mean()
            )
            return Loss(value=value, metrics={"adversarial_nats": value})

    changes = {"dataset": make_dataset(num_labels_per_class=3), "labelled_fraction": 0.25}
    written = as_written(tmp_path / "written", Divided(), **changes)
    captured = make(tmp_path / "captured", Divided(), graphs=RecordedGraphs(), **changes)
    captured.fit(resume=False)
    assert_equal(weights(written), weights(captured))


def test_the_stand_in_is_as_strict_as_a_device() -> None:
    """A recording does nothing; a replay repeats operations, not Python; a read on the host is refused."""
    values, python_runs = torch.zeros(2), []

    def work() -> torch.Tensor:
        python_runs.append(1)
        values.add_(len(python_runs))
        return values * 2 + torch.rand(2)

    graphs = RecordedGraphs()
    torch.manual_seed(0)
    expected = torch.rand(2)
    torch.manual_seed(0)
    result, replay = graphs.record(work)
    assert torch.equal(values, torch.zeros(2))
    replay()
    assert torch.equal(result, values * 2 + expected)
    replay()
    assert len(python_runs) == 1
    assert torch.equal(values, torch.full((2,), 2.0))
    for wait in (lambda: values.sum().item(), lambda: values[values > 1], lambda: bool(values.sum() > 1)):
        with pytest.raises(RuntimeError, match="waits for the device"):
            graphs.record(wait)
        assert graphs.find_wait(wait)[1] is not None
