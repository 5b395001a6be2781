"""Data classes passed between data, models and the trainer: frozen values without behaviour.

Dimensions: B batch, C channels, H height, W width.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass

from jaxtyping import Float, Int
from torch import Tensor, nn

UNLABELLED = -1


@dataclass(frozen=True, kw_only=True)
class ImageSpec:
    """Properties of the images that a dataset measures; models are built from them, and users never type them."""

    channels: int
    height: int
    width: int
    num_levels: int
    """Number of values a sub-pixel can take: 2 is binary, 256 is 8-bit."""
    num_classes: int
    """0 when the images carry no labels."""


@dataclass(frozen=True, kw_only=True)
class Batch:
    """Images in [0, 1] (level k is k / (num_levels - 1)) and their class indices or UNLABELLED."""

    images: Float[Tensor, "B C H W"]
    labels: Int[Tensor, " B"]
    num_labelled: int | None = None
    """Number of labelled images, which come first; None if only the labels show it."""


@dataclass(frozen=True, kw_only=True)
class Loss:
    """A value to back-propagate, and metrics to log; both stay on the device."""

    value: Float[Tensor, ""]
    metrics: Mapping[str, Float[Tensor, ""]]
    """Quantity with its unit (``kl_nats``) to a scalar, averaged over the batch."""
    handed_on: object = None
    """Values that the next phase of the same step may use (see :attr:`Phase.receives`)."""


@dataclass(frozen=True, kw_only=True)
class Phase:
    """One kind of parameter update within a training step."""

    name: str
    """Key of its optimiser, of its part of the checkpoint and of its metrics."""
    modules: tuple[nn.Module, ...]
    """Modules that it trains; every other parameter of the model is frozen meanwhile."""
    loss: Callable[..., Loss]
    """Function of a Batch and, with :attr:`receives`, of the objects that the previous phase handed on."""
    repeats: int = 1
    """Updates per training step, each on a batch of its own (n_critic of a Wasserstein GAN)."""
    project: Callable[[], None] | None = None
    """Called after each update, to bring the weights back into a set (weight clipping)."""
    records: tuple[nn.Module, ...] = ()
    """Modules that this phase does not train but whose graph it hands on to a later phase, so they are not frozen."""
    receives: bool = False
    """True if the loss takes, as a second argument, the ``handed_on`` of the last update of the previous phase, or None
    if that update was skipped."""


@dataclass(frozen=True, kw_only=True)
class CompilationCost:
    """Cost and gain of compiling a model's networks for the CPU, as measured on one thread.

    On another CPU both change by about the same factor, so that the choice between them holds.
    """

    seconds: float
    """Time of the compilation, with an empty cache."""
    milliseconds_per_image: float
    """Time of an eager training step for each image of its batch."""
    speedup: float
    """Time of an eager step divided by that of a compiled one; 1 where compilation gains nothing."""
    speedup_in_bfloat16: float | None = None
    """The same with ``trainer.precision=bfloat16``; None where it differs little."""
