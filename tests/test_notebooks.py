"""docs/notebooks: their code runs, and what they hold is what a page can show."""

import ast
import json
import runpy
from pathlib import Path
from typing import Any

import pytest

from tests.pages import DOCS

NOTEBOOKS = sorted((DOCS / "notebooks").glob("*.ipynb"))
PICTURES = {"first_film": 3, "own_pictures": 3}
MAX_BYTES = 1_000_000


def code_cells(path: Path) -> list[dict[str, Any]]:
    return [cell for cell in json.loads(path.read_text(encoding="utf-8"))["cells"] if cell["cell_type"] == "code"]


def test_these_are_the_notebooks() -> None:
    assert [path.stem for path in NOTEBOOKS] == sorted(PICTURES)


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_a_notebook_holds_the_outputs_of_one_execution_and_nothing_of_its_machine(path: Path) -> None:
    text = path.read_text(encoding="utf-8")
    assert len(text) < MAX_BYTES
    assert not any(place in text for place in ("/tmp/", "/home/", "/root/", "Traceback"))
    cells = code_cells(path)
    assert [cell["execution_count"] for cell in cells] == list(range(1, len(cells) + 1))
    assert all(output["output_type"] in ("stream", "execute_result") for cell in cells for output in cell["outputs"])


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_the_page_of_a_notebook_shows_its_code_its_text_and_its_pictures(path: Path) -> None:
    pytest.importorskip("myst_parser")
    page = runpy.run_path(str(DOCS / "notebook_pages.py"))["as_myst"](json.loads(path.read_text(encoding="utf-8")))
    assert page.startswith("# ")
    assert page.count("````python\n") == len(code_cells(path))
    assert page.count('<img src="data:image/') == PICTURES[path.stem]
    assert "````text\n" in page


@pytest.mark.slow
@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_the_code_of_a_notebook_runs(path: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Cell by cell in one namespace; the last expression of a cell is shown, as a notebook would."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    names: dict[str, Any] = {}
    num_pictures = 0
    for cell in code_cells(path):
        *body, last = ast.parse("".join(cell["source"])).body
        if not isinstance(last, ast.Expr):
            body, last = [*body, last], None  # type: ignore[list-item, assignment]
        exec(compile(ast.Module(body, []), path.name, "exec"), names)  # noqa: S102 - our own page
        if last is not None:
            shown = eval(compile(ast.Expression(last.value), path.name, "eval"), names)  # noqa: S307
            html = shown._repr_html_() if hasattr(shown, "_repr_html_") else ""
            num_pictures += "<img" in html or (hasattr(shown, "_repr_png_") and bool(shown._repr_png_()))
    assert num_pictures == PICTURES[path.stem]
