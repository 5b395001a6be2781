"""One phase's update: accumulate gradients, check them, clip them, step.

On the CPU a host read costs nothing, so a bad step is reported at once. On CUDA the host would have to wait for the
device: there a flag on the device withholds a bad step (:class:`genlab.training.device_step.DeviceStep`), and it is
reported when somebody asks, with the next log line, validation or save.
"""

import math
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from functools import partial
from typing import Any

import torch
from torch import Tensor
from torch.optim import Optimizer
from torch.optim.lr_scheduler import LRScheduler

from genlab.errors import ConfigurationError, NonFiniteError
from genlab.numerics import float32_products
from genlab.parallel.collectives import mean_over_processes, num_processes, one_batch
from genlab.parallel.processes import average
from genlab.parallel.sharding import is_share, share_like, total_norm
from genlab.training.capture import CapturedWork, StepCapture
from genlab.training.device_step import DeviceStep, can_stay_on_device, makes_no_state
from genlab.training.phases import require_loss
from genlab.training.precision import resolved
from genlab.training.schedules import change_of_rate, moves_momentum
from genlab.training.settings import TrainerSettings
from genlab.types import Batch, Loss, Phase

OptimizerFactory = Callable[[Iterable[torch.nn.Parameter]], Optimizer]
ScheduleFactory = Callable[..., LRScheduler]

_AUTOCAST_TYPES = {"bfloat16": torch.bfloat16, "float16": torch.float16}


def split_batch(batch: Batch, parts: int) -> Iterator[Batch]:
    """Yield equal consecutive parts of a batch, as views."""
    if parts == 1:
        yield batch
        return
    for images, labels in zip(batch.images.chunk(parts), batch.labels.chunk(parts), strict=True):
        yield Batch(images=images, labels=labels)


