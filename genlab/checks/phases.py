"""Each phase trains its own parameters, all of them and no others: the trainer's own update, bit by bit."""

import functools

import torch
from torch import Tensor, nn

from genlab.checks.subject import Finding, Subject, held_if
from genlab.checks.training import TINY_SETTINGS, schedule
from genlab.errors import NonFiniteError
from genlab.models.base import Model
from genlab.training.optimization import FrozenOutside, PhaseUpdate
from genlab.training.phases import owners_of, some_of, unregistered_weights
from genlab.types import Batch


def updates_of(model: Model) -> list[PhaseUpdate]:
    """Return the updates of a model's phases, by Adam."""
    return [
        PhaseUpdate(
            phase,
            optimizer=functools.partial(torch.optim.Adam, lr=1e-3),
            schedule=schedule,
            settings=TINY_SETTINGS,
            device=torch.device("cpu"),
        )
        for phase in model.phases()
    ]


def training_step(model: Model, updates: list[PhaseUpdate], batch: Batch) -> dict[str, set[str]]:
    """Run every phase as the trainer does.

    Returns:
        Of each phase, the names of the parameters that it changed in any bit.

    Raises:
        NonFiniteError: A loss, a gradient or a metric is not finite.
    """
    model.train()
    frozen = FrozenOutside(updates, model.parameters())
    parameters = dict(model.named_parameters())
    changed: dict[str, set[str]] = {}
    received: list[object] = []
    for update in updates:
        before = {name: parameter.detach().clone() for name, parameter in parameters.items()}
        handed_on = received
        frozen.enter(update)
        for _ in range(update.phase.repeats):
            metrics, handed_on = update.run(batch, received)
            for name, metric in metrics.items():
                if not bool(torch.isfinite(metric)):
                    raise NonFiniteError(f"phase {update.phase.name}: {name} is not finite")
        frozen.leave(update)
        received = handed_on
        changed[update.phase.name] = {name for name, kept in before.items() if not torch.equal(kept, parameters[name])}
    return changed


def phases_are_isolated(subject: Subject) -> Finding:
    """Check that no phase changes a parameter of another, and that no parameter belongs to two."""
    model = subject.fresh()
    owners = owners_of(model)
    if foreign_to_model := owners.get(""):
        return held_if(False, f"phase {foreign_to_model[0]} trains a parameter that the model does not hold")
    shared = [name for name, phases in owners.items() if len(phases) > 1]
    if shared:
        return held_if(False, f"{', '.join(owners[shared[0]])} all train {some_of(shared)}")
    changed = training_step(model, updates_of(model), subject.batch())
    for phase, names in changed.items():
        if foreign := sorted(name for name in names if phase not in owners[name]):
            return held_if(False, f"phase {phase} changed {some_of(foreign)}, which it does not train")
    counts = ", ".join(f"{name} changed {len(moved)} tensors" for name, moved in changed.items())
    return held_if(True, f"{counts}, none of another phase")


def every_parameter_has_a_gradient(subject: Subject) -> Finding:
    """Check that a phase trains every parameter, and that its loss has a gradient with respect to it."""
    model = subject.fresh(randomized=True).train()
    if unregistered := unregistered_weights(model):
        return held_if(False, f"{unregistered} are not parameters of the model, as those of a ModuleList are")
    batch = subject.batch()
    wanted = {name: parameter for name, parameter in model.named_parameters() if parameter.requires_grad}
    reached: set[str] = set()
    for phase in model.phases():
        own = {id(parameter) for module in phase.modules for parameter in module.parameters()}
        value = phase.loss(batch).value
        if not bool(torch.isfinite(value)):
            return held_if(False, f"the loss of phase {phase.name} is {value.item()}")
        found = {
            name: gradient
            for name, gradient in gradients(model, value).items()
            if gradient is not None and id(wanted[name]) in own
        }
        if found and not any(bool(gradient.any()) for gradient in found.values()):
            return held_if(False, f"the gradient of phase {phase.name}'s loss is zero in all of its parameters")
        reached |= set(found)
    missing = [name for name in wanted if name not in reached]
    if missing:
        return held_if(False, f"no phase's loss reaches {some_of(missing)} of its own")
    return held_if(True, f"all {len(wanted)} tensors of {sum(p.numel() for p in wanted.values()):,} parameters")


def gradients(model: nn.Module, loss: Tensor) -> dict[str, Tensor | None]:
    """Return the gradients of all parameters that require one; None if the loss does not depend on it."""
    named = {name: parameter for name, parameter in model.named_parameters() if parameter.requires_grad}
    return dict(zip(named, torch.autograd.grad(loss, list(named.values()), allow_unused=True), strict=True))
