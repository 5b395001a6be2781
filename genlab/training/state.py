"""The training state that steps change: the weights, their average, and the optimisers of the phases.

A checkpoint keeps it beside the trainer's own counts, whole, however many processes divide it among them.
"""

import copy
import logging
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from genlab.data.dataset import Dataset
from genlab.errors import CheckpointError
from genlab.graphs import CudaGraphs
from genlab.models.base import Model
from genlab.parallel.collectives import num_processes
from genlab.parallel.processes import broadcast
from genlab.parallel.sharding import is_share, shard, shares_like, whole
from genlab.randomness import derive_seed
from genlab.training.averaging import WeightAverage, averaged_weights
from genlab.training.capture import CapturedWork, StepCapture, step_capture
from genlab.training.compatibility import require_compatible
from genlab.training.optimization import OptimizerFactory, PhaseUpdate, ScheduleFactory
from genlab.training.randomness import seed_default_generators
from genlab.training.settings import TrainerSettings

_log = logging.getLogger(__name__)

_UNITS = {"num_processes": ("process", "processes"), "num_threads": ("thread", "threads")}


class TrainingState:
    """The state of a model in training: its weights, their average, and an update for each phase.

    Args:
        model: On the device.
        dataset: Source of data-dependent initial values.
        optimizers: Phase name to a factory that takes the parameters.
        schedule: A factory that takes an optimiser and ``num_steps``.
        settings: Averaging, sharding and updates.
        device: Device of the model.
        seed: Of the run.
    """

    def __init__(
        self,
        model: Model,
        *,
        dataset: Dataset,
        optimizers: Mapping[str, OptimizerFactory],
        schedule: ScheduleFactory,
        settings: TrainerSettings,
        device: torch.device,
        seed: int,
    ) -> None:
        self.model = model
        self.initial_weights: Mapping[str, Tensor] = {}
        """Of another training, by name; they take the place of those that a fresh model begins with."""
        self.average = WeightAverage(model, decay=settings.ema_decay) if settings.ema_decay is not None else None
        self.is_sharded = settings.sharding == "fsdp2"
        self._dataset = dataset
        self._settings = settings
        self._device = device
        self._seed = seed
        # The whole model for evaluation and sampling if each process trains a share of the weights.
        self._whole = copy.deepcopy(model) if self.is_sharded else None
        if self.is_sharded:
            self._initialize()  # now, because initial values that depend on data take whole weights
            for each in self._models():
                shard(each, device)
            if self.average is not None:
                self.average.collect()
        self.updates = [
            PhaseUpdate(
                phase,
                optimizer=optimizers[phase.name],
                schedule=schedule,
                settings=settings,
                device=device,
                modules=model.modules(),
            )
            for phase in model.phases()
        ]
        # The order of sums, and so their rounding, depends on these: if they are equal, resuming is bitwise exact.
        self._equal_for = {"num_processes": num_processes()}
        if device.type == "cpu":
            self._equal_for["num_threads"] = torch.get_num_threads()

    def capture(self, graphs: CudaGraphs | None) -> StepCapture | None:
        """Capture the updates after a few steps; return None if they run eagerly.

        Args:
            graphs: The recorder; None leaves it to ``trainer.cuda_graph``.
        """
        if graphs is not None:
            capture: StepCapture | None = StepCapture(graphs, is_required=True)
        else:
            obstacle = "it is shared by several processes" if num_processes() > 1 else None
            if self._settings.makes_own_graphs:
                obstacle = f"trainer.compile_mode={self._settings.compile_mode} makes graphs of its own"
            capture = step_capture(self._settings.cuda_graph, self._device, obstacle=obstacle)
        if capture is not None:
            source: CapturedWork | None = None
            for update in self.updates:
                before, source = source, update.capture(capture, source)
                if source is None and before is not None and update.phase.receives:
                    before.refuse("the phase after, which continues its graph, is not")
        return capture

    def initialize(self) -> None:
        """Set initial values of a new model that depend on data, or that come from another run.

        A sharded model got the first kind before it was divided.
        """
        if not self.is_sharded:
            self._initialize()
        for model in self._models():
            model.load_state_dict(shares_like(self.initial_weights, model), strict=False)

    def _initialize(self) -> None:
        seed_default_generators(derive_seed(self._seed, "initialize"), self._device)
        num_images = min(self._settings.num_initialization_images, self._dataset.num_images("train"))
        self.model.initialize(self._dataset.subset("train", num_images, seed=self._seed, device=self._device))
        if self.average is not None:
            self.average.load_state_dict(self.model.state_dict())

    def broadcast(self) -> None:
        """Broadcast the weights of rank 0, unless they are sharded."""
        for model in self._models():
            broadcast(value for value in (*model.parameters(), *model.buffers()) if not is_share(value))

    def evaluated_model(self) -> Model:
        """Return the whole model in evaluation mode, with averaged weights if there are any."""
        model = self.model if self.average is None else self.average.model
        if self._whole is not None:
            self._whole.load_state_dict(whole(model.state_dict()))
            model = self._whole
        return model.eval()

    def state_dict(self) -> dict[str, Any]:
        """Return whole weights, averages and moments; if they are sharded, all ranks must call this."""
        moments, phases = {}, {}
        for update in self.updates:
            kept, names = update.state_dict(), self._names(update)
            moments[update.phase.name] = {names.get(key, key): v for key, v in kept["optimizer"].pop("state").items()}
            phases[update.phase.name] = kept
        trained = {
            "model": self.model.state_dict(),
            "average": None if self.average is None else self.average.state_dict(),
            "optimizer": moments,
            "phases": phases,
            "equal_for": self._equal_for,
        }
        return whole(trained) if self.is_sharded else trained

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Restore the state from a checkpoint.

        Raises:
            CheckpointError: It is of another model, or disagrees on whether weights are averaged.
            ValueError: It is of other optimisers.
        """
        self.load_weights(state)
        if (state["average"] is None) != (self.average is None):
            raise CheckpointError("the checkpoint and trainer.ema_decay disagree about averaged weights")
        for update in self.updates:
            kept, moments = state["phases"][update.phase.name], state["optimizer"][update.phase.name]
            numbers = {name: number for number, name in self._names(update).items()}
            foreign = next(
                (name for name, _ in self.model.named_parameters() if name in moments.keys() - numbers), None
            )
            if foreign is not None:
                raise ValueError(f"phase {update.phase.name} has optimiser state of {foreign}, which it does not train")
            by_number = {numbers.get(key, key): value for key, value in moments.items()}
            update.load_state_dict({**kept, "optimizer": {**kept["optimizer"], "state": by_number}})
        self._warn_of_inequality(state["equal_for"])

    def _names(self, update: PhaseUpdate) -> dict[int, str]:
        """Return the names of a phase's parameters by their numbers in the state of its optimiser."""
        names = {id(parameter): name for name, parameter in self.model.named_parameters()}
        parameters = (parameter for group in update.optimizer.param_groups for parameter in group["params"])
        return {number: names.get(id(parameter), str(number)) for number, parameter in enumerate(parameters)}

    def load_weights(self, state: Mapping[str, Any]) -> None:
        """Load only the weights and their average, for evaluation.

        Raises:
            CheckpointError: They are of another model.
        """
        require_compatible(state["model"], self.model)
        self.model.load_state_dict(shares_like(state["model"], self.model))
        if self.average is not None and state["average"] is not None:
            averaged = averaged_weights(state["model"], state["average"], self.model)
            self.average.load_state_dict(shares_like(averaged, self.model))

    def _models(self) -> list[Model]:
        """Return the model, and its average if there is one."""
        return [self.model] if self.average is None else [self.model, self.average.model]

    def _warn_of_inequality(self, before: Mapping[str, int]) -> None:
        """Warn of differences from the checkpoint's run that change the order of sums."""
        changes = [
            f"{before[name]} {_UNITS[name][before[name] != 1]}, now {now}"
            for name, now in self._equal_for.items()
            if name in before and before[name] != now
        ]
        if changes:
            _log.warning(
                "the checkpoint is of a run with %s: the results are no longer bitwise equal",
                " and ".join(changes),
            )

    def warn_of_rates(self, step: int) -> None:
        """Warn of jumps of the learning rate, by a schedule that depends on the length of the run.

        Args:
            step: That was restored.
        """
        jumps = {update.phase.name: update.change_of_rate for update in self.updates if update.change_of_rate}
        texts = {name: f"from {before:.4g} to {after:.4g}" for name, (before, after) in jumps.items()}
        are_equal = len(set(texts.values())) == 1
        changes = set(texts.values()) if are_equal else [f"{name} {text}" for name, text in texts.items()]
        if changes:
            _log.warning(
                "the learning rate jumps at step %d (%s), because the schedule now ends at trainer.num_steps=%d; "
                "in a lengthened run schedule=constant never jumps, and schedule=warmup_stable_decay only if its decay "
                "(schedule.decay_fraction) begins before this step",
                step,
                ", ".join(changes),
                self._settings.num_steps,
            )
