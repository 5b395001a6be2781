"""The model card of an exported model: its description, its training, its measures and their limits.

Its sections are those of Mitchell et al., "Model Cards for Model Reporting" (arXiv:1810.03993) that genlab can fill.
"""

from collections.abc import Collection, Iterable, Iterator, Sequence

from genlab.comparison.results import markdown_table
from genlab.comparison.runs import Run
from genlab.comparison.table import rounded, shown
from genlab.printing import describe_seconds
from genlab.run.exported import Origin
from genlab.run.measured import Record
from genlab.run.names import DIGESTS_NAME, WEIGHTS_NAME
from genlab.types import ImageSpec

_HEAD = ("measure", "value", "s.e.", "unit", "kind", "split", "images", "samples", "seed", "details")


def as_card(
    run: Run,
    spec: ImageSpec,
    origin: Origin,
    *,
    python: str,
    commands: Iterable[str],
    digest: str,
    packages: Collection[str],
) -> str:
    """Return the card in Markdown.

    Args:
        run: As read from its folder.
        spec: Of the images it was trained on.
        origin: Of the weights.
        python: Lines that load and use the model.
        commands: Names of the commands that take it.
        digest: SHA-256 of their file.
        packages: Of the user's own code that the model or its settings name.
    """
    parts = [
        f"# {_text(run.model)} on {_text(run.dataset)}",
        f"{_code(run.configuration.get('model'))}, trained and exported with genlab {origin.genlab_version}.",
        "## Model",
        _list(_facts(run, spec, origin, digest)),
        _keys(run, "model"),
        "## Use",
        _block("python", python),
        f"On the command line: {', '.join(f'`genlab {name} run=THIS_FOLDER`' for name in commands)}. Nothing in "
        f"this folder is code. `sha256sum --check {DIGESTS_NAME}` verifies the weights.",
        *_needs(packages),
        "Intended use: study, teaching and comparison of generative models. Not intended for any decision about "
        "people, nor to pass its images off as real.",
        "## Limits",
        "It is for images of the size above that resemble its training data, with whatever is "
        "missing, repeated or biased there. It was measured as told below and on nothing else; a bound on the "
        "likelihood, or a distance between features, does not say how its images look. Whether it has memorised "
        "training images was not measured.",
        "## Training data",
        _text(run.provenance) or "Not recorded: the run was not evaluated.",
        _keys(run, "dataset"),
        "## Training",
        _block("sh", "\n".join(_plain(line) for line in run.commands) or "# not recorded"),
        _list(_cost(run)),
        _keys(run, "trainer", "optimizer", "schedule"),
        "## Measures",
        _measures(run, origin),
        "## Licence",
        "Of these weights: to be filled in by whoever publishes them. Of the training data: genlab does not know; ask "
        "their publisher.",
    ]
    return "\n\n".join(parts) + "\n"


def _needs(packages: Collection[str]) -> Iterator[str]:
    if packages:
        names = ",".join(packages)
        yield (
            f"The model needs code that is not in this folder: install the Python package {_code(names)} and set "
            f"{_code(f'GENLAB_ALLOW={names}')}."
        )


def _facts(run: Run, spec: ImageSpec, origin: Origin, digest: str) -> list[str]:
    parameters = "not recorded" if run.num_parameters is None else f"{run.num_parameters:,}"
    classes = f"{spec.num_classes} classes" if spec.num_classes else "no classes"
    return [
        f"parameters: {parameters}",
        f"images: {spec.channels} x {spec.height} x {spec.width} (channels, height, width), {spec.num_levels} levels, "
        f"{classes}",
        f"weights: {origin.weights}, of {origin.checkpoint} at step {int(origin.step):,}, in `{WEIGHTS_NAME}`, SHA-256 "
        f"`{digest}`",
        f"names, shapes and types of the weights: SHA-256 `{origin.model_fingerprint}`",
    ]


def _cost(run: Run) -> list[str]:
    seconds = "not recorded" if run.seconds is None else describe_seconds(run.seconds)
    speed = "not recorded" if run.images_per_second is None else f"{run.images_per_second:,.0f} images per second"
    steps = "not recorded" if run.step is None else f"{run.step:,} of {run.num_steps or 0:,}, {_text(run.status)}"
    return [
        f"seed: {_text(run.seed)}",
        f"steps: {steps}",
        f"cost: {seconds} on {_text(run.hardware) or 'unknown hardware'}; {speed}",
        f"commit of genlab: {_text(run.commit) or 'not recorded (an installed package)'}",
    ]


def _measures(run: Run, origin: Origin) -> str:
    records = [record for record in run.records if not record.monitored]
    if not records:
        return "None on test data: `genlab evaluate run=RUN` before exporting enters them here."
    rows = [*map(_row, records), *(_row(record, of="no model, ") for record in run.baselines)]
    lines = [markdown_table(_HEAD, [tuple(map(_text, row)) for row in rows])]
    if run.measured_step is not None and run.measured_step != int(origin.step):
        lines.append(
            f"Measured with the weights of step {run.measured_step:,}; those exported are of step {int(origin.step):,}."
        )
    lines.append(
        "An upper bound of a negative log-likelihood is at least the exact value. Rows of `no model` are what needs no "
        "training, on the same images, to compare with. Numbers compare only with those of equal data, split, "
        "binarisation and protocol."
    )
    return "\n\n".join(lines)


def _row(record: Record, of: str = "") -> tuple[str, ...]:
    details = (record.dataset, f"binarisation {record.binarization}", f"weights {record.weights}")
    known = [*details, record.protocol, record.features and f"features {record.features}"]
    if record.num_importance_samples is not None:
        known.append(f"K = {record.num_importance_samples}")
    return (
        record.name,
        rounded(record),
        "" if record.standard_error is None else f"{record.standard_error:.3g}",
        record.unit,
        record.kind,
        record.split,
        _count(record.num_examples),
        _count(record.num_generated),
        "" if record.seed is None else str(record.seed),
        of + ", ".join(part for part in known if part),
    )


def _keys(run: Run, *groups: str) -> str:
    """Return the settings of some groups, one per line."""
    lines = [
        f"{key}: {shown(value)}"
        for key, value in run.configuration.items()
        if key.partition(".")[0] in groups and value is not None
    ]
    return _block("", "\n".join(map(_plain, lines)))


def _count(number: int | None) -> str:
    return "" if number is None else f"{number:,}"


def _list(lines: Sequence[str]) -> str:
    return "\n".join(f"- {line}" for line in lines)


def _block(language: str, content: str) -> str:
    return f"```{language}\n{content}\n```"


def _code(value: object) -> str:
    return f"`{_plain(str(value))}`"


def _plain(text: str) -> str:
    """Return the text as a line of a code block that it cannot close."""
    return shown(text).replace("`", "'")


def _text(value: object) -> str:
    """Return a text of a run with its markup escaped."""
    text = shown(value if isinstance(value, str | int | float | bool | None) else str(value))
    return "".join(f"\\{character}" if character in "\\`*[]<>|#" else character for character in text)
