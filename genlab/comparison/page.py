"""A comparison as one HTML file that needs nothing else: to read on a phone, to print, to send.

Every text from a run passes through :func:`html.escape`; beside that, the page's own policy lets a browser run no
script but ours and load nothing at all.
"""

import base64
import hashlib
import io
import re
from collections.abc import Iterable, Iterator, Sequence
from datetime import datetime
from html import escape
from importlib.resources import files
from pathlib import Path

from PIL import Image

import genlab
from genlab.comparison.charts import Line, chart, swatch
from genlab.comparison.ranking import Column, columns_of, differing
from genlab.comparison.runs import Run, curves, newest_samples, quality_pictures
from genlab.comparison.table import cell_text, legend, parameter_text, remarks, shown
from genlab.printing import describe_seconds
from genlab.run.hyperparameters import Scalar
from genlab.storage import opened_within

MAX_DRAWN = 24
"""Runs whose curves and samples are shown; more would be neither legible nor light."""
MAX_PICTURE_SIDE = 480
_THUMBNAIL_SIDE = 118  # two rows of two images of a grid
_JPEG_QUALITY = 85
_MAX_DESCRIPTION = 200
_MAX_TOP_KEYS = 6
# Columns of their own, or of no interest beside the names.
_SHOWN_ALREADY = ("model", "dataset", "name", "device", "num_threads")
# Tags that are shown last.
_ASIDE = ("learning_rate", "gradient_norm", "images_per_second")
_FIRST = ("validation/", "quality/", "modes/", "test/")


def as_page(runs: Sequence[Run], *, command: str) -> str:
    """Return the whole page.

    Args:
        runs: In the order of the tables; the first 24 are drawn.
        command: The command line that made the page.
    """
    resources = files("genlab.comparison")
    style, script = ((resources / name).read_text(encoding="utf-8") for name in ("page.css", "page.js"))
    policy = f"default-src 'none'; img-src data:; style-src {_hash(style)}; script-src {_hash(script)}"
    title = f"{len(runs)} run{'' if len(runs) == 1 else 's'} compared"
    columns = columns_of(runs)
    shown_columns = [column for column in columns if column.direction != "neither"]
    now = datetime.now().strftime("%Y-%m-%d %H:%M")
    body = [
        f"<h1>{title}</h1>",
        f'<p class="soft">{now}, genlab {genlab.__version__}: <code>{_text(command)}</code></p>',
        _section("Runs", _overview(runs)),
        _section("Measures", _measures(runs, shown_columns) + _list([*legend(shown_columns), *remarks(runs, columns)])),
        _section("Curves", _curves(runs[:MAX_DRAWN])),
        _section("Samples", _samples(runs[:MAX_DRAWN])),
        _section("What differs", _differences(runs)),
        _section("How to repeat each run", "".join(_repetition(number, run) for number, run in _numbered(runs))),
    ]
    if len(runs) > MAX_DRAWN:
        body.insert(2, f"<p>Curves and samples are those of the first {MAX_DRAWN} runs.</p>")
    return (
        '<!DOCTYPE html>\n<html lang="en"><head><meta charset="utf-8">'
        f'<meta http-equiv="Content-Security-Policy" content="{escape(policy, quote=True)}">'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        f"<title>{title}</title><style>{style}</style></head>\n<body>\n"
        + "\n".join(body)
        + f"\n<script>{script}</script></body></html>\n"
    )


def _overview(runs: Sequence[Run]) -> str:
    """Return the table of the runs with what differs among them, below it what is the same in all; of one run all."""
    names = short_names([run.name for run in runs])
    facts: dict[str, list[tuple[Scalar, int | float | None]]] = {
        "model": [(run.model, None) for run in runs],
        "data": [(run.dataset, None) for run in runs],
        "status": [(run.status, None) for run in runs],
        **{name: [(parameter_text(run, key), None) for run in runs] for name, key in _top_keys(runs).items()},
        "step": [(None if run.step is None else f"{run.step:,}", run.step) for run in runs],
        "time": [(None if run.seconds is None else describe_seconds(run.seconds), run.seconds) for run in runs],
        "images/s": [(_grouped(run.images_per_second), run.images_per_second) for run in runs],
        "parameters": [(_grouped(run.num_parameters), run.num_parameters) for run in runs],
        "commit": [(run.commit, None) for run in runs],
        "hardware": [(run.hardware, None) for run in runs],
    }
    told = {name: cells for name, cells in facts.items() if any(text for text, _ in cells)}
    differ = {name: cells for name, cells in told.items() if len(runs) == 1 or len({text for text, _ in cells}) > 1}
    alike = [f"{name} {shown(cells[0][0])}" for name, cells in told.items() if name not in differ]
    head = ("", "#", "run", *differ)
    rows = []
    for number, run in _numbered(runs):
        cells = [
            f'<td class="thumb">{_thumbnail(number, run) if number <= MAX_DRAWN else ""}</td>',
            f'<th scope="row">{number}</th>',
            _name(run, names[number - 1]),
            *(_cell(texts[number - 1][0], sort_by=texts[number - 1][1], label=name) for name, texts in differ.items()),
        ]
        rows.append("".join(cells))
    note = f'<p class="soft">the same in all: {_text(", ".join(alike))}</p>' if alike else ""
    return _table(head, rows, kind="sortable runs") + note


