"""`genlab check`: tests the mathematical invariants of a model on small images and prints a table of the results."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, Literal

import torch

from genlab.checks.invariants import INVARIANTS, findings
from genlab.checks.subject import fitting_subject
from genlab.config.build import bind, build
from genlab.config.compose import OF_TRAINING, parse_overrides
from genlab.config.fields import check_fields
from genlab.config.parts import with_replaced_parts
from genlab.errors import ConfigurationError
from genlab.launch.contract import JobContext
from genlab.models.base import Model
from genlab.types import ImageSpec

_RESULT_WIDTH = len("does not apply")


class BrokenModelError(ConfigurationError):
    """A model violates a mathematical invariant: its configuration or its code is wrong."""


@dataclass(frozen=True, kw_only=True)
class CheckSettings:
    """The keys of configs/check.yaml.

    Raises:
        ValueError: A value is out of its range.
    """

    model: dict[str, Any]
    channels: int
    height: int | None
    width: int | None
    num_levels: int
    num_classes: int
    seed: int
    num_threads: int | Literal["auto"] | None

    def __post_init__(self) -> None:
        for name, least in {"channels": 1, "num_levels": 2, "num_classes": 0}.items():
            if getattr(self, name) < least:
                raise ValueError(f"{name} must be at least {least}, got {getattr(self, name)}")
        if self.num_levels > 256:
            raise ValueError(f"num_levels must be at most 256, got {self.num_levels}")
        if (self.height is None) != (self.width is None):
            raise ValueError(
                "height and width must be given together, or neither for the smallest that the model takes"
            )
        for name in ("height", "width", "num_threads"):
            value = getattr(self, name)
            if isinstance(value, int) and value < 1:
                raise ValueError(f"{name} must be null or at least 1, got {value}")


def read(values: Mapping[str, Any], overrides: Sequence[str]) -> CheckSettings:
    """Return the checked settings.

    Raises:
        ConfigurationError: Something in them does not fit.
    """
    for override in parse_overrides(overrides):
        if override.key_or_group.partition(".")[0] in OF_TRAINING:
            raise ConfigurationError(
                f"{override.key_or_group} has no effect here: a model is checked on small images of noise; "
                "channels, height, width, num_levels and num_classes choose them"
            )
    # The files of models choose a recipe, and some of them a data set, so these are in the composition.
    values = with_replaced_parts(values, overrides)
    of_model = {key: value for key, value in values.items() if key not in OF_TRAINING}
    settings = check_fields(CheckSettings, of_model, "")
    bind(settings.model, "model", run_time=("spec",), expects=Model)
    return settings


def run(settings: CheckSettings, context: JobContext) -> None:
    """Print one line for each invariant, and the number of each result.

    Raises:
        BrokenModelError: At least one invariant failed.
        ConfigurationError: The model cannot be made for small images.
    """
    del context
    if isinstance(settings.num_threads, int):  # the recipe may say auto
        torch.set_num_threads(settings.num_threads)

    def make(spec: ImageSpec) -> Model:
        model: Model = build(settings.model, "model", expects=Model, spec=spec)
        return model

    image = partial(
        ImageSpec, channels=settings.channels, num_levels=settings.num_levels, num_classes=settings.num_classes
    )
    sizes = None if settings.height is None or settings.width is None else ((settings.height, settings.width),)
    subject = fitting_subject(make, image, sizes=sizes, seed=settings.seed)
    spec = subject.spec
    print(
        f"{type(subject.fresh()).__name__} on {spec.height}x{spec.width} images, channels {spec.channels}, "
        f"levels {spec.num_levels}, classes {spec.num_classes}"
    )
    width = max(map(len, INVARIANTS))
    print(f"{'invariant':<{width}}  {'result':<{_RESULT_WIDTH}}  details")
    results: dict[str, list[str]] = {"held": [], "FAILED": [], "does not apply": []}
    for name, finding in findings(subject):
        print(f"{name:<{width}}  {finding.result:<{_RESULT_WIDTH}}  {finding.seen}", flush=True)
        results[finding.result].append(name)
    num_held, num_failed, num_others = map(len, results.values())
    print(f"{num_held} held, {num_failed} failed, {num_others} do not apply")
    if results["FAILED"]:
        raise BrokenModelError(f"the model fails: {', '.join(results['FAILED'])}")
