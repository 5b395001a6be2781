"""The documentation as a site: ``make docs``."""

import sys
from pathlib import Path
from typing import Any

HERE = Path(__file__).parent
sys.path.insert(0, str(HERE))

project = "genlab"
author = "the genlab authors"
extensions = ["myst_parser"]
html_theme = "pydata_sphinx_theme"
html_title = "genlab"
html_show_copyright = False
exclude_patterns = ["_build", "**/.ipynb_checkpoints"]
myst_heading_anchors = 3
myst_enable_extensions = ["dollarmath"]
html_sidebars: dict[str, list[str]] = {"**": []}  # all pages are in the bar at the top
html_theme_options = {
    "secondary_sidebar_items": ["page-toc"],
    "navigation_with_keys": False,
    "header_links_before_dropdown": 3,  # more do not fit beside the search at 1280 pixels
}
html_context = {"default_mode": "auto"}  # without it the theme writes an error to the browser's console


def setup(app: Any) -> None:
    """Write the generated page before Sphinx looks for pages, and let notebooks be pages."""
    from keys import reference
    from notebook_pages import NotebookParser

    app.add_source_suffix(".ipynb", "notebook")
    app.add_source_parser(NotebookParser)
    page = HERE / "keys.md"
    text = reference()
    if not page.exists() or page.read_text(encoding="utf-8") != text:
        page.write_text(text, encoding="utf-8")
