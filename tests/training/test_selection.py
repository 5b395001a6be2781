"""The choice of the best step: which values are better, and what is forgotten."""

import pytest

from genlab.measures import Direction
from genlab.training.selection import Selection
from genlab.training.summary import Summary


def make(direction: Direction = "lower", patience: int | None = None) -> Selection:
    return Selection(Summary(), tag="x", direction=direction, patience=patience)


@pytest.mark.parametrize(("direction", "best"), [("lower", 2), ("higher", 3), ("neither", 2)])
def test_lower_values_are_better_unless_higher_ones_are(direction: Direction, best: int) -> None:
    selection = make(direction)
    for step, value in enumerate((2.0, 1.0, 3.0, 1.0), start=1):
        selection.consider({"x": value}, step)
    assert selection.best_step == best


def test_patience_begins_anew_where_the_best_step_is_forgotten() -> None:
    selection = make(patience=1)
    for step, value in enumerate((1.0, 2.0)):
        selection.consider({"x": value}, step)
    assert selection.exhausted() is not None
    selection.forget()
    assert (selection.best_step, selection.exhausted()) == (None, None)
    selection.consider({"x": 5.0}, 2)
    assert selection.best_step == 2


def test_patience_counts_from_the_best_step() -> None:
    selection = make(patience=2)
    reasons = [selection.consider({"x": value}, step) for step, value in enumerate((3.0, 4.0, 2.0, 2.0, 5.0))]
    assert [reason is None for reason in reasons] == [True, True, True, True, False]
    assert reasons[-1] is not None
    assert reasons[-1].text.startswith("x has not improved for 2 validations; ")
    assert selection.best_step == 2
