"""The experiments' headers: what each reproduces, at what cost, and the published values.

An experiment's file opens with comments of this form, which :func:`read_experiment` alone knows::

    # @package _global_
    # Title: what is reproduced, with the paper.
    # command:    genlab train experiment=NAME
    # cost:       20 minutes of one CPU core
    # measures:   nll_upper_bound_nats, nll_importance_weighted_nats
    # published:  nll_upper_bound_nats = 80.97 +- 0.1 (arXiv:1502.04623, table 2)
    # ours:       docs/results.md
    # differs:    from the paper in what
    # expected:   nll_upper_bound_nats = 85.12 +- 0.5 (one run; docs/results.md)
    # result:     DRAW: with attention, binarised MNIST
    # twin:       NAME_quick
    # picture:    docs/pictures/NAME.png

``measures`` are lines of the ledger; ``published`` is ``none``, with an optional remark, or one entry for each value.
The last four fields are optional: ``expected`` is the value that a repetition of this experiment should reach, with a
tolerance, in the form of ``published``; ``result`` is the family of models and the task, and experiments with the same
text aim at the same published value; ``twin`` is the experiment that stands for it on two CPU cores, ``picture`` a
picture that a run of it has made. A field continues in the comment lines below it that are indented.
"""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from genlab.config.catalogue import files_of, head_of, with_inherited
from genlab.errors import ConfigurationError

FIELDS = ("command", "cost", "measures", "published", "ours", "differs")
OPTIONAL_FIELDS = ("expected", "result", "twin", "picture")

_FIELD = re.compile(rf"({'|'.join((*FIELDS, *OPTIONAL_FIELDS))}): +(.*)")
_ENTRY = re.compile(r"(?P<measure>\w+) = (?P<value>-?[\d.]+)(?: \+- (?P<deviation>[\d.]+))? \(.+\)", re.ASCII)
_MODEL = re.compile(r"^  - override /model: (\w+)$", re.MULTILINE)


@dataclass(frozen=True, kw_only=True)
class Published:
    """A value that a paper reports, or that a run of ours reached before."""

    value: float
    deviation: float | None
    """Of what is expected, the tolerance."""
    text: str
    """The value with its deviation and its source, as written in the header."""


@dataclass(frozen=True, kw_only=True)
class Experiment:
    """An experiment, as described by its header."""

    name: str
    title: str
    """The result that is reproduced, with the paper."""
    model: str
    """The option of ``model=`` that it trains."""
    command: str
    cost: str
    measures: tuple[str, ...]
    """Of the ledger, in the order in which they are reported."""
    published: dict[str, Published]
    """By measure; empty where nothing was published."""
    remark: str
    """Remark of the header if nothing was published, at least "none"."""
    ours: str
    differs: str
    """Differences from the paper, or from the experiment whose quick version it is."""
    expected: dict[str, Published]
    """By measure, each with a tolerance; empty where nothing was measured."""
    result: str
    """Family of models and task, "FAMILY: TASK"; "MODEL: NAME" where the header has no family or no result."""
    twin: str | None
    """The quick version of this experiment for two CPU cores."""
    picture: str | None
    """Path of a picture in the repository that a run of it has made."""


def read_experiments(folders: Sequence[Path], problems: list[str] | None = None) -> list[Experiment]:
    """Return the experiments of configuration trees by name; the first tree takes precedence.

    Args:
        folders: The trees.
        problems: Gets the errors of incomplete headers, whose experiments are left out.

    Raises:
        ConfigurationError: A header is incomplete, and there is no list of problems.
    """
    experiments = []
    for path in files_of("experiment", folders).values():
        try:
            experiments.append(read_experiment(path))
        except ConfigurationError as error:
            if problems is None:
                raise
            problems.append(str(error))
    return experiments


def read_experiment(path: Path) -> Experiment:
    """Return the parsed header of an experiment's file.

    Raises:
        ConfigurationError: It is incomplete, or a value is not in the form given above.
    """
    fields: dict[str, list[str]] = {}
    title: list[str] = []
    last = title
    for line in head_of(path):
        match = _FIELD.fullmatch(line)
        if match:
            last = fields.setdefault(match[1], [])
        last.append(match[2] if match else line)
    missing = [name for name in FIELDS if name not in fields]
    if missing:
        raise ConfigurationError(f"{path}: the header lacks '# {missing[0]}:'; it needs {', '.join(FIELDS)}")
    measures = tuple(name.strip() for name in " ".join(fields["measures"]).split(","))
    published = _entries("published", fields["published"], path)
    expected = _entries("expected", fields.get("expected", ["none"]), path)
    for field, entries in (("published", published), ("expected", expected)):
        for name, entry in entries.items():
            if name not in measures:
                raise ConfigurationError(f"{path}: {name} is {field} and not among '# measures:'")
            if field == "expected" and entry.deviation is None:
                raise ConfigurationError(
                    f"{path}: {name} is expected without a tolerance: 'value +- tolerance (source)'"
                )
    model, result = _model(path), " ".join(fields.get("result", [path.stem]))
    return Experiment(
        name=path.stem,
        title=" ".join(title),
        model=model,
        measures=measures,
        published=published,
        remark="" if published else " ".join(fields["published"]),
        expected=expected,
        result=result if ": " in result else f"{model}: {result}",
        twin=fields.get("twin", [None])[0],
        picture=fields.get("picture", [None])[0],
        **{name: " ".join(fields[name]) for name in ("command", "cost", "ours", "differs")},
    )


def _model(path: Path) -> str:
    named = [name for file in with_inherited(path) for name in _MODEL.findall(file.read_text(encoding="utf-8"))]
    return named[-1] if named else "draw"


def _entries(field: str, lines: Sequence[str], path: Path) -> dict[str, Published]:
    if lines[0] == "none" or lines[0].startswith("none;"):
        return {}
    entries: list[str] = []
    for line in lines:
        if " = " in line.partition("(")[0]:
            entries.append(line)
        else:
            entries[-1:] = [f"{' '.join(entries[-1:])} {line}".strip()]
    found = {}
    for entry in entries:
        match = _ENTRY.fullmatch(entry)
        if match is None:
            raise ConfigurationError(
                f"{path}: {field} must be 'none', 'none; remark' or 'measure = value (source)', got '{entry}'"
            )
        found[match["measure"]] = Published(
            value=float(match["value"]),
            deviation=None if match["deviation"] is None else float(match["deviation"]),
            text=entry.partition(" = ")[2],
        )
    return found
