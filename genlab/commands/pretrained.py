"""`genlab pretrained`: the quick twins' models by name, exported into one folder with an index of their digests."""

import signal
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from genlab.commands import export
from genlab.commands.export import ExportSettings
from genlab.comparison.results import changes
from genlab.comparison.runs import Run, folders_of_runs, read_run
from genlab.config.fields import reader_of
from genlab.config.suggestions import suggestion
from genlab.errors import CheckpointError, ConfigurationError
from genlab.launch.contract import JobContext
from genlab.launch.processes import GENLAB
from genlab.paths import from_here
from genlab.run.names import RUNS_ROOT, WEIGHTS_NAME
from genlab.run.pretrained import (
    VARIABLE,
    digests,
    find_pretrained,
    known_names,
    overrides_of,
    own_folder,
    write_index,
)
from genlab.signals import handling
from genlab.storage import require_writable
from genlab.tables import described


@dataclass(frozen=True, kw_only=True)
class PretrainedSettings:
    """The keys of configs/pretrained.yaml.

    Raises:
        ValueError: A name is unknown, or everything and something are asked for.
    """

    names: tuple[str, ...]
    all: bool

    def __post_init__(self) -> None:
        known = known_names()
        for name in self.names:
            if name not in known:
                raise ValueError(f"names has no '{name}'; {suggestion(name, known, kind='names')}")
        if self.names and self.all:
            raise ValueError("all must be false with names")


read = reader_of(PretrainedSettings)


def run(settings: PretrainedSettings, context: JobContext) -> None:
    """List the pretrained models, or make some: exports of finished runs of ``outputs/``, trained first if missing.

    Raises:
        CheckpointError: A pretrained model is damaged.
        ConfigurationError: A training was stopped before its end, or something else has the name of a model.
        SystemExit: A training failed.
        StorageError: The folder cannot be written.
    """
    if not settings.names and not settings.all:
        print("\n".join(_list()))
        return
    place = own_folder()
    require_writable(place, setting=f"{VARIABLE}=FOLDER")
    num_made = 0
    for name in settings.names or known_names():
        if (place / name).exists():
            if find_pretrained(name) != place / name:
                raise ConfigurationError(f"{from_here(place / name)} is no pretrained model; remove or rename it")
            print(f"{name} exists already: {from_here(place / name)}")
            continue
        found = _finished(name)
        if found is None and settings.all:
            continue
        if found is None:
            _train(name)
            found = _finished(name)
        if found is None:
            raise ConfigurationError(f"{name} was not finished; genlab pretrained {name} resumes its training")
        export.run(ExportSettings(run=str(found.folder), checkpoint="best", out=str(place / name)), context)
        write_index(place)
        num_made += 1
    if settings.all and not num_made:
        print(f"no further finished run of a quick experiment in {RUNS_ROOT}/; to train one: genlab pretrained NAME")


def _list() -> Iterator[str]:
    rows = []
    for name in known_names():
        text = f"genlab pretrained {name} makes it"
        try:
            folder = find_pretrained(name)
        except CheckpointError as error:
            folder, text = None, str(error)
        if folder is not None:
            size = (folder / WEIGHTS_NAME).stat().st_size
            text = f"{size / 1e6:.1f} MB, SHA-256 {digests(folder).get('', '')[:12]}, {from_here(folder)}"
        rows.append((name, text))
    yield described(rows)
    yield "genlab sample run=NAME draws from one, genlab.load('NAME') loads it."


def _finished(name: str) -> Run | None:
    """Return the newest finished run of ``outputs/`` with exactly the settings of the pretrained model."""
    runs = [each for each in _runs(name) if each.status == "finished"]
    return max(runs, key=lambda each: (each.folder / "summary.json").stat().st_mtime, default=None)


def _runs(name: str) -> Iterator[Run]:
    for folder in folders_of_runs(Path(RUNS_ROOT)):
        each = read_run(folder, name=folder.name)
        choices = (f"experiment={each.experiment}",) if each.experiment else (f"model={each.model}", "dataset=digits")
        is_seeded = any(override.startswith("seed=") for override in each.overrides)
        if overrides_of(name)[0] in choices and set(changes(each)) <= {*choices, *overrides_of(name)} and not is_seeded:
            yield each


def _train(name: str) -> None:
    unfinished = next((each for each in _runs(name) if each.folder.name == name), None)
    arguments = [*overrides_of(name), f"name={name}"] if unfinished is None else [f"resume={unfinished.folder}"]
    # In a session of its own, so that Ctrl-C reaches it once: by this process, which waits until it has saved.
    with subprocess.Popen([sys.executable, *GENLAB, "train", *arguments], start_new_session=True) as training:
        forwarded = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
        with handling({number: lambda number, _: training.send_signal(number) for number in forwarded}):
            code = training.wait()
    if code != 0:
        raise SystemExit(code)
