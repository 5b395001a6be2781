"""The one interface between the trainer and the models.

A model is mathematics: it never sees an optimiser, a step count, a device string, a path or a writer,
and keeps no state between calls but its parameters and buffers. All randomness comes from torch's default
generators or from the generator it is handed, none from NumPy or a generator of its own.

The trainer seeds the default generators from (seed, step, rank) before each step, so that several processes draw
different noise for their different images: ``torch.randn_like(batch.images)`` is right as it stands. A model asks for
anything else (:mod:`genlab.parallel.collectives`)::

    with same_draws():                                # equal on all ranks: one permutation for the whole batch
        order = torch.randperm(num_pixels)
    noise = draw_rows(lambda num: torch.randn(num, size), len(images))  # that of one process with the whole batch
    self.mean.lerp_(mean_over_processes(x.mean(0).detach()), 0.1)       # a statistic of the whole batch

Gradients are averaged over the processes and keep parameters equal; a buffer stays equal only if it is computed from
such values. ``genlab check`` runs a step on two simulated ranks and finds noise that is the same on both, and
parameters or buffers that are not.

A model of your own, with the declarations of its measures::

    class VAE(GenerativeModel):
        selection_measure = "negative_elbo_nats"
        measures = {
            "negative_elbo_nats": negative_log_likelihood("upper bound"),
            "squared_error": Measure(unit="1", kind="estimate", direction="lower"),
        }

        def evaluate(self, batch): return {"negative_elbo_nats": ..., "squared_error": ...}
"""

import math
from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from types import MappingProxyType
from typing import ClassVar

import torch
from jaxtyping import Float, Int
from torch import Generator, Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from genlab.measures import Measure
from genlab.types import Batch, CompilationCost, Phase


class Model(nn.Module, ABC):
    """Base class of everything that the trainer trains: generative models and classifiers."""

    selection_measure: str | None = None
    """The key of :meth:`evaluate` by which the best checkpoint is chosen and early stopping decides, lower is better
    unless it is declared otherwise; None where no such measure exists (a GAN's losses order nothing)."""

    evaluated_together: ClassVar[int] = 1
    """Images in a batch of evaluation, if that is faster with more than training has; at most four times
    ``trainer.batch_size`` are taken, which need about the memory of a training batch. It does not shrink with
    ``trainer.gradient_accumulation`` or more processes, which must not change what is measured."""

    training_counts: ClassVar[tuple[str, ...]] = ()
    """Prefixes of the names of buffers that count steps or average over the training so far. They are reset in a run
    that starts from the weights of another run."""

    measures: Mapping[str, Measure] = MappingProxyType({})
    """The declaration of each key of :meth:`evaluate` and :meth:`diagnose`: unit, kind and direction, which no name
    tells. An undeclared measure is shown as "not declared" and is ranked with no other measure."""

    followed: tuple[str, ...] = ()
    """Tags of metrics.jsonl that :meth:`warning_in_training` looks at."""

    picture_groups: ClassVar[Mapping[str, int]] = MappingProxyType({})
    """Number of images, one after another, that belong together in a picture of :meth:`visualize` (an image and its
    reconstruction): they stay in one row."""

    @abstractmethod
    def phases(self) -> tuple[Phase, ...]:
        """Return the parameter updates of one training step, in their order."""

    @abstractmethod
    def evaluate(self, batch: Batch) -> dict[str, Float[Tensor, "B ..."]]:
        """Return the measures of each example, not reduced, by the names of :attr:`measures`.

        A value of shape (B,) is a measure; one of shape (B, K) is a curve of K points (nats per step, say).
        """

    @property
    def dtype(self) -> torch.dtype:
        """The type of the parameters, to which a model converts images and noise."""
        return next(self.parameters()).dtype

    @property
    def group_size(self) -> int:
        """Number of images that a training step combines; the batch size must be a multiple of it."""
        return 1

    @property
    def couples_images(self) -> bool:
        """True if a measure of one image depends on the other images of its batch, in evaluation mode.

        Such a model is evaluated in batches of the size that it is trained on, and the ledger says so. The default
        asks the layers; a model that couples images in its own code overrides it.
        """
        return any(coupling_layer(child) is not None for child in self.children())

    @property
    def needs_whole_batch(self) -> str | None:
        """Key of a part of the model whose loss needs the undivided batch; None if no part does.

        ``trainer.gradient_accumulation`` must be 1 with it. Batch normalisation is not counted: each part then has
        statistics of its own, as everywhere.
        """
        return None

    def warnings(self) -> tuple[str, ...]:
        """Return warnings about this combination of parts, one line each; they are logged when training starts."""
        return ()

    def warning_in_training(self, course: Sequence[Mapping[str, float]]) -> str | None:
        """Return a warning about the course of a training, logged once; None if there is nothing to say.

        Args:
            course: The latest values of :attr:`followed` at each validation so far.
        """
        del course
        return None

    def diagnose(self, batch: Batch, *, num_importance_samples: int) -> dict[str, Float[Tensor, "B ..."]]:
        """Return the measures of the final evaluation, which may cost many passes. As :meth:`evaluate` by default.

        Args:
            batch: Images to measure.
            num_importance_samples: K of an importance-weighted bound, for the models that have one; 0 leaves it out.
        """
        del num_importance_samples
        return self.evaluate(batch)

    def initialize(self, batch: Batch) -> None:
        """Set data-dependent initial values, once, on a new model; the batch is a sample of the training images."""

    def compilable(self) -> tuple[nn.Module, ...]:
        """Return the modules to compile, in place, when ``trainer.compile`` asks for it."""
        return ()

    def compilation_cost(self) -> CompilationCost | None:
        """Return what compiling costs and gains at this model's size; None, by default, if it does not pay or nobody
        has measured it. ``trainer.compile=auto`` compiles by it."""
        return None

    def shardable(self) -> tuple[nn.Module, ...]:
        """Return modules whose parameters may be sharded, inner ones first; together they have all parameters.

        A loss must use their parameters only through their forward passes, and must not differentiate them twice;
        empty where one does.
        """
        return ()

    @property
    def draws_pictures(self) -> bool:
        """True if :meth:`visualize` returns at least one picture."""
        return type(self).visualize is not Model.visualize

    def visualize(
        self, batch: Batch | None, *, num_samples: int, generator: Generator | None = None
    ) -> dict[str, Float[Tensor, "..."]]:
        """Return pictures in [0, 1] by name: (N, C, H, W) is a grid of images, (T, N, C, H, W) is a film of T frames.

        Args:
            batch: Images to reconstruct or complete; None asks only for the pictures that need no data.
            num_samples: At most this many images in each picture.
            generator: Source of the randomness; torch's default generator when None.
        """
        del batch, num_samples, generator
        return {}


