"""A training run's configuration as checked plain values: framework keys have a schema, nodes a signature."""

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch.optim import Optimizer
from torch.optim.lr_scheduler import LRScheduler

from genlab.composition.builder import TARGET, accepted, bind, check
from genlab.composition.environment import require_device_name
from genlab.composition.fields import check_fields
from genlab.composition.suggestions import nearest, way_out
from genlab.data.dataset import Dataset
from genlab.errors import ConfigurationError
from genlab.models.base import Model
from genlab.training.settings import TrainerSettings

Node = dict[str, Any]
DEFAULT_PHASE = "default"
MAX_SEED = 2**63 - 1


@dataclass(frozen=True, kw_only=True)
class RunConfiguration:
    """Everything that `genlab train` is told.

    Raises:
        ValueError: A framework key is out of its range.
    """

    seed: int
    device: str
    """auto, cpu, cuda, cuda:N or mps."""
    num_threads: int | None
    resume: str | None
    """A run folder to go on from."""
    dataset: Node
    optimizer: Node
    """``default`` and optional phase names, each a node; a phase without ``_target_`` is merged over the default."""
    schedule: Node
    trainer: Node
    model: Node

    def __post_init__(self) -> None:
        if not 0 <= self.seed <= MAX_SEED:
            raise ValueError(f"seed must be between 0 and {MAX_SEED}, got {self.seed}")
        require_device_name(self.device)
        if self.num_threads is not None and self.num_threads < 1:
            raise ValueError(f"num_threads must be null or at least 1, got {self.num_threads}")

    @property
    def settings(self) -> TrainerSettings:
        """The trainer's node, checked."""
        return check_fields(TrainerSettings, self.trainer, "trainer")


def read_run_configuration(values: Mapping[str, Any]) -> RunConfiguration:
    """Check a whole configuration, from the command line or from a run folder, before anything is loaded.

    Raises:
        ConfigurationError: A key is unknown or missing, a value has the wrong type or range, a target is refused.
    """
    configuration = check_fields(RunConfiguration, values, "")
    _ = configuration.settings
    check(configuration.dataset, "dataset", expects=Dataset)
    check(configuration.model, "model", run_time=("spec",), expects=Model)
    for phase in configuration.optimizer:
        if phase != DEFAULT_PHASE and nearest(phase, [DEFAULT_PHASE]):
            raise ConfigurationError(f"optimizer.{phase} is not a key; did you mean 'optimizer.{DEFAULT_PHASE}'?")
        check_optimizer(optimizer_node(configuration.optimizer, phase), f"optimizer.{phase}")
    check_schedule(configuration.schedule)
    return configuration


def optimizer_node(optimizers: Mapping[str, Any], phase: str) -> Node:
    """The node of a phase's optimiser: its own keys over those of ``default``, unless it names a target itself.

    Raises:
        ConfigurationError: There is no default, or a node is no mapping.
    """
    default, own = optimizers.get(DEFAULT_PHASE, {}), optimizers.get(phase, {})
    for name, node in ((DEFAULT_PHASE, default), (phase, own)):
        if not isinstance(node, Mapping):
            raise ConfigurationError(f"optimizer.{name} must be a node, got {node!r}")
    return dict(own) if TARGET in own else {**default, **own}


def require_phases(optimizers: Mapping[str, Any], phases: tuple[str, ...]) -> None:
    """Refuse settings for a phase that the model does not have.

    Raises:
        ConfigurationError: As said.
    """
    for name in optimizers:
        if name != DEFAULT_PHASE and name not in phases:
            tail = way_out(name, (*phases, DEFAULT_PHASE), kind="its phases")
            raise ConfigurationError(f"optimizer.{name}: the model has no phase '{name}'; {tail}")


def check_optimizer(node: Node, key: str) -> None:
    """Bind an optimiser's node and try it on one parameter, since the ranges of its numbers are known only to torch."""
    check(node, key, run_time=("params",), expects=Optimizer)
    rate = node.get("lr")
    if isinstance(rate, int | float) and not rate > 0:
        raise ConfigurationError(f"{key}.lr must be positive, got {rate}")
    with _torch_refusals_named(key):
        bind(node, key)(params=[torch.zeros(1, requires_grad=True)])


def check_schedule(node: Node) -> None:
    """Bind a schedule's node and try it on an optimiser of one parameter."""
    run_time = ("optimizer", *accepted(node, "schedule", ("num_steps",)))
    check(node, "schedule", run_time=run_time, expects=LRScheduler)
    optimizer = torch.optim.SGD([torch.zeros(1, requires_grad=True)], lr=1.0)
    with _torch_refusals_named("schedule"):
        schedule_factory(node)(optimizer, num_steps=1)


def optimizer_factory(node: Node, key: str) -> Callable[[Any], Optimizer]:
    """What makes a checked node's optimiser of parameters."""
    return bind(node, key)


def schedule_factory(node: Node) -> Callable[..., LRScheduler]:
    """A factory that takes an optimiser and ``num_steps``, and passes the latter to the schedules that want it."""
    factory = bind(node, "schedule")
    wants_num_steps = bool(accepted(node, "schedule", ("num_steps",)))

    def schedule(optimizer: Optimizer, *, num_steps: int) -> LRScheduler:
        made: LRScheduler = factory(optimizer, num_steps=num_steps) if wants_num_steps else factory(optimizer)
        return made

    return schedule


@contextmanager
def _torch_refusals_named(key: str) -> Iterator[None]:
    try:
        yield
    except (ValueError, TypeError, RuntimeError) as error:
        message = str(error)
        raise ConfigurationError(message if message.startswith(f"{key}.") else f"{key}: {message}") from error
