"""Selection of the best step of a run, and early stopping, by one measure of held-out images."""

from collections.abc import Mapping

from genlab.measures import Direction
from genlab.training.summary import StopReason, Summary


class Selection:
    """The best step so far by one measure, and the number of measurements since.

    Args:
        summary: Of the run; its ``best`` holds the values of the best step.
        tag: The measure; None chooses no step.
        direction: Lower values are better unless it is "higher".
        patience: Stop after so many looks without a better value; None never stops.
    """

    def __init__(self, summary: Summary, *, tag: str | None, direction: Direction, patience: int | None) -> None:
        self.summary = summary
        self.tag = summary.selected_by = tag
        self.num_without_gain = 0
        self.is_best = False
        """True from a look that was the best so far until :meth:`take_is_best`."""
        self._is_higher_better = direction == "higher"
        self._patience = patience

    @property
    def best_step(self) -> int | None:
        """The step of the best weights; None if no measure has selected one."""
        return int(self.summary.best["step"]) if self.summary.best else None

    def consider(self, values: Mapping[str, float], step: int) -> StopReason | None:
        """Compare new values with the best ones; return a stop reason when patience is exhausted.

        Args:
            values: By tag; without the measure, nothing happens.
            step: Of the weights that were measured.
        """
        if self.tag is None or self.tag not in values:
            return None
        if not self.summary.best or self._is_better(values[self.tag], self.summary.best[self.tag]):
            self.summary.best = {**values, "step": float(step)}
            self.num_without_gain = 0
            self.is_best = True
            return None
        self.num_without_gain += 1
        return self.exhausted()

    def exhausted(self) -> StopReason | None:
        """Return a stop reason if patience is exhausted."""
        if self._patience is None or self.num_without_gain < self._patience:
            return None
        num = self.num_without_gain
        text = f"{self.tag} has not improved for {num} validation{'' if num == 1 else 's'}"
        hint = f"to continue, resume with trainer.early_stopping_patience={num + 1} or more"
        return StopReason(f"{text}; {hint}", is_final=True)

    def forget(self) -> None:
        """Forget the best step: earlier values are not comparable with new ones."""
        self.summary.best = {}
        self.num_without_gain = 0

    def take_is_best(self) -> bool:
        """Return True once for a measurement that was the best so far."""
        is_best, self.is_best = self.is_best, False
        return is_best

    def _is_better(self, value: float, other: float) -> bool:
        return value > other if self._is_higher_better else value < other
