"""One phase's update: accumulate gradients, check them, clip them, step.

The check costs no host read where the optimiser takes a ``found_inf`` flag (torch's fused ones do, on CUDA); on the
CPU a read costs nothing, so a bad step is reported at once. Where bad steps are to be skipped it is reported at once
everywhere, for what the forward pass has changed must be undone before the next one.
"""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext

import torch
from torch import Tensor
from torch.optim import Optimizer
from torch.optim.lr_scheduler import LRScheduler

from genlab.collectives import mean_over_processes, num_processes, one_batch
from genlab.errors import NonFiniteError
from genlab.training.processes import average
from genlab.training.settings import TrainerSettings
from genlab.training.sharding import is_share, share_like, total_norm
from genlab.types import Batch, Loss, Phase

OptimizerFactory = Callable[[Iterable[torch.nn.Parameter]], Optimizer]
ScheduleFactory = Callable[..., LRScheduler]

_AUTOCAST_TYPES = {"bfloat16": torch.bfloat16, "float16": torch.float16}


def split_batch(batch: Batch, parts: int) -> Iterator[Batch]:
    """Equal consecutive parts of a batch, as views."""
    if parts == 1:
        yield batch
        return
    for images, labels in zip(batch.images.chunk(parts), batch.labels.chunk(parts), strict=True):
        yield Batch(images=images, labels=labels)


