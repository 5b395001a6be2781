"""Exponential average of the weights, evaluated and sampled in place of the raw ones."""

import copy
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from genlab.models.base import Model


class WeightAverage:
    """A copy of the model whose parameters follow the trained ones with a decay.

    The decay warms up as (1 + step) / (10 + step): a long average would otherwise remember the initial weights
    for its whole horizon. Buffers are copied, not averaged: counters and codebooks have no mean.
    """

    def __init__(self, model: Model, *, decay: float) -> None:
        self.decay = decay
        self.model = copy.deepcopy(model).requires_grad_(False)
        self._source = model
        self.collect()

    def collect(self) -> None:
        """Find the parameters; once more after sharding has put others in their places."""
        self._averaged: list[Tensor] = list(self.model.parameters())
        self._trained: list[Tensor] = list(self._source.parameters())

    @torch.no_grad()
    def update(self, step: int) -> None:
        """Move towards the trained weights after the update of ``step`` (counted from 0)."""
        decay = min(self.decay, (1 + step) / (10 + step))
        torch._foreach_lerp_(self._averaged, self._trained, 1 - decay)

    @torch.no_grad()
    def up_to_date(self) -> Model:
        """The averaged model with the trained model's present buffers."""
        for averaged, trained in zip(self.model.buffers(), self._source.buffers(), strict=True):
            averaged.copy_(trained)
        return self.model

    def state_dict(self) -> dict[str, Tensor]:
        return self.model.state_dict()

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        self.model.load_state_dict(state)
