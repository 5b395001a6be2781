"""docs/convolution.md: its code runs and prints what it says, and its pictures are what their program draws."""

import doctest
import re
import runpy
from pathlib import Path

DOCS = Path(__file__).parents[3] / "docs"
PAGE = (DOCS / "convolution.md").read_text(encoding="utf-8")


def test_the_code_of_the_page_runs_and_prints_what_it_says():
    blocks = re.findall(r"^```python\n(.*?)^```$", PAGE, flags=re.MULTILINE | re.DOTALL)
    assert len(blocks) == PAGE.count("```") // 2  # no block goes unseen
    examples = [doctest.DocTestParser().get_examples(block) for block in blocks]
    assert all(examples)
    # One namespace, as a reader has who types them one after the other.
    page = doctest.DocTest([e for block in examples for e in block], {}, "convolution.md", None, 0, None)
    report: list[str] = []
    results = doctest.DocTestRunner(verbose=False).run(page, out=report.append)
    assert results.attempted > 40
    assert results.failed == 0, "".join(report)


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
