"""A training run's configuration as checked plain values: framework keys have a schema, nodes a signature."""

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field, fields, replace
from functools import cached_property
from typing import Any, Literal

import torch
from torch.optim import Optimizer
from torch.optim.lr_scheduler import LRScheduler

from genlab.compiler import keep_out_of_optimizers
from genlab.config.build import TARGET, Bound, bind, parameters_of
from genlab.config.devices import require_device_name
from genlab.config.fields import check_fields
from genlab.config.naming import require_name
from genlab.config.suggestions import nearest, suggestion
from genlab.config.targets import find_target
from genlab.data.dataset import Dataset
from genlab.errors import ConfigurationError
from genlab.metrics.quality_settings import QualitySettings
from genlab.models.base import Model
from genlab.printing import shown
from genlab.training.logger import Logger
from genlab.training.observer import Observer
from genlab.training.settings import TrainerSettings

Node = dict[str, Any]
DEFAULT_PHASE = "default"
_NAME = "name"  # of the folder, and no part of the run
MAX_SEED = 2**63 - 1
_BOUND = {
    "optimizers": "optimizer",
    "settings": "trainer",
    "quality_settings": "quality",
    "bound_dataset": "dataset",
    "bound_model": "model",
    "bound_schedule": "schedule",
    "bound_observers": "observer",
    "loggers": "logger",
}
"""The cached properties of a configuration, in the order in which they are checked, and the node of each."""


@dataclass(frozen=True, kw_only=True)
class RunConfiguration:
    """The checked configuration of `genlab train`.

    Raises:
        ValueError: A framework key is out of its range.
    """

    seed: int
    device: str
    """auto, cpu, cuda, cuda:N or mps."""
    num_threads: int | Literal["auto"] | None
    """Null for torch's default; auto until a run begins, whose folder keeps the choice."""
    resume: str | None
    """A run folder to resume."""
    allow_other_data: bool
    """True to resume with data that are not those of the run."""
    dataset: Node
    optimizer: Node
    """``default`` and optional phase names, each a node; a phase without ``_target_`` is merged over the default."""
    schedule: Node
    trainer: Node
    model: Node
    init_from: str | None = None
    """A run or an export whose compatible weights initialise a new run."""
    quality: Node | None = None
    """Settings of the measures of samples during training; null does not measure them."""
    observer: dict[str, Node | None] = field(default_factory=dict)
    """Further observers of the training by name, each a node; null takes one away."""
    logger: dict[str, Node | None] = field(default_factory=dict)
    """Views of the training beside metrics.jsonl by name, each a node; null takes one away."""
    # Fields without comparison are not keys.
    is_trusted: bool = field(default=True, compare=False)
    """False for a configuration that lies in a run folder."""
    saved_run: Any = field(default=None, compare=False)
    """The :class:`genlab.run.record.SavedRun` that this run resumes, as it was read."""

    def __post_init__(self) -> None:
        if not 0 <= self.seed <= MAX_SEED:
            raise ValueError(f"seed must be between 0 and {MAX_SEED}, got {self.seed}")
        require_device_name(self.device)
        if isinstance(self.num_threads, int) and self.num_threads < 1:
            raise ValueError(f"num_threads must be null, auto or at least 1, got {self.num_threads}")

    @property
    def threads(self) -> int | None:
        """The number of threads; None for torch's default."""
        return None if self.num_threads == "auto" else self.num_threads

    # Bound once, when the configuration is read; what was checked is what is built.

    @cached_property
    def settings(self) -> TrainerSettings:
        """The trainer's node, checked."""
        return check_fields(TrainerSettings, self.trainer, "trainer")

    @cached_property
    def quality_settings(self) -> QualitySettings | None:
        """The node of the samples' quality, checked."""
        return None if self.quality is None else check_fields(QualitySettings, self.quality, "quality")

    @cached_property
    def bound_dataset(self) -> Bound:
        """The data set's node, checked."""
        return bind(self.dataset, "dataset", expects=Dataset, is_trusted=self.is_trusted)

    @cached_property
    def bound_model(self) -> Bound:
        """The model's node, checked; it takes ``spec``."""
        return bind(self.model, "model", run_time=("spec",), expects=Model, is_trusted=self.is_trusted)

    @cached_property
    def bound_schedule(self) -> Callable[..., LRScheduler]:
        """The schedule's factory, checked; it takes an optimiser and ``num_steps``."""
        return bind_schedule(self.schedule, is_trusted=self.is_trusted)

    @cached_property
    def bound_observers(self) -> dict[str, Bound]:
        """The nodes of further observers by key, checked; each takes ``run``."""
        return {
            key: bind(node, key, run_time=("run",), expects=Observer, is_trusted=self.is_trusted)
            for key, node in ((f"observer.{name}", node) for name, node in self.observer.items())
            if node is not None
        }

    @cached_property
    def loggers(self) -> dict[str, Logger]:
        """The loggers by name, built but not opened."""
        return {
            name: bind(node, f"logger.{name}", expects=Logger, is_trusted=self.is_trusted).build()
            for name, node in self.logger.items()
            if node is not None
        }

    @cached_property
    def optimizers(self) -> dict[str, Bound]:
        """The optimisers' nodes by phase, checked; each takes ``params``."""
        return {phase: self._bind_optimizer(phase) for phase in self.optimizer}

    def bound_optimizer(self, phase: str) -> Bound:
        """Return the optimiser of a phase, checked; it takes ``params``."""
        return self.optimizers.get(phase) or self.optimizers.get(DEFAULT_PHASE) or self._bind_optimizer(phase)

    def _bind_optimizer(self, phase: str) -> Bound:
        node = optimizer_node(self.optimizer, phase)
        return bind_optimizer(node, f"optimizer.{phase}", is_trusted=self.is_trusted)

    def as_dict(self) -> dict[str, Any]:
        """Return the keys and values of the configuration."""
        return {entry.name: getattr(self, entry.name) for entry in fields(self) if entry.compare}

    def changed(self, **values: Any) -> "RunConfiguration":
        """Return the configuration with other values; bound nodes that do not change are reused."""
        other = replace(self, **values)
        for name, node in _BOUND.items():
            if name in self.__dict__ and getattr(other, node) == getattr(self, node):
                other.__dict__[name] = self.__dict__[name]
        return other


