"""Exponential average of the weights, evaluated and sampled instead of the trained ones."""

import copy
from collections.abc import Mapping

import torch
from torch import Tensor, nn

from genlab.errors import CheckpointError
from genlab.models.base import Model
from genlab.training.compatibility import require_compatible


class WeightAverage:
    """A copy of the model with exponentially averaged parameters and the model's own buffers.

    The decay warms up as (1 + step) / (10 + step): a long average would otherwise remember the initial weights
    for its whole horizon. A run of fewer than 9 decay / (1 - decay) steps ends before that, and a larger decay has the
    same effect. Buffers have no mean (counters, codebooks) or are one already (running statistics). They are shared and
    not copied, in memory and in checkpoints: a copy is out of date until somebody thinks of it.
    """

    def __init__(self, model: Model, *, decay: float) -> None:
        self.decay = decay
        self.model = copy.deepcopy(model).requires_grad_(False)
        self._source = model
        for averaged, trained in zip(self.model.modules(), model.modules(), strict=True):
            averaged._buffers = trained._buffers  # the mapping itself, so that a buffer set anew is the same in both
        self.collect()

    def collect(self) -> None:
        """Find the parameters; call it again after sharding, which replaces them."""
        self._averaged: list[Tensor] = list(self.model.parameters())
        self._trained: list[Tensor] = list(self._source.parameters())

    @torch.no_grad()
    def update(self, step: int) -> None:
        """Update the average after the update of ``step`` (counted from 0)."""
        decay = min(self.decay, warm_up(step))
        torch._foreach_lerp_(self._averaged, self._trained, 1 - decay)

    def state_dict(self) -> dict[str, Tensor]:
        """Return the averaged parameters only; the buffers are those of the trained model's state."""
        state, names = self.model.state_dict(), parameter_names(self.model)
        return {name: value for name, value in state.items() if name in names}

    def load_state_dict(self, state: Mapping[str, Tensor]) -> None:
        """Load the parameters of a state that has them all; its buffers, if any, are ignored."""
        names = parameter_names(self.model)
        self.model.load_state_dict({name: value for name, value in state.items() if name in names}, strict=False)


def warm_up(step: int) -> float:
    """Return the largest decay of the update of ``step`` (counted from 0)."""
    return (1 + step) / (10 + step)


def parameter_names(model: nn.Module) -> set[str]:
    """Return the names of the parameters in the model's state, including all names of a shared one."""
    return {name for name, _ in model.named_parameters(remove_duplicate=False)}


def averaged_weights(state: Mapping[str, Tensor], average: Mapping[str, Tensor], model: nn.Module) -> dict[str, Tensor]:
    """Return the state of the averaged model: the state of the trained model with the averaged parameters.

    Args:
        state: Of the trained model.
        average: A state from :meth:`WeightAverage.state_dict`.
        model: Of the same kind.

    Raises:
        CheckpointError: A parameter is missing, or either is of another model.
    """
    names = parameter_names(model)
    missing = next((name for name in sorted(names) if name not in average), None)
    if missing is not None:
        raise CheckpointError(f"the checkpoint's averaged weights lack {missing}")
    weights = {**state, **{name: average[name] for name in names}}
    require_compatible(weights, model)
    return weights
