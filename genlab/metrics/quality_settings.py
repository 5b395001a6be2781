"""The settings of the sample quality during training."""

from dataclasses import dataclass
from typing import Literal

LEAST_IMAGES = 10
"""Least number of validation images for a measurement."""
DOWNLOADED = "auto"
"""Value of ``inception_weights``, in every command, that stands for the downloaded file."""

FeaturesName = Literal["auto", "classifier", "random_network", "inception"]


@dataclass(frozen=True, kw_only=True)
class QualitySettings:
    """The keys of configs/quality.

    Raises:
        ValueError: A value is out of its range, or has no effect.
    """

    interval: int | None
    """Steps between two measurements; None measures with each validation."""
    num_samples: int
    """Number of samples and of validation images; fewer if the split has fewer."""
    features: FeaturesName
    """``auto`` takes Inception's where ``inception_weights`` is given, else the classifier's of these data where the
    cache has it, else a random network's; a run folder keeps the choice."""
    inception_weights: str | None
    """A file for :class:`genlab.metrics.inception.InceptionFeatures`, or DOWNLOADED, as null is for ``inception``."""

    def __post_init__(self) -> None:
        if self.interval is not None and self.interval < 1:
            raise ValueError(f"quality.interval must be null or at least 1, got {self.interval}")
        if self.num_samples < LEAST_IMAGES:
            raise ValueError(f"quality.num_samples must be at least {LEAST_IMAGES}, got {self.num_samples}")
        if self.features not in ("auto", "inception") and self.inception_weights is not None:
            raise ValueError(f"quality.inception_weights must be null for quality.features={self.features}")
