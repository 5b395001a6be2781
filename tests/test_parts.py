"""docs/parts.md: its code runs and prints what it says, and packages offer what they list."""

from importlib import import_module

import pytest

from tests.pages import run_code_of


def test_the_code_of_the_page_runs_and_prints_what_it_says() -> None:
    assert run_code_of("parts.md") > 40


@pytest.mark.parametrize("name", ["genlab.metrics", "genlab.models.draw", "genlab.models.pixelcnn"])
def test_a_package_has_what_it_lists(name: str) -> None:
    package = import_module(name)
    room = ".".join(name.split(".")[:2])
    assert all(getattr(package, public).__module__.startswith(room) for public in package.__all__)
