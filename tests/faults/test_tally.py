"""The counting itself."""

import pytest

from tests.faults.tally import Tally, table


def test_what_raises_has_been_tried_and_has_not_survived() -> None:
    properties: list[tuple[str, object]] = [("other", 3)]
    tally = Tally(properties)
    with tally.trying("10 disk full", "saves", count=2):
        pass
    with pytest.raises(AssertionError), tally.trying("10 disk full", "saves"):
        raise AssertionError
    tally.wrong_variant_noticed("2 kill -9", "a plain write")
    assert table(properties)[2:] == [
        "| 2 kill -9 | wrong variant: a plain write | 1 | 1 |",
        "| 10 disk full | saves | 3 | 2 |",
    ]
    assert table([("other", 3)]) == []
