"""One phase's update against hand-computed ones."""

import copy
import dataclasses
import functools
import math
from collections.abc import Callable, Iterable
from typing import Any

import pytest
import torch
from torch import nn

from genlab.errors import NonFiniteError
from genlab.training.optimization import FrozenOutside, PhaseUpdate
from genlab.types import Batch, Loss, Phase
from tests.training.conftest import cosine, make_settings

CPU = torch.device("cpu")


def make_batch(num: int = 8) -> Batch:
    images = torch.rand(num, 1, 2, 2, generator=torch.Generator().manual_seed(0))
    return Batch(images=images, labels=torch.full((num,), -1))


SGD = functools.partial(torch.optim.SGD, lr=0.1)


def update_of(
    phase: Phase, optimizer: Callable[..., Any] = SGD, modules: Iterable[nn.Module] = (), **changes: object
) -> PhaseUpdate:
    settings = make_settings(**changes)
    return PhaseUpdate(phase, optimizer=optimizer, schedule=cosine, settings=settings, device=CPU, modules=modules)


def make_update(
    scale: float = 1.0, *, repeats: int = 1, optimizer: Callable[..., Any] = SGD, **changes: object
) -> tuple[nn.Linear, PhaseUpdate]:
    torch.manual_seed(0)
    layer = nn.Linear(4, 3)

    def loss(batch: Batch) -> Loss:
        value = scale * layer(batch.images.flatten(1)).square().mean()
        return Loss(value=value, metrics={"square_nats": value})

    phase = Phase(name="only", modules=(layer,), loss=loss, repeats=repeats)
    return layer, update_of(phase, optimizer, **changes)


def test_accumulated_parts_equal_one_batch() -> None:
    whole, whole_update = make_update(gradient_accumulation=1, max_gradient_norm=None)
    parts, parts_update = make_update(gradient_accumulation=4, max_gradient_norm=None)
    (whole_metrics, _), (parts_metrics, _) = whole_update.run(make_batch()), parts_update.run(make_batch())
    torch.testing.assert_close(whole.weight, parts.weight)
    for name, value in whole_metrics.items():
        torch.testing.assert_close(value, parts_metrics[name])


def test_listing_mistake_7_clipping_is_by_the_global_norm_not_per_tensor() -> None:
    """DRAW's source document clips the norm of each tensor, which changes the gradient's direction."""
    layer, update = make_update(scale=100.0, max_gradient_norm=0.5)
    before = [parameter.detach().clone() for parameter in layer.parameters()]
    loss = 100.0 * layer(make_batch().images.flatten(1)).square().mean()
    gradients = torch.autograd.grad(loss, list(layer.parameters()))
    norm = torch.sqrt(sum(gradient.square().sum() for gradient in gradients))
    metrics, _ = update.run(make_batch())
    torch.testing.assert_close(metrics["gradient_norm"], norm)
    for old, new, gradient in zip(before, layer.parameters(), gradients, strict=True):
        torch.testing.assert_close(new, old - 0.1 * gradient * 0.5 / norm, rtol=1e-4, atol=1e-6)


def test_a_bad_gradient_changes_nothing() -> None:
    layer, update = make_update(scale=float("inf"))
    before = layer.weight.detach().clone()
    with pytest.raises(NonFiniteError, match="phase only: loss inf"):
        update.run(make_batch())
    assert torch.equal(layer.weight, before)
    assert layer.weight.grad is None
    assert not update.optimizer.state


def test_a_bad_step_is_reported_with_the_loss_of_the_batch_in_any_number_of_parts() -> None:
    messages = set()
    for parts in (1, 2):
        _, update = make_update(scale=1e38, gradient_accumulation=parts)  # the square of the norm overflows
        with pytest.raises(NonFiniteError, match=r"loss .*e.37, gradient norm inf") as caught:
            update.run(Batch(images=torch.ones(8, 1, 2, 2), labels=torch.full((8,), -1)))
        messages.add(str(caught.value))
    assert len(messages) == 1


