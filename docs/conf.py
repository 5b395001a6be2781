"""The documentation as a site: ``make docs``."""

import sys
from pathlib import Path

HERE = Path(__file__).parent
sys.path.insert(0, str(HERE))

project = "genlab"
author = "the genlab authors"
extensions = ["myst_parser"]
html_theme = "pydata_sphinx_theme"
html_title = "genlab"
html_show_copyright = False
exclude_patterns = ["_build"]
myst_heading_anchors = 3
myst_enable_extensions = ["dollarmath"]
html_theme_options = {"secondary_sidebar_items": ["page-toc"], "navigation_with_keys": False}


def setup(app: object) -> None:
    """Write the generated page before Sphinx looks for pages."""
    del app
    from keys import reference

    page = HERE / "keys.md"
    text = reference()
    if not page.exists() or page.read_text(encoding="utf-8") != text:
        page.write_text(text, encoding="utf-8")
