"""The phases of a model, examined before the first step: a mistake in a model of one's own is one line."""

from collections.abc import Iterator, Mapping

from torch import Tensor, nn

from genlab.errors import ConfigurationError
from genlab.models.base import Model
from genlab.types import Loss, Phase

_MOST_NAMES = 3


def phases_of(model: Model) -> tuple[Phase, ...]:
    """Return the phases of a model.

    Raises:
        ConfigurationError: They are no tuple of phases, the modules of one are no tuple, or two have the same name.
    """
    phases, kind = model.phases(), type(model).__name__
    if not isinstance(phases, tuple) or not phases or not all(isinstance(phase, Phase) for phase in phases):
        raise ConfigurationError(f"{kind}.phases must return a tuple of one phase or more, got {_told(phases)}")
    for phase in phases:
        if not isinstance(phase.modules, tuple):
            raise ConfigurationError(
                f"the modules of phase {phase.name} of {kind} must be a tuple, got {_told(phase.modules)}"
            )
    names = [phase.name for phase in phases]
    for name in names:
        if names.count(name) > 1:
            raise ConfigurationError(f"{kind} has two phases named {name}; their optimisers are kept by name")
    return phases


def owners_of(model: Model) -> dict[str, list[str]]:
    """Return the phases that train each parameter, by its name; "" stands for those that the model does not hold."""
    names = {id(value): name for name, value in model.named_parameters()}
    owners: dict[str, list[str]] = {name: [] for name in names.values()}
    for phase in model.phases():
        for value in (value for module in phase.modules for value in module.parameters()):
            owners.setdefault(names.get(id(value), ""), []).append(phase.name)
    return owners


def warnings_of_phases(model: Model) -> list[str]:
    """Return a line for parameters that two phases train, for those that none does, and for weights in plain lists."""
    owners = owners_of(model)
    shared = [name for name, phases in owners.items() if name and len(phases) > 1]
    missing = [name for name, value in model.named_parameters() if value.requires_grad and not owners[name]]
    lines = []
    if shared:
        lines.append(f"phases {' and '.join(owners[shared[0]])} both train {some_of(shared)}, with an optimiser each")
    if missing:
        lines.append(f"no phase trains {some_of(missing)}, which stays as it is")
    if unregistered := unregistered_weights(model):
        lines.append(f"{unregistered} are not the model's and not saved: use a ModuleList, ParameterList or Parameter")
    return lines


def unregistered_weights(model: nn.Module) -> str | None:
    """Name the attributes that hold weights unknown to ``parameters()``, such as a list of modules; None if none do."""
    known = {id(value) for value in model.parameters()}
    names = [
        f"{path}.{name}".removeprefix(".")
        for path, module in model.named_modules()
        for name, held in vars(module).items()
        if any(id(weight) not in known for weight in _weights(held))
    ]
    return f"the weights in {some_of(names)}" if names else None


def _weights(held: object) -> Iterator[Tensor]:
    """Yield the tensors to be trained in an attribute."""
    if isinstance(held, nn.Module):
        yield from (value for value in held.parameters() if value.requires_grad)
    elif isinstance(held, Tensor):
        if held.requires_grad and held.is_leaf:
            yield held
    elif isinstance(held, list | tuple | Mapping):
        for each in held.values() if isinstance(held, Mapping) else held:
            yield from _weights(each)


def require_loss(loss: object, phase: Phase) -> None:
    """Refuse what is no loss of scalars.

    Raises:
        ConfigurationError: As said.
    """
    if not isinstance(loss, Loss):
        raise ConfigurationError(f"the loss of phase {phase.name} must return a genlab.types.Loss, got {_told(loss)}")
    for name, value in {"value": loss.value, **loss.metrics}.items():
        if not isinstance(value, Tensor) or value.dim() > 0:
            got = f"{_told(value)} of shape {tuple(value.shape)}" if isinstance(value, Tensor) else _told(value)
            raise ConfigurationError(
                f"{name} in the loss of phase {phase.name} must be a tensor without dimensions, got {got}"
            )


def some_of(names: list[str]) -> str:
    """Return the first of some names, and the number of the others."""
    rest = len(names) - _MOST_NAMES
    return ", ".join(names[:_MOST_NAMES]) + (f" and {rest} more" if rest > 0 else "")


def _told(value: object) -> str:
    return f"a {type(value).__name__}"