def test_a_bad_image_leaves_nothing_of_the_parts_before_it() -> None:
    layer, update = make_update(gradient_accumulation=2, on_non_finite="skip")
    good, levels = update.phase.loss, nn.Embedding(2, 3)

    def loss(batch: Batch) -> Loss:
        levels(batch.images.long())  # outside the table where an image is a NaN
        return good(batch)

    update.phase = dataclasses.replace(update.phase, loss=loss)
    batch = make_batch()
    batch.images[6] = float("nan")
    with pytest.raises(NonFiniteError, match="phase only: an image of the batch is not finite"):
        update.run(batch)
    assert layer.weight.grad is None


@pytest.mark.parametrize("repeats", [1, 4])
def test_the_schedule_moves_once_per_update_and_ends_with_the_last_one_of_the_run(repeats: int) -> None:
    _, update = make_update(num_steps=3, repeats=repeats)
    rates = []
    for _ in range(3 * repeats):
        rates.append(update.schedule.get_last_lr()[0])
        update.run(make_batch())
    assert rates == pytest.approx([0.1 * (1 - number / (3 * repeats + 1)) for number in range(3 * repeats)])


@pytest.mark.parametrize("optimizer", [torch.optim.Adafactor, functools.partial(torch.optim.Adam, lr=0.1)])
def test_a_saved_state_is_resumed_whatever_the_optimiser_keeps(optimizer: Callable[..., Any]) -> None:
    (one, update), (other, resumed) = make_update(optimizer=optimizer), make_update(optimizer=optimizer)
    update.run(make_batch())
    other.load_state_dict(one.state_dict())
    resumed.load_state_dict(copy.deepcopy(update.state_dict()))
    for each in (update, resumed):
        each.run(make_batch())
    assert torch.equal(one.weight, other.weight)


def test_a_skipped_update_restores_a_buffer_that_the_model_has_set_anew() -> None:
    layer, update = make_update(scale=float("inf"), on_non_finite="skip")
    layer.register_buffer("count", torch.zeros(()))
    good = update.phase.loss

    def loss(batch: Batch) -> Loss:
        layer.count = layer.count + 1
        return good(batch)

    phase = dataclasses.replace(update.phase, loss=loss)
    update = update_of(phase, modules=[layer], on_non_finite="skip")
    for _ in range(2):
        with pytest.raises(NonFiniteError):
            update.run(make_batch())
    assert layer.count == 0


def test_a_parameter_listed_twice_is_refused() -> None:
    layer = nn.Linear(2, 2)
    phase = Phase(name="twice", modules=(layer, layer), loss=lambda batch: None)  # type: ignore[arg-type, return-value]
    with pytest.raises(ValueError, match="twice"):
        PhaseUpdate(phase, optimizer=torch.optim.SGD, schedule=cosine, settings=make_settings(), device=CPU)


@pytest.mark.parametrize("precision", ["bfloat16", "float16"])
def test_reduced_precision_follows_float32(precision: str) -> None:
    exact, exact_update = make_update(max_gradient_norm=None)
    rough, rough_update = make_update(max_gradient_norm=None, precision=precision)
    start = rough.weight.detach().clone()
    exact_update.run(make_batch())
    for _ in range(20):  # float16's scaler first lowers its scale until nothing overflows
        rough_update.run(make_batch())
        if not torch.equal(rough.weight, start):
            break
    torch.testing.assert_close(exact.weight, rough.weight, rtol=2e-2, atol=2e-3)
    assert rough.weight.dtype == torch.float32
    assert rough_update.schedule.last_epoch == 1


def test_what_is_handed_on_reaches_the_next_phase_part_by_part_and_none_after_a_skip() -> None:
    layer, _ = make_update()
    seen: list[object] = []

    def loss(batch: Batch, received: object) -> Loss:
        seen.append(received)
        return Loss(value=layer(batch.images.flatten(1)).mean(), metrics={}, handed_on=len(batch.images))

    update = update_of(Phase(name="second", modules=(layer,), loss=loss, receives=True), gradient_accumulation=2)
    _, handed_on = update.run(make_batch(), ["first part", "second part"])
    assert seen == ["first part", "second part"]
    assert handed_on == [4, 4]
    update.run(make_batch())
    assert seen[2:] == [None, None]


