"""The interface of an observer: a measure, a picture or a limit that is due between two training steps.

An observer of your own is a class and a YAML file, ``observer/brightness.yaml``, whose keys are its arguments; the line
``genlab train observer=[brightness]`` adds it to a run::

    class Brightness(Observer):
        measures = {"samples/brightness": Measure(unit="1", kind="estimate", direction="neither")}

        def __init__(self, run: TrainingRun, *, interval: int, num_samples: int) -> None:
            super().__init__(run, interval=interval)
            self.num_samples = num_samples

        def observe(self, step: int) -> StopReason | None:
            del step
            generator = generator_for(self.run.seed, "brightness", device=self.run.device)
            images = self.run.evaluated_model().sample(self.num_samples, generator=generator)
            self.run.write({"samples/brightness": float(images.mean())})
            return None
"""

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

from genlab.measures import Measure
from genlab.training.summary import StopReason

if TYPE_CHECKING:  # it imports torch, which takes a second
    from genlab.training.run import TrainingRun


class Observer(ABC):
    """Base class of observers: work that is due periodically between training steps.

    It may draw random numbers: every step seeds the default generators anew. Several processes make the same calls, and
    the first one writes.

    Args:
        run: To observe.
        interval: Steps from one look to the next; 0 never looks.
    """

    measures: Mapping[str, Measure] = MappingProxyType({})
    """The declarations of the scalars that it writes, by tag."""

    selects: str | None = None
    """The tag that chooses the best checkpoint where the model declares no measure for that; its values go through
    :meth:`genlab.training.run.TrainingRun.report`."""

    def __init__(self, run: "TrainingRun", *, interval: int) -> None:
        self.run = run
        self.interval = interval

    def due(self, step: int) -> bool:
        """Return True if it is due after a step: at every multiple of the interval, and after the last step."""
        return self.interval > 0 and (step % self.interval == 0 or step == self.run.last_step)

    @abstractmethod
    def observe(self, step: int) -> StopReason | None:
        """Observe the run after a step; a returned reason, of any process, stops all of them."""

    def stop_reason(self) -> StopReason | None:
        """Return the reason that a restored state still has to stop the run; None by default."""
        return None

    def state_dict(self) -> dict[str, Any]:
        """Return its state for the checkpoint: tensors and plain values. Empty by default."""
        return {}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Restore the state from a checkpoint."""
        del state


ObserverFactory = Callable[..., Observer]
"""Function that makes an observer of ``run``, a keyword argument."""
