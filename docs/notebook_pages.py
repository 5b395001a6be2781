"""Notebooks as pages: a parser of Sphinx that turns the cells and outputs of an .ipynb file into MyST."""

import json
from collections.abc import Iterator, Mapping
from typing import Any

from myst_parser.parsers.sphinx_ import MystParser


class NotebookParser(MystParser):
    """MyST's parser, for notebooks; it runs nothing and shows the outputs that the file holds."""

    supported = ("notebook",)

    def parse(self, inputstring: str, document: Any) -> None:
        """Parse a notebook into a document."""
        super().parse(as_myst(json.loads(inputstring)), document)


def as_myst(notebook: Mapping[str, Any]) -> str:
    """Return the page of a notebook: text, code, and what the code printed and showed."""
    return "\n\n".join(_parts(notebook)) + "\n"


def _parts(notebook: Mapping[str, Any]) -> Iterator[str]:
    for cell in notebook["cells"]:
        source = "".join(cell["source"])
        if cell["cell_type"] == "markdown":
            yield source
            continue
        yield _fenced("python", source)
        for output in cell["outputs"]:
            yield _shown(output)


def _shown(output: Mapping[str, Any]) -> str:
    """Return an output in the richest form that a page can hold."""
    if output["output_type"] == "stream":
        return _fenced("text", "".join(output["text"]))
    data = {kind: "".join(content) for kind, content in output["data"].items()}
    if "text/html" in data:
        return _fenced("{raw} html", data["text/html"])
    for kind in ("image/png", "image/gif"):
        if kind in data:
            source = f"data:{kind};base64,{''.join(data[kind].split())}"
            return _fenced("{raw} html", f'<img src="{source}" alt="" style="max-width: 100%">')
    return _fenced("text", data["text/plain"])


def _fenced(language: str, text: str) -> str:
    return f"````{language}\n{text.rstrip()}\n````"
