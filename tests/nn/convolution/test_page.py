"""docs/convolution.md: its code runs and prints what it says, and its pictures are what their program draws."""

import re
import runpy

import pytest

from tests.pages import DOCS, run_code_of

PAGE = (DOCS / "convolution.md").read_text(encoding="utf-8")


@pytest.mark.slow
def test_the_code_of_the_page_runs_and_prints_what_it_says():
    assert run_code_of("convolution.md") > 40


def test_the_numbers_of_the_document_stand_on_the_page():
    for number in ("-23.16021220252078", "0.15585932488906465", "9.60899067587", "10.5817412755", "76.3710691956"):
        assert number in PAGE


def test_the_pictures_are_what_their_program_draws():
    pictures = runpy.run_path(str(DOCS / "pictures" / "draw_convolution.py"))["draw_pictures"]()
    assert len(pictures) == 2
    for name, content in pictures.items():
        assert f"(pictures/{name})" in PAGE
        committed = (DOCS / "pictures" / name).read_text(encoding="utf-8")
        assert committed == content, f"python docs/pictures/draw_convolution.py draws another {name}"


def test_the_links_of_the_page_lead_somewhere():
    targets = [link for link in re.findall(r"\]\(([^)#]+)\)", PAGE) if not link.startswith("http")]
    assert len(targets) == 5
    for target in targets:
        assert (DOCS / target).exists(), target