def coupling_layer(module: nn.Module, *, training: bool = False) -> nn.Module | None:
    """Return a layer that makes an image's output depend on the other images of its batch; None if absent.

    Batch normalisation does so in training, and without running statistics always. A layer of another kind declares it
    by an attribute ``couples_images``; a value of None counts as True.

    Args:
        module: Its layers are asked.
        training: The mode in question.
    """
    for layer in module.modules():
        if isinstance(layer, _BatchNorm):
            if training or layer.running_mean is None:
                return layer
        elif getattr(layer, "couples_images", False) is not False:
            return layer
    return None


class GenerativeModel(Model):
    """A model that draws images."""

    num_classes: int = 0
    """Number of classes that :meth:`sample` takes as labels; 0 without labels."""

    @abstractmethod
    def sample(
        self, num_samples: int, *, labels: Int[Tensor, " N"] | None = None, generator: Generator | None = None
    ) -> Float[Tensor, "N C H W"]:
        """Draw images in [0, 1].

        Args:
            num_samples: Number of images, N.
            labels: The class of each image; None lets a model with classes draw them.
            generator: Of the noise; None is the default one.

        Raises:
            ValueError: Labels were given to a model without class conditioning, or are not one class of it per sample.
        """

    def visualize(
        self, batch: Batch | None, *, num_samples: int, generator: Generator | None = None
    ) -> dict[str, Float[Tensor, "..."]]:
        """Return pictures as :meth:`Model.visualize` does; by default the samples alone."""
        del batch
        with evaluation_mode(self):
            return {"samples": self.sample(num_samples, generator=generator)}


def table_side(num_kinds: int, num_samples: int) -> int:
    """Return the number of rows, and columns, of a picture with one kind (class, category) per row.

    Pictures are laid out as square as their number allows, so that only a square table keeps its rows. All kinds are
    shown up to ten; of more, the first as far as `num_samples` images go.
    """
    return num_kinds if num_kinds <= 10 else min(num_kinds, math.isqrt(num_samples))


def require_labels_of_samples(labels: Tensor | None, num_samples: int, model: GenerativeModel) -> None:
    """Refuse labels that a model cannot draw samples of.

    Raises:
        ValueError: Labels were given to a model without class conditioning, or are not one class of it per sample.
    """
    if labels is None:
        return
    if model.num_classes == 0:
        raise ValueError(f"{type(model).__name__} is not class-conditional: it cannot sample given labels")
    if len(labels) != num_samples or bool((labels < 0).any() | (labels >= model.num_classes).any()):
        listed = ", ".join(map(str, sorted(set(labels.tolist()))))
        raise ValueError(
            f"labels must be {num_samples} classes between 0 and {model.num_classes - 1}, got {len(labels)} "
            f"labels of the classes {listed}"
        )


@contextmanager
def evaluation_mode(model: nn.Module) -> Iterator[None]:
    """Put every module in evaluation mode in the context, and restore the mode of each."""
    training = [module for module in model.modules() if module.training]
    model.eval()
    try:
        yield
    finally:
        for module in training:
            module.training = True
