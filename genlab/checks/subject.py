"""The subject of a check, a model that can be built for images of any size, and the finding of a check."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from inspect import get_annotations
from typing import Literal, TypeVar, cast

import torch
from torch import nn

from genlab.errors import ConfigurationError
from genlab.measures import GIVEN_CLASS, NEGATIVE_LOG_LIKELIHOOD
from genlab.models.base import Model
from genlab.types import UNLABELLED, Batch, ImageSpec

# The smallest that a model takes is taken: brute force needs few pixels, strided convolutions a multiple of 4 or 8.
SIZES = ((4, 4), (8, 8), (12, 8), (16, 16), (28, 28), (32, 32))
_BATCH_SIZE = 6
_RANDOMIZATION = 0.5

C = TypeVar("C")
Result = Literal["held", "FAILED", "does not apply"]


@dataclass(frozen=True)
class Finding:
    """The finding of one check."""

    result: Result
    seen: str
    """One line: the measured numbers, or the reason why the check does not apply."""


def held_if(holds: bool, seen: str) -> Finding:
    """Return a finding from a comparison and the numbers that were compared."""
    return Finding("held" if holds else "FAILED", seen)


class DoesNotApply(Exception):  # noqa: N818, it ends a check, and nothing went wrong
    """Exception of a check that does not apply; the message gives the reason."""


def require(model: nn.Module, capability: type[C]) -> C:
    """Return the model, typed by a capability that it has.

    Args:
        model: Of any class.
        capability: A protocol of :mod:`genlab.models.capabilities`.

    Raises:
        DoesNotApply: Some of its attributes or methods are missing; the message names them.
    """
    missing = _missing(model, capability)
    if missing:
        raise DoesNotApply(f"it has no {', '.join(missing)} ({capability.__name__})")
    return cast(C, model)


def likelihood_measure(model: Model, kind: Literal["exact", "upper bound"]) -> str | None:
    """Return the key of ``evaluate`` that the model declares as -log p(x) or a bound on it; None if absent."""
    quantities = (NEGATIVE_LOG_LIKELIHOOD, NEGATIVE_LOG_LIKELIHOOD + GIVEN_CLASS)
    names = (name for name, it in model.measures.items() if it.quantity in quantities and it.kind == kind)
    return next(names, None)


def importance_weighted_measure(model: Model) -> str | None:
    """Return the key of ``diagnose`` that the model declares as an importance-weighted bound; None if absent."""
    return next((name for name, it in model.measures.items() if it.is_importance_weighted), None)


def has(model: nn.Module, capability: type[object]) -> bool:
    """Return True if the model has all attributes and methods of a capability."""
    return not _missing(model, capability)


def _missing(model: nn.Module, capability: type[object]) -> list[str]:
    members = {name for base in capability.__mro__ for name in (*vars(base), *get_annotations(base))}
    return sorted(name for name in members if not name.startswith("_") and not hasattr(model, name))


@dataclass(frozen=True, kw_only=True)
class Subject:
    """A model under check."""

    make: Callable[[ImageSpec], Model]
    """Raises ConfigurationError for images that the model refuses."""
    spec: ImageSpec
    """The images that the checks are made on."""
    seed: int = 0

    def fresh(self, spec: ImageSpec | None = None, *, seed: int | None = None, randomized: bool = False) -> Model:
        """Return a new model with its data-dependent initial values, on the CPU, in training mode.

        Args:
            spec: Other images than those of the subject.
            seed: Of the initial values; the subject's when None.
            randomized: Move every parameter, so that a part which starts at zero is not passed over.

        Raises:
            ConfigurationError: The model refuses such images.
        """
        torch.manual_seed(self.seed if seed is None else seed)
        chosen = self.spec if spec is None else spec
        model = self.make(chosen)
        model.initialize(make_batch(chosen, _BATCH_SIZE))
        if randomized:
            randomize(model)
        return model

    def batch(self, size: int = _BATCH_SIZE) -> Batch:
        """Return images of uniform noise with labels."""
        return make_batch(self.spec, size)


def fitting_subject(
    make: Callable[[ImageSpec], Model],
    image: Callable[..., ImageSpec],
    *,
    sizes: Sequence[tuple[int, int]] | None,
    seed: int,
) -> Subject:
    """Return a subject on images of the first size with which the model is made and computes its first loss.

    Args:
        make: The model for given images.
        image: The images, but for ``height`` and ``width``.
        sizes: Sizes to try; :data:`SIZES` if None.
        seed: Of all randomness.

    Raises:
        ConfigurationError: The model refuses all of the sizes; the message is that of the last.
    """
    refusal: ConfigurationError | None = None
    made: Subject | None = None
    for height, width in sizes or SIZES:
        subject = Subject(make=make, spec=image(height=height, width=width), seed=seed)
        try:
            model = subject.fresh()
        except ConfigurationError as error:
            refusal = error
            continue
        except (RuntimeError, ArithmeticError):
            continue
        made = made or subject
        try:
            model.phases()[0].loss(subject.batch())
        except Exception:
            # A model that fits one size alone, or one that fails at all of them: the checks will tell which.
            continue
        return subject
    if made is not None:
        return made
    raise refusal or ConfigurationError("model cannot be made for any small size: set height and width to one it takes")


def make_batch(spec: ImageSpec, size: int) -> Batch:
    """Return images of independent uniform levels, from torch's default generator."""
    levels = torch.randint(spec.num_levels, (size, spec.channels, spec.height, spec.width))
    labels = torch.randint(spec.num_classes, (size,)) if spec.num_classes else torch.full((size,), UNLABELLED)
    return Batch(images=levels / (spec.num_levels - 1), labels=labels)


@torch.no_grad()
def randomize(model: torch.nn.Module) -> None:
    """Add noise to every parameter, of a size that leaves the activations of a layer about as large as its inputs."""
    for parameter in model.parameters():
        fan_in = parameter[0].numel() if parameter.dim() > 1 else 4
        parameter.add_(torch.randn_like(parameter), alpha=_RANDOMIZATION * fan_in**-0.5)
