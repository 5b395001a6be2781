"""An optimiser step without a read on the host: the learning rate and the flag that skips the step are tensors."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor
from torch.optim import SGD, Optimizer


def can_stay_on_device(optimizer: Optimizer) -> bool:
    """Return True if the optimiser takes a learning rate from the device; SGD does in its fused form."""
    return all("capturable" in group for group in optimizer.param_groups) or type(optimizer) is SGD


def makes_no_state(optimizer: Optimizer) -> bool:
    """Return True if the optimiser keeps nothing from one step to the next."""
    return type(optimizer) is SGD and all(group["momentum"] == 0 for group in optimizer.param_groups)


class DeviceStep:
    """Optimiser step that can be withheld without reading a value on the host.

    The optimiser's own settings change for the time of a step only: schedules and checkpoints see numbers, and a run
    that was saved on one kind of device resumes on another.

    Args:
        optimizer: One that :func:`can_stay_on_device`.
        device: Of its parameters.
    """

    def __init__(self, optimizer: Optimizer, device: torch.device) -> None:
        self._optimizer = optimizer
        self._device = device
        self._given = [float("nan")] * len(optimizer.param_groups)
        self._rates = [torch.zeros((), device=device) for _ in optimizer.param_groups]

    def load_rates(self) -> None:
        """Copy the learning rates to the device if a schedule has changed them."""
        for index, group in enumerate(self._optimizer.param_groups):
            if self._given[index] != group["lr"]:
                self._given[index] = group["lr"]
                self._rates[index].fill_(group["lr"])

    def load_state(self) -> None:
        """Copy step counts to the device, after a checkpoint of another device."""
        for state in self._optimizer.state.values():
            for name, value in state.items():
                if isinstance(value, Tensor) and value.dim() == 0:
                    state[name] = value.to(self._device)

    def step(self, is_bad: Tensor) -> None:
        """Step the optimiser; if the flag is set, leave parameters and state unchanged.

        Args:
            is_bad: A tensor of bool without dimensions.
        """
        with self._settings_of_device():
            if all(group.get("fused") for group in self._optimizer.param_groups):
                self._optimizer.found_inf = is_bad.float()  # type: ignore[attr-defined]
                self._optimizer.step()
                return
            changed = self._changed()
            before = [tensor.clone() for tensor in changed]
            self._optimizer.step()
            with torch.no_grad():
                for tensor, value in zip(changed, before, strict=True):
                    tensor.copy_(torch.where(is_bad, value, tensor))

    @contextmanager
    def _settings_of_device(self) -> Iterator[None]:
        kept: list[dict[str, Any]] = []
        for group, rate in zip(self._optimizer.param_groups, self._rates, strict=True):
            settings: dict[str, Any] = {"lr": rate}
            if "capturable" in group and self._device.type == "cuda":
                settings["capturable"] = True
            if type(self._optimizer) is SGD:
                settings |= {"fused": True, "foreach": False}
            kept.append({name: group[name] for name in settings})
            group.update(settings)
        try:
            yield
        finally:
            for group, settings in zip(self._optimizer.param_groups, kept, strict=True):
                group.update(settings)

    def _changed(self) -> list[Tensor]:
        """Return the tensors that a step changes: the parameters with a gradient, and the optimiser's state."""
        parameters = [p for group in self._optimizer.param_groups for p in group["params"] if p.grad is not None]
        states = [value for state in self._optimizer.state.values() for value in state.values()]
        return [*parameters, *(value for value in states if isinstance(value, Tensor))]