def short_names(whole: Sequence[str], *, separator: str = "/") -> list[str]:
    """Return the last part of each name, with as many parts before it as make it unique."""
    parts = [shown(name).split(separator) for name in whole]
    names = []
    for own in parts:
        length = next(
            (n for n in range(1, len(own)) if sum(other[-n:] == own[-n:] for other in parts) == 1),
            len(own),
        )
        names.append(separator.join(own[-length:]))
    return names


def _top_keys(runs: Sequence[Run]) -> dict[str, str]:
    """Return settings that differ among runs which all have them, by short names; those that were typed come first."""
    typed = {override.lstrip("+~").partition("=")[0] for run in runs for override in run.overrides}
    found = [key for key in differing(runs) if all(key in run.configuration for run in runs)]
    found = [key for key in found if key not in _SHOWN_ALREADY and not key.endswith("_interval")]
    keys = sorted(found, key=lambda key: key not in typed)[:_MAX_TOP_KEYS]
    return dict(zip(short_names(keys, separator="."), keys, strict=True))


def _name(run: Run, name: str) -> str:
    return f'<td class="name" title="{_text(run.name)}">{_text(name)}</td>'


def _thumbnail(number: int, run: Run) -> str:
    path = newest_samples(run.folder)
    found = None if path is None else _embedded(run.folder, path, side=_THUMBNAIL_SIDE, crop=True)
    alternative = escape(f"Some samples of run {number}", quote=True)
    return "" if found is None else f'<a href="#samples-{number}"><img src="{found[0]}" alt="{alternative}"></a>'


def _measures(runs: Sequence[Run], columns: Sequence[Column]) -> str:
    if not columns:
        return "<p>No run has a measure that orders models.</p>"
    names = short_names([run.name for run in runs])
    rows = []
    for index, run in enumerate(runs):
        row = [f'<th scope="row">{index + 1}</th>', _name(run, names[index])]
        for column in columns:
            cell = column.cells.get(index)
            best = ' class="best"' if cell is not None and cell.is_best else ""
            value = "" if cell is None else f' data-value="{cell.record.value!r}"'
            row.append(f"<td{best}{value}{_label(column.title)}>{_text(cell_text(cell, column))}</td>")
        rows.append("".join(row))
    on_screen = _table(("#", "run", *(column.title for column in columns)), rows, kind="sortable")
    return f'<div class="screen">{on_screen}</div><div class="paper">{_upright_measures(runs, columns)}</div>'


def _upright_measures(runs: Sequence[Run], columns: Sequence[Column]) -> str:
    """Return the table of measures for print, where it cannot be scrolled."""
    rows = []
    for column in columns:
        cells = [column.cells.get(index) for index in range(len(runs))]
        rows.append(f'<th scope="row">{_text(column.title)}</th>' + "".join(_cell(cell_text(c, column)) for c in cells))
    return _table(("", *(f"#{number}" for number, _ in _numbered(runs))), rows, kind="keys")


def _curves(runs: Sequence[Run]) -> str:
    by_tag: dict[str, list[Line]] = {}
    drawn = []
    for number, run in _numbered(runs):
        found = curves(run.folder)
        if found:
            drawn.append(number)
        for tag, points in found.items():
            by_tag.setdefault(tag, []).append(Line(number, points))
    tags = sorted(
        (tag for tag in by_tag if not tag.startswith("test/")), key=lambda tag: (not tag.startswith(_FIRST), tag)
    )
    charts = {tag: drawing for tag in tags if (drawing := chart(tag, by_tag[tag]))}
    if not charts:
        return "<p>No run has written a curve.</p>"
    short = short_names([run.name for run in runs])
    names = "".join(f"<li>{swatch(number)}#{number} {_text(short[number - 1])}</li>" for number in drawn)
    aside = [tag for tag in charts if tag.rpartition("/")[2] in _ASIDE]
    text = f'<ul class="legend">{names}</ul>' + _figures(charts, [tag for tag in charts if tag not in aside])
    if aside:
        text += f"<details><summary>{', '.join(map(_text, aside))}</summary>{_figures(charts, aside)}</details>"
    return text


def _figures(charts: dict[str, str], tags: Iterable[str]) -> str:
    figures = "".join(f"<figure><figcaption>{_breakable(tag)}</figcaption>{charts[tag]}</figure>" for tag in tags)
    return f'<div class="charts">{figures}</div>'


