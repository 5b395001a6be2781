"""Every test of this folder can count what it tries and what survives."""

import pytest

from tests.faults.tally import Tally


@pytest.fixture
def tally(request: pytest.FixtureRequest) -> Tally:
    """Counts of one test; its report carries them, also from another process."""
    return Tally(request.node.user_properties)
