"""A headless Chromium for the tests of web pages."""

import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from playwright.sync_api import Browser, Page

SCREENSHOTS_VARIABLE = "GENLAB_SCREENSHOTS"
"""Environment variable with the folder of the screenshots."""
_PROGRAMS = ("chromium", "chromium-browser", "google-chrome")


@contextmanager
def browser() -> "Iterator[Browser]":
    """Yield Playwright's own Chromium, or one of the system's; skip the test if there is none."""
    playwright = pytest.importorskip("playwright.sync_api", reason="needs playwright: pip install 'genlab[browser]'")
    program = next((found for name in _PROGRAMS if (found := shutil.which(name))), None)
    with playwright.sync_playwright() as started:
        try:
            opened = started.chromium.launch()
        except playwright.Error:
            if program is None:
                pytest.skip("needs a Chromium: playwright install chromium, or the system's package")
            opened = started.chromium.launch(executable_path=program)
        try:
            yield opened
        finally:
            opened.close()


def screenshot(page: "Page", name: str, folder: Path) -> Path:
    """Save a screenshot in the folder that GENLAB_SCREENSHOTS names, or else in the given one."""
    page.wait_for_timeout(3000)  # charts are drawn some time after their data came
    path = Path(os.environ.get(SCREENSHOTS_VARIABLE) or folder) / f"{name}.png"
    page.screenshot(path=path)
    return path
