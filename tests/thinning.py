"""Of many cases of one kind, some in ``make test`` and the others in ``make test-slow``."""

from collections.abc import Iterable
from typing import Any

import pytest


def thinned(cases: Iterable[Any], every: int) -> list[Any]:
    """Return the cases, all but the first of each ``every`` marked as slow."""
    return [case if number % every == 0 else slow(case) for number, case in enumerate(cases)]


def slow(case: Any) -> Any:
    """Return a case, alone or a tuple of values, that is marked as slow."""
    return pytest.param(*(case if type(case) is tuple else (case,)), marks=pytest.mark.slow)