def test_weights_are_projected_after_each_update() -> None:
    layer, _ = make_update()

    @torch.no_grad()
    def clip() -> None:
        layer.weight.clamp_(-0.01, 0.01)

    phase = Phase(
        name="only",
        modules=(layer,),
        loss=lambda batch: Loss(value=layer(batch.images.flatten(1)).square().mean(), metrics={}),
        project=clip,
    )
    update = update_of(phase)
    update.run(make_batch())
    assert layer.weight.abs().max() <= 0.01


def test_recorded_modules_are_not_frozen() -> None:
    trained, recorded, other = nn.Linear(1, 1), nn.Linear(1, 1), nn.Linear(1, 1)
    phase = Phase(name="only", modules=(trained,), loss=lambda batch: Loss(value=trained.weight.sum(), metrics={}))
    recording = dataclasses.replace(phase, records=(recorded,))
    update = update_of(recording)
    frozen = FrozenOutside([update], [*trained.parameters(), *recorded.parameters(), *other.parameters()])
    frozen.enter(update)
    assert [module.weight.requires_grad for module in (trained, recorded, other)] == [True, True, False]


@pytest.mark.parametrize("is_fused", [False, True])
def test_a_state_that_lost_its_strides_in_a_file_goes_on_as_before(is_fused: bool) -> None:
    """Weights of convolutions lie in channels_last; a fused optimizer pairs them with its moments by their places."""

    def make() -> tuple[nn.Module, PhaseUpdate]:
        torch.manual_seed(0)
        layer = nn.Conv2d(3, 5, 2).to(memory_format=torch.channels_last)

        def loss(batch: Batch) -> Loss:
            value = layer(batch.images.expand(-1, 3, -1, -1)).square().mean()
            return Loss(value=value, metrics={"square_nats": value})

        update = update_of(
            Phase(name="only", modules=(layer,), loss=loss), functools.partial(torch.optim.Adam, lr=0.1, fused=is_fused)
        )
        return layer, update

    (layer, update), (resumed, other) = make(), make()
    for _ in range(2):
        update.run(make_batch())
    state = copy.deepcopy(update.state_dict())
    for moments in state["optimizer"]["state"].values():
        moments.update({name: value.contiguous() for name, value in moments.items()})
    resumed.load_state_dict(layer.state_dict())
    other.load_state_dict(state)
    for part in (update, other):
        part.run(make_batch())
    assert all(torch.equal(ours, theirs) for ours, theirs in zip(layer.parameters(), resumed.parameters(), strict=True))


def test_float16_goes_on_after_a_loss_that_was_not_finite() -> None:
    """The scaler permits one unscale_ between two updates."""
    layer, update = make_update(precision="float16", max_gradient_norm=1.0)
    bad = Batch(images=torch.full((8, 1, 2, 2), math.inf), labels=torch.full((8,), -1))
    for _ in range(20):  # until nothing overflows
        update.run(make_batch())
    before = layer.weight.detach().clone()
    with pytest.raises(NonFiniteError, match="loss"):
        update.run(bad)
    assert torch.equal(layer.weight, before)
    update.run(make_batch())
    assert not torch.equal(layer.weight, before)


def test_a_gradient_that_is_never_finite_is_noticed_in_float16() -> None:
    """The scaler halves its scale at each update, and would do so for ever."""
    layer = nn.Linear(4, 1)
    zeros = torch.zeros(1)

    def loss(batch: Batch) -> Loss:
        return Loss(value=(zeros * layer.weight.sum()).sqrt().sum(), metrics={})

    update = update_of(Phase(name="only", modules=(layer,), loss=loss), precision="float16", max_gradient_norm=None)

    def run_for_ever() -> None:
        while True:
            update.run(make_batch())

    with pytest.raises(NonFiniteError, match="gradient not finite in float16"):
        run_for_ever()
