"""The trainer's own settings: types and ranges here, numbers in ``configs/trainer``."""

import math
from dataclasses import dataclass, replace
from typing import Literal

from genlab.errors import ConfigurationError
from genlab.printing import shown
from genlab.run.checkpoint import MAX_STEP
from genlab.training.capture import CudaGraph
from genlab.training.precision import Precision

MAX_WATCH_IMAGES = 1024
"""Largest number of images whose pairs are compared in about a tenth of a second (28x28, one core)."""

Sharding = Literal["none", "fsdp2"]
Compile = Literal["auto"] | bool
CompileMode = Literal["default", "reduce-overhead", "max-autotune", "max-autotune-no-cudagraphs"]


@dataclass(frozen=True, kw_only=True)
class TrainerSettings:
    """Settings of the trainer: durations in steps, intervals in steps (0 means never), and devices.

    Raises:
        ValueError: A value is out of its range; the message names the key, the rule and the value.
    """

    num_steps: int
    """Number of training steps; 0 evaluates only. Derived from :attr:`num_epochs` if that is set."""
    num_epochs: float | None
    """Number of passes over the training images; null derives it from :attr:`num_steps`."""
    batch_size: int
    """Images per update, over all gradient-accumulation parts."""
    labelled_fraction: float | None
    """For semi-supervised models: this share of each batch keeps its labels, the others come without; null delivers
    every label there is."""
    gradient_accumulation: int
    """Number of parts that a batch is split into, for batches that do not fit into memory."""
    max_gradient_norm: float | None
    """Clip each phase's gradient to this global norm; null does not clip."""
    ema_decay: float | None
    """Decay of the exponential average of the weights that is evaluated and sampled in place of the raw weights. It
    rises as (1 + step) / (10 + step) up to this value, which fewer than 9 decay / (1 - decay) steps do not reach."""
    precision: Precision
    """Type of the matrix products in training; evaluation is always float32. ``auto`` is bfloat16 where the hardware
    has it, else float32 (:mod:`genlab.training.precision`), and is resolved before training."""
    compile: Compile
    """Compile the networks with torch.compile. ``auto`` compiles if that is earned back within the run, by what was
    measured of the model (:mod:`genlab.training.compilation`), and is resolved before training."""
    compile_mode: CompileMode
    """Of torch.compile. ``reduce-overhead`` and ``max-autotune`` make graphs of their own in place of
    ``cuda_graph``."""
    tf32: bool
    """Let CUDA round the operands of float32 products to TF32 in training; evaluation and sampling never do."""
    cuda_graph: CudaGraph
    """Replay each phase's update as one recording; auto does where that is possible, and says why where it is not."""
    log_interval: int
    validation_interval: int
    validation_images: int | None
    """Validate on a random choice of so many images, always the same; null takes all of the split."""
    sample_interval: int
    num_sample_images: int
    checkpoint_interval: int
    max_minutes: float | None
    """Stop, resumably, so many minutes after the start or the resumption."""
    early_stopping_patience: int | None
    """Stop after so many validations without a better selection measure."""
    overfit_one_batch: bool
    dry_run: bool
    """Two steps, one validation batch, one set of pictures, then stop."""
    profile: bool
    """Write a trace of steps 9 to 12 for Perfetto and TensorBoard, and a table of their operators."""
    on_non_finite: Literal["stop", "skip"]
    max_skipped_steps: int
    """With on_non_finite=skip, stop after so many skipped updates."""
    watch_interval: int
    """Steps between two checks for collapse of a generative model (see :mod:`genlab.training.collapse`)."""
    watch_images: int
    """Images of each check, which costs their sampling and at most a tenth of a second."""
    watch_classifier: str | None
    """The classifier that counts modes: a run folder; ``auto`` takes that of the data from the cache or trains it; null
    counts none."""
    min_diversity_ratio: float | None
    """Alarm when the images' diversity is below this share of the training images'; null never."""
    min_modes_covered: int | None
    """Alarm when the images fall into fewer classes than this; null never."""
    on_collapse: Literal["warn", "stop"]
    test_at_end: bool
    num_initialization_images: int
    """Number of training images from which a new model may set data-dependent initial values."""
    devices: int
    """Processes of this machine that train together, one for each GPU or as many as wished on the CPU."""
    max_restarts: int
    """Number of times that all of them resume from the last checkpoint after one has died."""
    sharding: Sharding
    """Division of weights, gradients and moments among the processes (see :mod:`genlab.parallel.sharding`): slower,
    for networks that outgrow one device."""

    def __post_init__(self) -> None:
        for key in ("batch_size", "gradient_accumulation", "log_interval", "num_sample_images", "devices"):
            self._require(key, getattr(self, key) >= 1, "at least 1")
        for key in (
            *("num_steps", "validation_interval", "sample_interval", "checkpoint_interval", "watch_interval"),
            *("max_skipped_steps", "max_restarts"),
        ):
            self._require(key, getattr(self, key) >= 0, "0 or more")
        self._require("num_steps", self.num_steps <= MAX_STEP, f"at most {MAX_STEP}")
        is_length = self.num_epochs is None or (self.num_epochs >= 0 and math.isfinite(self.num_epochs))
        self._require("num_epochs", is_length, "null, or 0 or more and finite")
        self._require("num_initialization_images", self.num_initialization_images >= 1, "at least 1")
        for key in ("validation_images", "early_stopping_patience", "min_modes_covered"):
            self._require(key, getattr(self, key) is None or getattr(self, key) >= 1, "null or at least 1")
        for key in ("max_gradient_norm", "max_minutes", "min_diversity_ratio"):
            value = getattr(self, key)
            self._require(key, value is None or (value > 0 and math.isfinite(value)), "null or positive and finite")
        self._require("ema_decay", self.ema_decay is None or 0 < self.ema_decay < 1, "null, or above 0 and below 1")
        self._require(
            "gradient_accumulation",
            self.batch_size % self.gradient_accumulation == 0,
            f"a divisor of trainer.batch_size ({self.batch_size})",
        )
        if self.labelled_fraction is not None:
            self._require("labelled_fraction", 0 < self.labelled_fraction < 1, "null, or above 0 and below 1")
            self._require("batch_size", self.batch_size > 1, "at least 2 with trainer.labelled_fraction")
            # Labelled images come first: the parts of a batch would be of different kinds.
            self._require("gradient_accumulation", self.gradient_accumulation == 1, "1 with trainer.labelled_fraction")
        self._require("watch_images", 2 <= self.watch_images <= MAX_WATCH_IMAGES, f"between 2 and {MAX_WATCH_IMAGES}")
        if self.on_collapse == "stop":
            self._require("on_collapse", self.watch_interval > 0, "warn while trainer.watch_interval is 0")
            bounds = (self.min_diversity_ratio, self.min_modes_covered)
            self._require("on_collapse", bounds != (None, None), "warn without a bound (trainer.min_diversity_ratio)")
        if self.compile_mode != "default":
            self._require("compile_mode", self.compile is True, "default without trainer.compile=true")
        if self.cuda_graph is True:
            self._require(
                "cuda_graph", not self.makes_own_graphs, f"auto or false with trainer.compile_mode={self.compile_mode}"
            )
        if self.sharding != "none":
            self._require("compile", self.compile is not True, f"auto or false with trainer.sharding={self.sharding}")
            self._require(
                "precision",
                self.precision != "float16",
                f"auto, float32 or bfloat16 with trainer.sharding={self.sharding}",
            )
        if self.devices == 1:
            self._require("max_restarts", self.max_restarts == 0, "0 with trainer.devices=1")

    def with_both_lengths(
        self, *, num_images: int, repeats: int, seen_at: tuple[int, int] = (0, 0)
    ) -> "TrainerSettings":
        """Return the settings with the number of steps and that of epochs, the second of them derived from the first.

        Args:
            num_images: Of the training split.
            repeats: Batches that a step takes from them.
            seen_at: A step and the images that had been seen then, perhaps in batches of another size.

        Raises:
            ConfigurationError: The epochs are too many steps.
        """
        steps_per_epoch = num_images / (self.batch_size * repeats)
        step, images_seen = seen_at
        epochs_before = (images_seen - step * self.batch_size * repeats) / num_images
        if self.num_epochs is None:
            return replace(self, num_epochs=max(epochs_before + self.num_steps / steps_per_epoch, 0.0))
        # Rounded, as epochs may be derived from it.
        num_steps = max(math.ceil(round((self.num_epochs - epochs_before) * steps_per_epoch, 6)), 0)
        if num_steps > MAX_STEP:
            raise ConfigurationError(
                f"trainer.num_epochs must be at most {MAX_STEP / steps_per_epoch:g} ({MAX_STEP} steps), "
                f"got {self.num_epochs:g}"
            )
        return replace(self, num_steps=num_steps)

    @property
    def num_images_at_once(self) -> int:
        """Number of images of one forward pass of training, over all processes."""
        return self.batch_size // self.gradient_accumulation

    @property
    def makes_own_graphs(self) -> bool:
        """True if the compile mode records CUDA graphs of its own."""
        return self.compile_mode in ("reduce-overhead", "max-autotune")

    @property
    def num_labelled(self) -> int | None:
        """Number of images of a batch that keep their labels: at least one, and fewer than all."""
        if self.labelled_fraction is None:
            return None
        return min(max(round(self.labelled_fraction * self.batch_size), 1), self.batch_size - 1)

    def require_reach(self, step: int) -> None:
        """Refuse to resume a run that has made more steps already.

        Raises:
            ConfigurationError: As said.
        """
        if step > self.num_steps:
            raise ConfigurationError(
                f"trainer.num_steps must be at least the step of the run that is resumed, {step}, got {self.num_steps}"
            )

    def require_divisible_batches(
        self, num_processes: int, *, group_size: int = 1, needs_whole_batch: str | None = None
    ) -> None:
        """Refuse batches that cannot be divided equally among processes in whole groups, or not into parts at all.

        Args:
            num_processes: Of the run.
            group_size: Images that the model takes together.
            needs_whole_batch: See :attr:`genlab.models.base.Model.needs_whole_batch`.

        Raises:
            ConfigurationError: A number of images is not divisible.
        """
        shared = self.gradient_accumulation * num_processes * group_size
        if self.batch_size % shared:
            processes = "1 process" if num_processes == 1 else f"{num_processes} processes"
            groups = f", groups of {group_size} images by the model" if group_size > 1 else ""
            alternatives = " or ".join(map(str, _multiples_beside(self.batch_size, shared)))
            raise ConfigurationError(
                f"trainer.batch_size must be a multiple of {shared} ({processes} with "
                f"trainer.gradient_accumulation={self.gradient_accumulation}{groups}), such as {alternatives}, got "
                f"{self.batch_size}"
            )
        if needs_whole_batch is not None and self.gradient_accumulation > 1:
            raise ConfigurationError(
                f"trainer.gradient_accumulation must be 1 with {needs_whole_batch}, which the parts of a batch would "
                f"train otherwise than the whole, got {self.gradient_accumulation}"
            )
        if self.num_labelled is not None and self.num_labelled % num_processes:
            multiples = _multiples_beside(self.num_labelled, num_processes)
            fractions = [f"{number / self.batch_size:.6g}" for number in multiples if number < self.batch_size]
            such_as = f", such as {' or '.join(fractions)}" if fractions else ""
            raise ConfigurationError(
                f"trainer.labelled_fraction must label a multiple of {num_processes} images of a batch, as many as "
                f"there are processes{such_as}, got {self.num_labelled} of {self.batch_size} images"
            )

    def _require(self, key: str, holds: bool, rule: str) -> None:
        if not holds:
            raise ValueError(f"trainer.{key} must be {rule}, got {shown(getattr(self, key))}")


def _multiples_beside(number: int, divisor: int) -> list[int]:
    """Return the positive multiples next to a number that is not a multiple."""
    below = number // divisor * divisor
    return [multiple for multiple in (below, below + divisor) if multiple > 0]
