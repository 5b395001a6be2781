"""The interface of a measure of samples: a number that compares generated images with real ones.

A measure of your own is a class and a YAML file, ``measure/brightness_gap.yaml``, with ``brightness_gap:`` and below it
``_target_`` and the arguments. ``genlab evaluate RUN measure=[brightness_gap]`` adds it to the ledger, beside the value
of real images::

    class BrightnessGap(SampleMeasure):
        declaration = Measure(unit="1", kind="estimate", direction="lower")

        def compute(self, generated, reference):
            return float((generated.mean() - reference.mean()).abs())

Dimensions: N generated images, M real images, D numbers of an image: its pixels, or its features.
"""

from abc import ABC, abstractmethod

from jaxtyping import Float
from torch import Tensor

from genlab.measures import Measure


class SampleMeasure(ABC):
    """A measure of generated images; its name in the ledger is its key in the configuration."""

    declaration: Measure
    """Unit, kind and direction."""
    of_features: bool = False
    """True to measure the features of each extractor, whose name ends that of the measure, instead of the pixels."""
    protocol: str = ""
    """The choices of the measure, such as "k=5", which must be equal for a comparison."""

    @abstractmethod
    def compute(self, generated: Float[Tensor, "N *D"], reference: Float[Tensor, "M *D"]) -> float:
        """Return the value.

        Args:
            generated: Images in [0, 1], (N, C, H, W), or features, (N, F).
            reference: Those of real images of the reference split.
        """