class PhaseUpdate:
    """The optimiser, schedule and gradient scaler of one phase.

    Args:
        phase: Of the model.
        optimizer: A factory that takes the parameters.
        schedule: A factory that takes an optimiser and ``num_steps``.
        settings: Of the trainer.
        device: Device of the model.
        modules: Those whose buffers a forward pass may change, such as running means; a skipped update restores them.

    Raises:
        ValueError: The phase lists a parameter twice.
    """

    def __init__(
        self,
        phase: Phase,
        *,
        optimizer: OptimizerFactory,
        schedule: ScheduleFactory,
        settings: TrainerSettings,
        device: torch.device,
        modules: Iterable[torch.nn.Module] = (),
    ) -> None:
        self.phase = phase
        self.parameters = [parameter for module in phase.modules for parameter in module.parameters()]
        if len({id(parameter) for parameter in self.parameters}) != len(self.parameters):
            raise ValueError(f"phase {phase.name} lists a parameter twice")
        self.optimizer = optimizer(self.parameters)
        self.schedule = schedule(self.optimizer, num_steps=max(settings.num_steps, 1) * phase.repeats)
        self.change_of_rate: tuple[float, float] | None = None
        """Learning rate of the state that was loaded, and the one that took its place; None where it stayed."""
        self._settings = settings
        self._device = device
        is_skipping = settings.on_non_finite == "skip"
        # By name, because a model may set a buffer anew.
        self._buffers = [(each._buffers, name) for each in modules for name in each._buffers if is_skipping]
        self._precision = resolved(settings.precision, device)
        self._scaler = torch.amp.GradScaler(device.type, enabled=self._precision == "float16")
        is_cuda = device.type == "cuda"
        self._is_examined = False
        self._arithmetic = partial(float32_products, tf32=settings.tf32) if is_cuda else nullcontext
        self._num_bad = torch.zeros((), device=device)
        self._device_step = DeviceStep(self.optimizer, device) if is_cuda and self.can_stay_on_device else None
        self._work = self._update

    @property
    def can_stay_on_device(self) -> bool:
        """True if an update needs no read on the host."""
        # A scaled gradient that overflows is the scaler's to notice, and it asks on the host. Shares of weights do not
        # mix with the plain tensors of a rate and a flag.
        is_sharded = self._settings.sharding != "none"
        return can_stay_on_device(self.optimizer) and not self._scaler.is_enabled() and not is_sharded

    def capture(self, capture: StepCapture, source: CapturedWork | None) -> CapturedWork | None:
        """Capture the update after a few steps; if impossible, log the reason and return None.

        Args:
            capture: Shared with the other phases.
            source: The phase before.
        """
        name = f"phase {self.phase.name}"
        if not self.can_stay_on_device:
            capture.refuse(
                name,
                f"the host decides in each step of {type(self.optimizer).__name__} with precision "
                f"{self._precision} and sharding {self._settings.sharding}",
            )
            return None
        if moves_momentum(self.schedule):
            capture.refuse(name, f"{type(self.schedule).__name__} changes the momentum, which a recording keeps")
            return None
        self._device_step = DeviceStep(self.optimizer, self._device)
        self._work = work = CapturedWork(
            self._update, name=self.phase.name, capture=capture, receives=self.phase.receives, source=source
        )
        return work

    def run(self, batch: Batch, received: Sequence[object] = ()) -> tuple[dict[str, Tensor], list[object]]:
        """Update the parameters of this phase once.

        Args:
            batch: Images of the update.
            received: Objects that the previous phase handed on, one per gradient-accumulation part.

        Returns:
            The phase's metrics, averaged over the batch, and ``gradient_norm`` before clipping, all on the device; and
            the objects that it hands on.

        Raises:
            NonFiniteError: The loss or the gradient norm is not finite; nothing was updated.
        """
        self._require_finite_everywhere(batch)
        if self._device_step is not None:
            self._device_step.load_rates()
        scale = self._scaler.get_scale()
        result = self._work(batch, received)
        if self._scaler.get_scale() >= scale:  # a lowered scale means a skipped step
            self.schedule.step()
        elif scale <= 1:
            raise NonFiniteError(f"phase {self.phase.name}: gradient not finite in float16 without a scale of the loss")
        return result

    def _update(self, batch: Batch, received: Sequence[object]) -> tuple[dict[str, Tensor], list[object]]:
        """Do the part of an update that runs on the device."""
        kept = self._buffers_to_keep()
        try:
            value, metrics, handed_on = self._collect_gradients(batch, received)
            metrics["gradient_norm"], is_bad = self._step(value)
        except NonFiniteError:
            for buffers, name, before in kept:
                buffers[name].copy_(before)
            raise
        finally:
            for parameter in self.parameters:  # Optimizer.zero_grad asks the profiler and the compiler first
                parameter.grad = None
        if is_bad is not None:
            for buffers, name, before in kept:
                buffers[name].copy_(torch.where(is_bad, before, buffers[name]))
        if self.phase.project is not None:
            self.phase.project()
        return metrics, handed_on

    def _collect_gradients(
        self, batch: Batch, received: Sequence[object]
    ) -> tuple[Tensor, dict[str, Tensor], list[object]]:
        """Compute the gradients; return the loss of the batch, its metrics and the objects that it hands on."""
        parts = self._settings.gradient_accumulation
        sums: dict[str, Tensor] = {}
        values: list[Tensor] = []
        handed_on: list[object] = []
        for index, part in enumerate(split_batch(batch, parts)):
            with one_batch(), self._arithmetic():
                loss = self._loss(part, received[index] if received else None)
                if not self._is_examined:
                    require_loss(loss, self.phase)
                    self._is_examined = True
                share = loss.value / parts if parts > 1 else loss.value
                torch.autograd.backward(self._scaler.scale(share))
            handed_on.append(loss.handed_on)
            values.append(loss.value.detach().float())
            for name, metric in loss.metrics.items():
                metric = metric.detach().float() / parts if parts > 1 else metric.detach().float()
                sums[name] = sums[name] + metric if name in sums else metric
        value = torch.stack(values).mean() if parts > 1 else values[0]
        if num_processes() > 1:
            value = self._average_over_processes(value, sums)
        return value, sums, handed_on

    def _buffers_to_keep(self) -> list[tuple[dict[str, Any], str, Tensor]]:
        named = [(buffers, name, buffers[name]) for buffers, name in self._buffers]
        return [(buffers, name, buffer.clone()) for buffers, name, buffer in named if buffer is not None]

    def _loss(self, part: Batch, received: object) -> Loss:
        try:
            with self._autocast():
                return self.phase.loss(part, received) if self.phase.receives else self.phase.loss(part)
        except (IndexError, RuntimeError, ValueError) as error:
            if "more than 1 value per channel" in str(error):  # batch normalisation of vectors
                raise ConfigurationError(
                    f"trainer.batch_size={self._settings.batch_size} leaves phase {self.phase.name} one image at a "
                    "time, and batch normalisation needs two: use larger batches, or fewer parts of them"
                ) from error
            # The level or the class that a NaN is converted to lies outside every table. A recording cannot look.
            is_recorded = part.images.is_cuda and torch.cuda.is_current_stream_capturing()
            if is_recorded or bool(torch.isfinite(part.images).all()):
                raise
            raise NonFiniteError(f"phase {self.phase.name}: an image of the batch is not finite") from error

    def _require_finite_everywhere(self, batch: Batch) -> None:
        """Skip a batch with a bad image on all ranks, because the others would wait for a rank that skips alone."""
        if num_processes() == 1 or self._settings.on_non_finite == "stop":
            return
        with one_batch():
            is_bad = batch.images.isfinite().all().logical_not().long()
            if bool(mean_over_processes(is_bad) > 0):
                raise NonFiniteError(f"phase {self.phase.name}: an image of the batch is not finite")

    def _average_over_processes(self, value: Tensor, metrics: dict[str, Tensor]) -> Tensor:
        """Average gradients, the loss and its metrics over processes, in one message; the loss is returned.

        A parameter that some process has no gradient of counts as zero there, so that all send the same. Frozen ones
        keep none, as in a single process, and of a sharded one the average is there already.
        """
        own = [parameter for parameter in self.parameters if parameter.requires_grad and not is_share(parameter)]
        gradients = [torch.zeros_like(each) if each.grad is None else each.grad for each in own]
        scalars = torch.stack([value, *metrics.values()])
        average([scalars, *gradients])
        for parameter, gradient in zip(own, gradients, strict=True):
            parameter.grad = gradient
        metrics.update(zip(metrics, scalars[1:].unbind(), strict=True))
        return scalars[0]

    def _step(self, value: Tensor) -> tuple[Tensor, Tensor | None]:
        """Check the gradients, clip them and step.

        Returns:
            Their norm before clipping; and a flag of a step withheld on the device, None where the host has looked.

        Raises:
            NonFiniteError: The host has looked, and the loss or the norm is not finite.
        """
        if self._scaler.is_enabled() and not math.isfinite(value.item()):  # before unscale_, allowed once an update
            raise NonFiniteError(f"phase {self.phase.name}: loss {value.item():.6g}")
        self._scaler.unscale_(self.optimizer)
        norm = total_norm([p.grad for p in self.parameters if p.grad is not None])
        total = value + norm
        # An optimiser makes its state in its first step, before which there is nothing to go back to.
        has_state = bool(self.optimizer.state) or makes_no_state(self.optimizer)
        is_flagged = self._device_step is not None and has_state
        # Under float16 the scaler skips overflowing gradients by itself and lowers its scale.
        if not is_flagged and not self._scaler.is_enabled() and not math.isfinite(total.item()):
            raise NonFiniteError(f"phase {self.phase.name}: loss {value.item():.6g}, gradient norm {norm.item():.6g}")
        if self._settings.max_gradient_norm is not None:
            torch.nn.utils.clip_grads_with_norm_(self.parameters, self._settings.max_gradient_norm, norm, foreach=True)
        if self._device_step is None:
            self._scaler.step(self.optimizer)
            self._scaler.update()
            return norm.detach(), None
        is_bad = torch.isfinite(total).logical_not()
        self._num_bad += is_bad
        self._device_step.step(is_bad)
        return norm.detach(), is_bad if is_flagged else None

    def take_num_bad(self) -> int:
        """Return the number of updates withheld on the device since the last call; it synchronises with the device."""
        if self._device_step is None:
            return 0
        num_bad = int(self._num_bad.item())
        self._num_bad.zero_()
        return num_bad

    def _autocast(self) -> AbstractContextManager[None]:
        if self._precision == "float32":
            return nullcontext()
        return torch.autocast(self._device.type, dtype=_AUTOCAST_TYPES[self._precision])

    def state_dict(self) -> dict[str, Any]:
        return {
            "class": self._kind(),
            "optimizer": self.optimizer.state_dict(),
            "schedule": self.schedule.state_dict(),
            "scaler": self._scaler.state_dict(),
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Load a saved state.

        Raises:
            ValueError: It is that of another optimiser, which torch itself would not notice.
        """
        kind = state["class"]
        if kind != self._kind():
            raise ValueError(f"optimizer.{self.phase.name} was {kind} and is {self._kind()}")
        self.optimizer.load_state_dict(state["optimizer"])
        for parameter, kept in self.optimizer.state.items():
            for name, tensor in kept.items():
                if isinstance(tensor, Tensor) and tensor.dim() > 0:
                    kept[name] = _laid_out_as(share_like(tensor, parameter), parameter)
        if self._device_step is not None:
            self._device_step.load_state()
        self.schedule.load_state_dict(state["schedule"])
        self.change_of_rate = change_of_rate(self.schedule)
        if state["scaler"]:  # empty if the run had another precision
            self._scaler.load_state_dict(state["scaler"])

    def _kind(self) -> str:
        return type(self.optimizer).__qualname__


class FrozenOutside:
    """Switch that enables gradients for one phase's parameters and disables them for all others.

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


def _laid_out_as(tensor: Tensor, parameter: Tensor) -> Tensor:
    """Return a tensor with the strides of its parameter: fused optimizers walk both in the order of memory.

    Files keep no strides, so what was saved of a parameter in channels_last comes back in another order.
    """
    if is_share(tensor) or tensor.shape != parameter.shape or tensor.stride() == parameter.stride():
        return tensor
    return torch.empty_like(parameter, dtype=tensor.dtype, memory_format=torch.preserve_format).copy_(tensor)
