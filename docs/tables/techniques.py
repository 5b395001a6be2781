"""Write the compatibility tables of docs/gans.md from the rules in the code.

python docs/tables/techniques.py
"""

import re
from collections.abc import Sequence
from functools import cache
from pathlib import Path
from typing import Any

from omegaconf import OmegaConf
from torch import nn

from genlab.config.build import build
from genlab.config.location import config_directory
from genlab.models.gan.objectives import Objective
from genlab.models.gan.techniques.base import Technique
from genlab.models.gan.techniques.compatibility import Combination, Remark, remarks

PAGE = Path(__file__).parents[1] / "gans.md"
BEGIN, END = "<!-- made by python docs/tables/techniques.py -->\n", "<!-- end -->\n"
CONSTRAINED, UNCONSTRAINED = "non_saturating", "wasserstein"


@cache
def techniques() -> dict[str, Technique]:
    """Return every technique of the configuration tree, with its settings there."""
    nodes = map(_node, sorted((config_directory() / "technique").glob("*.yaml")))
    return {
        name: build(part, f"model.techniques.{name}", expects=Technique)
        for node in nodes
        for name, part in node.items()
    }


@cache
def objectives() -> dict[str, Objective]:
    """Return every objective of the configuration tree, the one that needs a bounded slope last."""
    folder = config_directory() / "model" / "objective"
    found = {
        path.stem: build(_node(path), "model.objective", expects=Objective) for path in sorted(folder.glob("*.yaml"))
    }
    return dict(sorted(found.items(), key=lambda item: item[1].needs_a_bounded_slope))


@cache
def found_in(objective: str, names: tuple[str, ...], *, normalized: bool = False) -> list[Remark]:
    """Return the remarks on techniques with an objective, optionally with batch normalisation in the discriminator."""
    used = {name: part for name, part in techniques().items() if name in names}
    network = nn.BatchNorm2d(1) if normalized else nn.Identity()
    return remarks(Combination(objective=objectives()[objective], techniques=used, network=network, num_levels=256))


def tables() -> str:
    """Both tables and the lines that they refer to."""
    lines: list[str] = []

    def cell(found: Sequence[Remark]) -> str:
        if not found:
            return "works"
        first = found[0]
        if first.message not in lines:
            lines.append(first.message)
        return f"{'refused' if first.is_refusal else 'warned'} ({lines.index(first.message) + 1})"

    columns = [(name, False) for name in objectives()] + [(CONSTRAINED, True), (UNCONSTRAINED, True)]
    heads = [f"`{name}`" + " with batch normalisation" * normalized for name, normalized in columns]
    by_objective = [
        ["`" + name + "`" if name else "no technique"]
        + [cell(found_in(objective, (name,), normalized=normalized)) for objective, normalized in columns]
        for name in ["", *techniques()]
    ]
    names = list(techniques())
    pairs = [
        [f"`{row}`", *(cell(found_in(CONSTRAINED, (row, column))) if row != column else "" for column in names)]
        for row in names
    ]
    return "\n".join(
        [
            *_markdown(["", *heads], by_objective),
            "",
            *_markdown(["", *(f"`{name}`" for name in names)], pairs),
            "",
            *(f"{number}. `{line}`" for number, line in enumerate(lines, 1)),
            "",
        ]
    )


def page() -> str:
    """docs/gans.md with the tables as they should be."""
    text = PAGE.read_text("utf-8")
    return re.sub(f"{BEGIN}.*?{END}", lambda _: f"{BEGIN}{tables()}{END}", text, flags=re.DOTALL)


def _node(path: Path) -> Any:
    return OmegaConf.to_container(OmegaConf.load(path))


def _markdown(heads: Sequence[str], rows: Sequence[Sequence[str]]) -> list[str]:
    return [f"| {' | '.join(row)} |" for row in (heads, ["---"] * len(heads), *rows)]


if __name__ == "__main__":
    PAGE.write_text(page(), encoding="utf-8")
