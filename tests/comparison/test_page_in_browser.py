"""The page as a browser shows it: on a phone, sorted, in print, and with a hostile run."""

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from genlab.comparison.page import as_page
from genlab.comparison.runs import read_runs
from tests.browser import browser, screenshot
from tests.comparison.conftest import RunMaker, entry
from tests.comparison.test_page import HOSTILE

if TYPE_CHECKING:
    from playwright.sync_api import Page

pytestmark = pytest.mark.slow


@pytest.fixture
def page(make_run: RunMaker, tmp_path: Path) -> "Iterator[tuple[Page, list[str]]]":
    """Return the page on a phone, and its errors."""
    for number, value in enumerate((82.0, 80.0, 81.0, 9.0)):
        measures = [entry("nll_nats", value), *(entry(f"precision_{name}", 0.5) for name in "abcdefghij")]
        curve = [100.0 / (step + 1) + number for step in range(30)]
        make_run(f"run{number}", measures=measures[: 1 if number else None], has_samples=True, curve=curve)
    make_run(HOSTILE, summary={"reason": HOSTILE}, configuration={"seed": HOSTILE}, choices={"model": HOSTILE})
    path = tmp_path / "page.html"
    path.write_text(as_page(read_runs([tmp_path / "outputs"]), command="genlab compare"), encoding="utf-8")
    told: list[str] = []
    with browser() as opened:
        shown = opened.new_page(viewport={"width": 390, "height": 844})
        shown.on("pageerror", lambda error: told.append(str(error)))
        shown.on("console", lambda message: told.append(message.text))
        shown.on("dialog", lambda dialog: (told.append(dialog.message), dialog.dismiss()))
        shown.goto(path.as_uri())
        yield shown, told


def column(page: "Page", head: str) -> list[str]:
    """Return the run names of the measure table, from top to bottom."""
    return page.locator(f"table.sortable:has(th:has-text('{head}')) tbody td.name").all_inner_texts()


def test_a_phone_shows_everything_without_sliding_the_page(page: "tuple[Page, list[str]]", tmp_path: Path) -> None:
    shown, told = page
    screenshot(shown, "comparison_phone", tmp_path)
    assert shown.evaluate("document.documentElement.scrollWidth") <= 390
    assert shown.evaluate("[...document.images].every((image) => image.complete && image.naturalWidth > 0)")
    assert told == []


def test_a_press_on_a_head_sorts_by_number_and_then_the_other_way(page: "tuple[Page, list[str]]") -> None:
    shown, told = page
    shown.set_viewport_size({"width": 1280, "height": 900})
    head = shown.get_by_role("button", name="nll_nats (lower)")
    head.click()
    rising = column(shown, "nll_nats")
    assert [name for name in rising if name.startswith("run")] == ["run3", "run1", "run2", "run0"]
    assert not rising[-1].startswith("run")  # no value: last either way
    head.click()
    assert column(shown, "nll_nats")[:4] == ["run0", "run2", "run1", "run3"]
    assert told == []


def test_a_phone_sorts_by_a_choice_above_the_rows(page: "tuple[Page, list[str]]") -> None:
    shown, told = page
    assert not shown.locator("table.sortable thead").first.is_visible()
    bar = shown.locator(".sorter:has(option:text('nll_nats (lower)'))")
    bar.locator("select").select_option(label="sort by nll_nats (lower)")
    assert [name for name in column(shown, "nll_nats") if name.startswith("run")] == ["run3", "run1", "run2", "run0"]
    bar.get_by_role("button").click()
    assert column(shown, "nll_nats")[:4] == ["run0", "run2", "run1", "run3"]
    assert shown.locator("td[data-label='nll_nats (lower)']").first.is_visible()
    assert told == []


def test_an_injected_script_would_not_run(page: "tuple[Page, list[str]]") -> None:
    shown, told = page
    shown.evaluate("document.body.append(Object.assign(document.createElement('script'), {text: 'alert(4)'}))")
    assert any("Content Security Policy" in line for line in told)
    assert not any(line == "4" for line in told)


def test_on_paper_the_measures_stand_upright(page: "tuple[Page, list[str]]") -> None:
    shown, _ = page
    assert not shown.locator(".paper").is_visible()
    shown.emulate_media(media="print")
    assert shown.locator(".paper").is_visible()
    assert not shown.locator(".screen").is_visible()
    assert shown.locator(".paper tbody th").first.inner_text() == "nll_nats (lower)"