def read_run_configuration(values: Mapping[str, Any], *, is_trusted: bool = True) -> RunConfiguration:
    """Check a whole configuration before anything is loaded.

    Args:
        values: Plain data.
        is_trusted: False for what lies in a run folder.

    Raises:
        ConfigurationError: A key is unknown or missing, a value has the wrong type or range, or a target is refused.
    """
    require_name(values.get(_NAME))
    groups_without_choice: dict[str, Any] = {"observer": {}, "quality": None}
    values = {**groups_without_choice, **{key: value for key, value in values.items() if key != _NAME}}
    configuration = replace(check_fields(RunConfiguration, values, ""), is_trusted=is_trusted)
    for phase in configuration.optimizer:
        if phase != DEFAULT_PHASE and nearest(phase, [DEFAULT_PHASE]):
            raise ConfigurationError(f"optimizer.{phase} is not a key; did you mean 'optimizer.{DEFAULT_PHASE}'?")
    for name in _BOUND:
        # A run that is only read is neither logged nor observed.
        if is_trusted or name not in ("loggers", "bound_observers"):
            getattr(configuration, name)
    return configuration


def optimizer_node(optimizers: Mapping[str, Any], phase: str) -> Node:
    """Return the node of a phase's optimiser: its keys merged over ``default``, unless it names a target itself.

    Raises:
        ConfigurationError: There is no default, or a node is no mapping.
    """
    default, own = optimizers.get(DEFAULT_PHASE, {}), optimizers.get(phase, {})
    for name, node in ((DEFAULT_PHASE, default), (phase, own)):
        if not isinstance(node, Mapping):
            raise ConfigurationError(f"optimizer.{name} must be a node, got {shown(node, in_quotes=True)}")
    return dict(own) if TARGET in own else {**default, **own}


def require_phases(optimizers: Mapping[str, Any], phases: tuple[str, ...]) -> None:
    """Refuse settings for a phase that the model does not have.

    Raises:
        ConfigurationError: As said.
    """
    for name in optimizers:
        if name != DEFAULT_PHASE and name not in phases:
            tail = suggestion(name, (*phases, DEFAULT_PHASE), kind="its phases, and default for all")
            raise ConfigurationError(f"optimizer.{name}: the model has no phase '{name}'; {tail}")


def bind_optimizer(node: Node, key: str, *, is_trusted: bool = True) -> Bound:
    """Bind an optimiser's node and try it on one parameter, since the ranges of its numbers are known only to torch.

    Raises:
        ConfigurationError: The node does not bind, or torch refuses a number.
    """
    bound = bind(node, key, run_time=("params",), expects=Optimizer, is_trusted=is_trusted)
    if isinstance(bound.target, type):
        keep_out_of_optimizers(bound.target)
    rate = node.get("lr")
    if isinstance(rate, int | float) and not rate > 0:
        raise ConfigurationError(f"{key}.lr must be positive, got {rate}")
    with _torch_refusals_named(key):
        bound.factory()(params=[torch.zeros(1, requires_grad=True)])
    return bound


def bind_schedule(node: Node, *, is_trusted: bool = True) -> Callable[..., LRScheduler]:
    """Return a factory that takes an optimiser and ``num_steps``, which is passed to the schedules that take it.

    Raises:
        ConfigurationError: The node does not bind, or refuses an optimiser of one parameter.
    """
    wants_num_steps = "num_steps" in parameters_of(find_target(node.get(TARGET), "schedule", is_trusted=is_trusted))
    run_time = ("optimizer", "num_steps") if wants_num_steps else ("optimizer",)
    factory = bind(node, "schedule", run_time=run_time, expects=LRScheduler, is_trusted=is_trusted).factory()

    def schedule(optimizer: Optimizer, *, num_steps: int) -> LRScheduler:
        made: LRScheduler = factory(optimizer, num_steps=num_steps) if wants_num_steps else factory(optimizer)
        return made

    with _torch_refusals_named("schedule"):
        optimizer = torch.optim.SGD([torch.zeros(1, requires_grad=True)], lr=1.0)
        made = schedule(optimizer, num_steps=1)
        optimizer.step()
        made.step()  # of ReduceLROnPlateau it asks for a measure
    return schedule


@contextmanager
def _torch_refusals_named(key: str) -> Iterator[None]:
    try:
        yield
    except (ValueError, TypeError, RuntimeError) as error:
        message = str(error)
        raise ConfigurationError(message if message.startswith(f"{key}.") else f"{key}: {message}") from error
