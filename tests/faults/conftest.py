"""Every test of this folder is marked as one of faults, and can count what it tries and what survives."""

from pathlib import Path

import pytest

from tests.faults.harness import TINY, fork
from tests.faults.tally import Tally

FOLDER = Path(__file__).parent


@pytest.hookimpl(tryfirst=True)  # before the tests are chosen by their marks
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        if FOLDER in item.path.parents:
            item.add_marker(pytest.mark.fault)


@pytest.fixture
def tally(request: pytest.FixtureRequest) -> Tally:
    """Counts of one test; its report carries them, also from another process."""
    return Tally(request.node.user_properties)


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The undisturbed tiny run of DRAW."""
    folder = tmp_path_factory.mktemp("whole") / "run"
    fork(*TINY["draw"], folder=folder).succeed()
    return folder