def _samples(runs: Sequence[Run]) -> str:
    figures = []
    for number, run in _numbered(runs):
        newest = newest_samples(run.folder)
        for path in [*([] if newest is None else [newest]), *quality_pictures(run.folder)]:
            found = _embedded(run.folder, path)
            title = path.stem.replace("_", " ")
            caption = f"#{number} {_text(run.name)}, {_text(title)}"
            if found is None:
                figures.append(f'<figure><figcaption class="problem">{caption}: cannot be read</figcaption></figure>')
                continue
            address, description = found
            place = f' id="samples-{number}"' if path == newest else ""
            name = "Samples" if path == newest else title.capitalize()
            alternative = escape(f"{name} of run {number}, {shown(run.name)}", quote=True)
            told = f": {_text(description)}" if description else ""
            figures.append(
                f'<figure{place}><img src="{address}" alt="{alternative}">'
                f"<figcaption>{caption}{told}</figcaption></figure>"
            )
    return f'<div class="pictures">{"".join(figures)}</div>' if figures else "<p>No run has drawn samples.</p>"


def _embedded(folder: Path, path: Path, *, side: int = MAX_PICTURE_SIDE, crop: bool = False) -> tuple[str, str] | None:
    """Return a picture of a run folder as a data URI in the size in which it is shown, and the text that it carries.

    Args:
        folder: Of the run.
        path: In it.
        side: Pixels of the longer side.
        crop: Show the upper left part alone, at the size of the original, so that it can be read.

    Returns:
        None where the file holds no picture.
    """
    try:
        with (
            opened_within(folder, str(path.relative_to(folder))) as file,
            Image.open(file, formats=("PNG",)) as picture,
        ):
            small = picture.convert("L" if picture.mode in ("1", "L") else "RGB")
            description = str(picture.info.get("Description", ""))[:_MAX_DESCRIPTION]
    except (OSError, SyntaxError, ValueError, Image.DecompressionBombError):  # what Pillow says of bad files
        return None
    if crop:
        small = small.crop((0, 0, min(small.width, side), min(small.height, side)))
    small.thumbnail((side, side))
    buffer = io.BytesIO()
    if small.mode == "L":
        small.save(buffer, "PNG", optimize=True)
    else:
        small.save(buffer, "JPEG", quality=_JPEG_QUALITY)
    kind = "png" if small.mode == "L" else "jpeg"
    return f"data:image/{kind};base64,{base64.b64encode(buffer.getvalue()).decode()}", description


def _differences(runs: Sequence[Run]) -> str:
    keys = differing(runs)
    if not keys:
        return "<p>Nothing in the configurations that can be read.</p>"
    head = ("key", *(f"#{number}" for number, _ in _numbered(runs)))
    rows = [
        f'<th scope="row">{_breakable(key)}</th>' + "".join(_cell(parameter_text(run, key)) for run in runs)
        for key in keys
    ]
    return _table(head, rows, kind="keys")


def _repetition(number: int, run: Run) -> str:
    facts = [
        f"commit {run.commit}" if run.commit else "",
        run.hardware or "",
        f"seed {run.seed}" if run.seed is not None else "",
    ]
    lines = [f"{run.status}: {run.reason}"] if run.reason else []
    problems = "".join(f'<p class="problem">{_text(line)}</p>' for line in (*lines, *run.problems))
    commands = "\n".join(map(_text, run.commands)) or "not known: no .hydra/hydra.yaml and no environment.json"
    return (
        f'<section class="run"><h3>#{number} {_text(run.name)}</h3><pre>{commands}</pre>'
        f'<p class="soft">{_text(", ".join(fact for fact in facts if fact))}</p>{problems}</section>'
    )


def _numbered(runs: Sequence[Run]) -> Iterator[tuple[int, Run]]:
    return enumerate(runs, start=1)


def _section(title: str, content: str) -> str:
    return f"<section><h2>{title}</h2>\n{content}</section>"


def _table(head: Sequence[str], rows: Sequence[str], *, kind: str) -> str:
    heads = "".join(f'<th scope="col"{_label(name)}>{_text(name)}</th>' for name in head)
    body = "".join(f"<tr>{row}</tr>\n" for row in rows)
    table = f'<table class="{kind}"><thead><tr>{heads}</tr></thead>\n<tbody>{body}</tbody></table>'
    return f'<div class="scroll">{table}</div>'


def _cell(value: Scalar, *, sort_by: int | float | None = None, label: str = "") -> str:
    order = "" if sort_by is None else f' data-value="{sort_by!r}"'
    return f"<td{order}{_label(label)}>{_text(value)}</td>"


def _label(text: str) -> str:
    """Return the attribute by which a narrow screen, without the head of the table, names a cell."""
    return f' data-label="{_text(text)}"' if text else ""


def _list(lines: Sequence[str]) -> str:
    return f"<ul>{''.join(f'<li>{_text(line)}</li>' for line in lines)}</ul>" if lines else ""


def _grouped(number: int | float | None) -> str | None:
    return None if number is None else f"{number:,.0f}"


def _text(value: Scalar) -> str:
    return escape(shown(value), quote=True)


def _breakable(value: str) -> str:
    """Return the name of a tag or key, which may break between its words alone."""
    return re.sub("(?<=[/_.])", "<wbr>", _text(value))


def _hash(text: str) -> str:
    return f"'sha256-{base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()}'"