class PhaseUpdate:
    """The optimiser, schedule and gradient scaler of one phase."""

    def __init__(
        self,
        phase: Phase,
        *,
        optimizer: OptimizerFactory,
        schedule: ScheduleFactory,
        settings: TrainerSettings,
        device: torch.device,
    ) -> None:
        self.phase = phase
        self.parameters = [parameter for module in phase.modules for parameter in module.parameters()]
        if len({id(parameter) for parameter in self.parameters}) != len(self.parameters):
            raise ValueError(f"phase {phase.name} lists a parameter twice")
        self.optimizer = optimizer(self.parameters)
        self.schedule = schedule(self.optimizer, num_steps=max(settings.num_steps, 1) * phase.repeats)
        self._settings = settings
        self._device = device
        self._scaler = torch.amp.GradScaler(device.type, enabled=settings.precision == "float16")
        self._flags_on_device = (
            device.type == "cuda" and bool(self.optimizer.defaults.get("fused")) and settings.on_non_finite == "stop"
        )
        self._num_bad = torch.zeros((), device=device)

    def run(self, batch: Batch, received: Sequence[object] = ()) -> tuple[dict[str, Tensor], list[object]]:
        """One update of this phase's parameters.

        Args:
            batch: Images of the update.
            received: What the phase before handed on, one object per gradient-accumulation part.

        Returns:
            The phase's metrics, averaged over the batch, and ``gradient_norm`` before clipping, all on the device; and
            what it hands on.

        Raises:
            NonFiniteError: The loss or the gradient norm is not finite; nothing was updated.
        """
        self._require_finite_everywhere(batch)
        parts = self._settings.gradient_accumulation
        sums: dict[str, Tensor] = {}
        value = torch.zeros((), device=self._device)
        handed_on: list[object] = []
        for index, part in enumerate(split_batch(batch, parts)):
            with one_batch():
                loss = self._loss(part, received[index] if received else None)
                share = loss.value / parts if parts > 1 else loss.value
                torch.autograd.backward(self._scaler.scale(share))
            handed_on.append(loss.handed_on)
            value = value + loss.value.detach()
            for name, metric in loss.metrics.items():
                metric = metric.detach() / parts if parts > 1 else metric.detach()
                sums[name] = sums[name] + metric if name in sums else metric
        if num_processes() > 1:
            value = self._average_over_processes(value, sums)
        sums["gradient_norm"] = self._step(value)
        self.optimizer.zero_grad(set_to_none=True)
        if self.phase.project is not None:
            self.phase.project()
        return sums, handed_on

    def _loss(self, part: Batch, received: object) -> Loss:
        try:
            with self._autocast():
                return self.phase.loss(part, received) if self.phase.receives else self.phase.loss(part)
        except (IndexError, RuntimeError, ValueError) as error:
            # The level or the class that a NaN is converted to lies outside every table.
            if bool(torch.isfinite(part.images).all()):
                raise
            self.optimizer.zero_grad(set_to_none=True)  # of the parts before
            raise NonFiniteError(f"phase {self.phase.name}: an image of the batch is not finite") from error

    def _require_finite_everywhere(self, batch: Batch) -> None:
        """Skip a batch with a bad image in all processes at once: one that left alone would be waited for."""
        if num_processes() == 1 or self._settings.on_non_finite == "stop":
            return
        with one_batch():
            is_bad = batch.images.isfinite().all().logical_not().long()
            if bool(mean_over_processes(is_bad) > 0):
                raise NonFiniteError(f"phase {self.phase.name}: an image of the batch is not finite")

    def _average_over_processes(self, value: Tensor, metrics: dict[str, Tensor]) -> Tensor:
        """Average gradients, the loss and its metrics over processes, in one message; the loss is returned.

        A parameter that some process has no gradient of counts as zero there, so that all send the same. Of a sharded
        one the average is there already.
        """
        for parameter in self.parameters:
            if parameter.grad is None and not is_share(parameter):
                parameter.grad = torch.zeros_like(parameter)
        gradients = [parameter.grad for parameter in self.parameters if parameter.grad is not None]
        scalars = torch.stack([value, *metrics.values()])
        average([scalars, *(gradient for gradient in gradients if not is_share(gradient))])
        metrics.update(zip(metrics, scalars[1:].unbind(), strict=True))
        return scalars[0]

    def _step(self, value: Tensor) -> Tensor:
        self._scaler.unscale_(self.optimizer)
        norm = total_norm([p.grad for p in self.parameters if p.grad is not None])
        # Under float16 the scaler skips overflowing gradients by itself and lowers its scale: only the loss must hold.
        suspect = value if self._scaler.is_enabled() else value + norm
        if self._flags_on_device:
            bad = torch.logical_not(torch.isfinite(suspect)).float()
            self._num_bad += bad
            self.optimizer.found_inf = bad  # type: ignore[attr-defined]
        elif not bool(torch.isfinite(suspect)):
            self.optimizer.zero_grad(set_to_none=True)
            raise NonFiniteError(self._describe(value, norm))
        if self._settings.max_gradient_norm is not None:
            torch.nn.utils.clip_grads_with_norm_(self.parameters, self._settings.max_gradient_norm, norm, foreach=True)
        scale = self._scaler.get_scale() if self._scaler.is_enabled() else 1.0
        self._scaler.step(self.optimizer)
        self._scaler.update()
        if not self._scaler.is_enabled() or self._scaler.get_scale() >= scale:  # a lowered scale means a skipped step
            self.schedule.step()
        return norm.detach()

    def take_num_bad(self) -> int:
        """Updates withheld on the device since the last call; a host read, so call it only when metrics are written."""
        if not self._flags_on_device:
            return 0
        num_bad = int(self._num_bad.item())
        self._num_bad.zero_()
        return num_bad

    def _describe(self, value: Tensor, norm: Tensor) -> str:
        return f"phase {self.phase.name}: loss {value.item():.6g}, gradient norm {norm.item():.6g}"

    def _autocast(self) -> AbstractContextManager[None]:
        if self._settings.precision == "float32":
            return nullcontext()
        return torch.autocast(self._device.type, dtype=_AUTOCAST_TYPES[self._settings.precision])

    def state_dict(self) -> dict[str, object]:
        return {
            "kind": {"optimizer": self._kind()},
            "optimizer": self.optimizer.state_dict(),
            "schedule": self.schedule.state_dict(),
            "scaler": self._scaler.state_dict(),
        }

    def load_state_dict(self, state: Mapping[str, dict[str, object]]) -> None:
        """Take over a saved state.

        Raises:
            ValueError: It is that of another optimiser, or of parameters of other shapes: torch itself would notice
                neither.
        """
        kind = state.get("kind", {"optimizer": self._kind()})["optimizer"]
        if kind != self._kind():
            raise ValueError(f"optimizer.{self.phase.name} was {kind} and is {self._kind()}")
        self.optimizer.load_state_dict(state["optimizer"])
        for parameter, kept in self.optimizer.state.items():
            for name, tensor in kept.items():
                if isinstance(tensor, Tensor) and tensor.dim() > 0 and tensor.shape != parameter.shape:
                    raise ValueError(
                        f"optimiser state {name} of phase {self.phase.name} has shape {tuple(tensor.shape)}, "
                        f"its parameter {tuple(parameter.shape)}"
                    )
                if isinstance(tensor, Tensor) and tensor.dim() > 0:
                    kept[name] = share_like(tensor, parameter)
        self.schedule.load_state_dict(state["schedule"])
        self._scaler.load_state_dict(state["scaler"])

    def _kind(self) -> str:
        return type(self.optimizer).__qualname__


class FrozenOutside:
    """Switches gradients on for one phase's parameters and off for all others of the model.

    A frozen network still passes gradients through, but collects none. With a single phase that trains everything
    there is nothing to switch and nothing is spent.
    """

    def __init__(self, updates: list[PhaseUpdate], all_parameters: Iterable[torch.nn.Parameter]) -> None:
        everything = list(all_parameters)
        self._frozen = {}
        for update in updates:
            trained = {id(parameter) for parameter in update.parameters}
            trained |= {id(parameter) for module in update.phase.records for parameter in module.parameters()}
            self._frozen[update.phase.name] = [p for p in everything if id(p) not in trained and p.requires_grad]

    def enter(self, update: PhaseUpdate) -> None:
        for parameter in self._frozen[update.phase.name]:
            parameter.requires_grad_(False)

    def leave(self, update: PhaseUpdate) -> None:
        for parameter in self._frozen[update.phase.name]:
            parameter.requires_grad_(True)
