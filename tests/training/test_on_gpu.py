"""Properties of training that need a device: no read on the host, RMSprop, and data that do not fit there."""

import functools
from pathlib import Path

import pytest
import torch

from genlab.data import store as store_module
from genlab.training.optimization import PhaseUpdate
from genlab.training.trainer import Trainer
from tests.training.conftest import PoisonOnce, TinyGAN, cosine, make_dataset, make_settings, make_trainer

pytestmark = pytest.mark.gpu

OPTIMIZERS = {
    "adam": functools.partial(torch.optim.Adam, lr=1e-2, betas=(0.5, 0.9), fused=True),
    "sgd": functools.partial(torch.optim.SGD, lr=1e-2, momentum=0.9),
    "rmsprop": functools.partial(torch.optim.RMSprop, lr=1e-3),
}
NUM_STEPS = 12


class DeviceGAN(PoisonOnce):
    """Draws its noise where it is."""

    def __init__(self, *bad_updates: int) -> None:
        super().__init__(*bad_updates, device="cuda")

    def fakes(self, num: int) -> torch.Tensor:
        return self.generator(torch.randn(num, 3, device="cuda"))


def make(folder: Path, model: TinyGAN, optimizer: str, **changes: object) -> Trainer:
    folder.mkdir()
    quiet = {"num_steps": NUM_STEPS, "validation_interval": 0, "test_at_end": False}
    return make_trainer(folder, model, optimizer=OPTIMIZERS[optimizer], device="cuda", **(quiet | changes))


@pytest.mark.parametrize("optimizer", OPTIMIZERS)
@pytest.mark.parametrize("on_non_finite", ["stop", "skip"])
def test_captured_steps_are_the_steps_as_written(tmp_path: Path, optimizer: str, on_non_finite: str) -> None:
    states = []
    for setting in (False, True):
        changes = {"cuda_graph": setting, "on_non_finite": on_non_finite}
        trainer = make(tmp_path / str(setting), DeviceGAN(), optimizer, **changes)
        trainer.fit(resume=False)
        states.append(trainer.model.state_dict())
    for name, value in states[0].items():
        assert torch.equal(value, states[1][name]), name


@pytest.mark.parametrize("optimizer", OPTIMIZERS)
@pytest.mark.parametrize("cuda_graph", [False, True])
def test_a_bad_update_leaves_no_trace(tmp_path: Path, optimizer: str, cuda_graph: bool) -> None:
    """Updates 12 and 13 are those of the discriminator in step 6."""
    model = DeviceGAN(12, 13)
    changes = {"cuda_graph": cuda_graph, "on_non_finite": "skip", "max_skipped_steps": 2}
    trainer = make(tmp_path / "skip", model, optimizer, **changes)
    kept = []
    step = trainer._training_step

    def watched() -> None:
        if trainer.step in (6, 7):
            kept.append([value.clone() for value in model.discriminator.state_dict().values()])
        step()

    trainer._training_step = watched  # type: ignore[method-assign]
    trainer.fit(resume=False)
    assert all(torch.equal(one, other) for one, other in zip(*kept, strict=True))
    assert trainer.summary.num_skipped_steps == 2
    assert all(bool(value.isfinite().all()) for value in model.state_dict().values())


@pytest.mark.parametrize("optimizer", OPTIMIZERS)
@pytest.mark.parametrize("on_non_finite", ["stop", "skip"])
@pytest.mark.parametrize("is_mapped", [False, True])
def test_no_step_waits_for_the_device(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, optimizer: str, on_non_finite: str, is_mapped: bool
) -> None:
    if is_mapped:  # as data that are too large for the device
        monkeypatch.setattr(store_module, "DEVICE_MEMORY_SHARE", 0.0)
    trainer = make(tmp_path / "free", DeviceGAN(), optimizer, cuda_graph=False, on_non_finite=on_non_finite)
    for _ in range(2):
        trainer._training_step()
        trainer.step += 1
    torch.cuda.set_sync_debug_mode("error")
    try:
        for _ in range(8):
            trainer._training_step()
            trainer.step += 1
    finally:
        torch.cuda.set_sync_debug_mode("default")


def test_data_on_the_host_give_the_same_batches(monkeypatch: pytest.MonkeyPatch) -> None:
    batches = []
    for share in (store_module.DEVICE_MEMORY_SHARE, 0.0):
        monkeypatch.setattr(store_module, "DEVICE_MEMORY_SHARE", share)
        stream = make_dataset().stream(batch_size=8, seed=0, device=torch.device("cuda"))
        batches.append([stream.batch(index) for index in range(6)])
    for on_device, on_host in zip(*batches, strict=True):
        assert torch.equal(on_device.images, on_host.images)
        assert torch.equal(on_device.labels, on_host.labels)


def test_pictures_that_are_composed_anew_wait_for_nothing() -> None:
    dataset = make_dataset()
    dataset.recompose = lambda rows, positions, seed: torch.zeros(len(rows), 1, 4, 4, dtype=torch.uint8)
    stream = dataset.stream(batch_size=8, seed=0, device=torch.device("cuda"))
    stream.batch(0)
    torch.cuda.set_sync_debug_mode("error")
    try:
        batch = stream.batch(1)
    finally:
        torch.cuda.set_sync_debug_mode("default")
    assert batch.images.is_cuda
    assert batch.labels.is_cuda


def test_a_checkpoint_of_the_cpu_resumes_on_a_device() -> None:
    """RMSprop counts its steps on the host, unless it stays on the device."""
    layer = torch.nn.Linear(4, 3)
    layer(torch.rand(2, 4)).sum().backward()
    phase = DeviceGAN().phases()[0]
    on_host, on_device = (
        PhaseUpdate(
            phase,
            optimizer=OPTIMIZERS["rmsprop"],
            schedule=cosine,
            settings=make_settings(),
            device=torch.device(device),
        )
        for device in ("cpu", "cuda")
    )
    for parameter in on_host.parameters:
        parameter.grad = torch.ones_like(parameter)
    on_host.optimizer.step()
    on_device.load_state_dict(on_host.state_dict())  # type: ignore[arg-type]
    steps = [state["step"] for state in on_device.optimizer.state.values()]
    assert all(step.device.type == "cuda" for step in steps)
