"""Mistakes in the phases and losses of a model of one's own are one line each."""

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import nn

from genlab.errors import ConfigurationError
from genlab.training.phases import phases_of, require_loss, warnings_of_phases
from genlab.types import Loss
from tests.training.conftest import TinyGAN


def with_phases(change: Callable[[Any], Any]) -> TinyGAN:
    model = TinyGAN()
    phases = change(model.phases())
    model.phases = lambda: phases  # type: ignore[method-assign]
    return model


@pytest.mark.parametrize(
    ("change", "told"),
    [
        (lambda phases: phases[0], "TinyGAN.phases must return a tuple of one phase or more, got a Phase"),
        (lambda phases: (), "got a tuple"),
        (lambda phases: [*phases], "got a list"),
        (
            lambda phases: (replace(phases[0], modules=phases[0].modules[0]), phases[1]),
            "the modules of phase .* of TinyGAN must be a tuple, got a ",
        ),
        (
            lambda phases: (phases[0], replace(phases[1], name=phases[0].name)),
            "TinyGAN has two phases named .*; their optimisers are kept by name",
        ),
    ],
)
def test_phases_that_cannot_be_trained_are_refused(change: Callable[[Any], Any], told: str) -> None:
    with pytest.raises(ConfigurationError, match=told):
        phases_of(with_phases(change))


def test_parameters_of_two_phases_and_of_none_are_warned_of() -> None:
    assert warnings_of_phases(TinyGAN()) == []
    (shared,) = warnings_of_phases(
        with_phases(lambda phases: (phases[0], replace(phases[1], modules=(*phases[1].modules, *phases[0].modules))))
    )
    assert " both train " in shared
    (missing,) = warnings_of_phases(with_phases(lambda phases: phases[:1]))
    assert missing.startswith("no phase trains generator")


@pytest.mark.parametrize(
    "held",
    [
        [nn.Linear(2, 2)],
        {"first": (nn.Linear(2, 2),)},
        torch.zeros(3, requires_grad=True),
        [torch.zeros(3, requires_grad=True)],
    ],
)
def test_weights_that_torch_does_not_register_are_warned_of(held: object) -> None:
    model = TinyGAN()
    model.generator.extra = held  # type: ignore[assignment]
    (line,) = warnings_of_phases(model)
    assert line.startswith("the weights in generator.extra are not the model's")


def test_parts_of_the_model_and_frozen_networks_may_be_held_in_lists() -> None:
    model = TinyGAN()
    model.parts = [model.generator, *model.discriminator.parameters()]  # type: ignore[assignment]
    model.teacher = [nn.Linear(2, 2).requires_grad_(False)]  # type: ignore[assignment]
    assert warnings_of_phases(model) == []


@pytest.mark.parametrize(
    ("make_loss", "told"),
    [
        (lambda: torch.zeros(()), r"the loss of phase .* must return a genlab\.types\.Loss, got a Tensor"),
        (lambda: Loss(value=torch.zeros(3), metrics={}), r"value in the loss of .* got a Tensor of shape \(3,\)"),
        (lambda: Loss(value=torch.zeros(()), metrics={"x": 1.0}), "x in the loss of phase .* got a float"),  # type: ignore[dict-item]
    ],
)
def test_what_is_no_loss_of_scalars_is_refused(make_loss: Callable[[], object], told: str) -> None:
    loss = make_loss()
    with pytest.raises(ConfigurationError, match=told):
        require_loss(loss, TinyGAN().phases()[0])
