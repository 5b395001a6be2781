"""Lookup of runs by name: a folder, ``last``, or a prefix of a name.

A run is named by its path, by its folder below ``outputs/`` (``mnist-dcgan/0007-lr-1e-3``), by a unique beginning of
either, or as a pretrained model (:mod:`genlab.run.pretrained`). ``last`` is the run that was started or resumed last,
``last:mnist-dcgan`` the last one below a folder.
"""

from collections.abc import Iterable, Iterator
from pathlib import Path

from genlab.config.suggestions import nearest
from genlab.errors import ConfigurationError
from genlab.paths import expanded
from genlab.run.pretrained import find_pretrained, known_names, require_made

CONFIG_NAME = "config.yaml"
WEIGHTS_NAME = "model.safetensors"
"""File name of the weights of an export, which has no checkpoints."""
DIGESTS_NAME = "SHA256SUMS"
"""File name of their digest."""
RUNS_ROOT = "outputs"
LAST = "last"
STARTED_NAME = ".hydra"
_MAX_RUNS_LISTED = 5


def find_run(name: str | Path) -> Path:
    """Return the folder of an existing run.

    Args:
        name: Path, name, unique beginning of a name, ``last`` or ``last:FOLDER``.

    Raises:
        ConfigurationError: There is no such run, or there are several; the message names the nearest.
    """
    text = expanded(str(name), "run")
    path = Path(text)
    if (path / CONFIG_NAME).is_file():
        return path
    if (path / STARTED_NAME).is_dir():
        raise ConfigurationError(f"the run in {text} ended before training (no {CONFIG_NAME}): repeat its command")
    if (found := named_run(text)) is not None:
        return found
    for above in path.parents:
        if path.exists() and (above / CONFIG_NAME).is_file() and above.name != STARTED_NAME:
            raise ConfigurationError(f"a run is named by its folder, got {text} in it; did you mean '{above}'?")
    if path != Path() and (inside := [file.parent for file in path.glob(f"*/{CONFIG_NAME}")]):
        newest = _listed(map(str, sorted(inside, key=_time_of_start, reverse=True)))
        raise ConfigurationError(f"{text} is a folder of runs; name one of them, the newest first: {newest}")
    require_made(text)
    known = {str(run): run for run in runs_under(Path(RUNS_ROOT))}
    by_name = {run.name: shown for shown, run in known.items()}
    beside = [shown for shown, run in known.items() if run.parent == path.parent]
    guess = nearest(text, [*(beside or known), *([LAST] if known else [])]) or by_name.get(
        nearest(path.name, by_name) or ""
    )
    guess = guess or nearest(text, known_names())
    if guess:
        raise ConfigurationError(f"there is no run in {text}; did you mean '{guess}'?")
    names = sorted(known, key=lambda name: _time_of_start(known[name]), reverse=True)
    listed = f"the newest runs: {_listed(names)}" if names else f"no runs in {RUNS_ROOT}/ either"
    place = "this folder" if path == Path() else text  # `run=` names no run
    raise ConfigurationError(f"there is no run in {place} (no {CONFIG_NAME}); {listed}")


def named_run(name: str) -> Path | None:
    """Return the run or the export of a name that is not a path; None if none has it.

    Raises:
        ConfigurationError: Several runs have names that begin like this, or there is no last run.
    """
    keyword, _, place = name.partition(":")
    if keyword == LAST and not Path(name).exists():
        return _last_below(place)
    if not name or Path(name).exists() or ".." in name:
        return None
    beginning = name.removeprefix(f"{RUNS_ROOT}/")
    runs = {run.relative_to(RUNS_ROOT).as_posix(): run for run in runs_under(Path(RUNS_ROOT))}
    for matches in (
        [run for run in runs.values() if run.name == beginning.rstrip("/")],
        # A slash at the end tells pixelcnn/ from pixelcnn_pp/.
        [run for shown, run in runs.items() if any(f"{it}/".startswith(beginning) for it in (shown, run.name))],
    ):
        if len(matches) > 1:
            raise ConfigurationError(f"{name} is the beginning of {len(matches)} runs: {_listed(map(str, matches))}")
        if matches:
            return matches[0]
    exported = Path(RUNS_ROOT) / beginning
    return exported if (exported / CONFIG_NAME).is_file() else find_pretrained(name)


def named_place(name: str) -> Path:
    """Return a folder of runs by its path, or by that below ``outputs/``; else the run of the name; else the path.

    Raises:
        ConfigurationError: As of :func:`named_run`.
    """
    place = Path(name)
    below = Path(RUNS_ROOT, name)
    if not place.exists() and ".." not in place.parts and below.is_dir():
        return below
    return named_run(name) or place


def names_beginning_with(text: str) -> list[str]:
    """Return the names, for a completion, of all runs and pretrained models that begin with a text."""
    root = "" if text.startswith(RUNS_ROOT[:4]) else RUNS_ROOT  # shorter, it may also become out=
    runs = [run.relative_to(root).as_posix() for run in runs_under(Path(RUNS_ROOT))]
    pretrained = [name for name in known_names() if find_pretrained(name) is not None]
    return [name for name in (*([LAST] if runs else []), *runs, *pretrained) if name.startswith(text)]


def runs_under(root: Path) -> Iterator[Path]:
    """Yield every run folder at or below a folder, sorted; without exports."""
    for path in sorted(root.rglob(CONFIG_NAME)):
        if path.parent.name != STARTED_NAME and not is_export(path.parent):
            yield path.parent


def nearest_folder(name: str, others: Iterable[Path] = ()) -> Path | None:
    """Return the folder of a run or of several, below ``outputs/`` or among others, with the most similar name."""
    below = (folder for run in runs_under(Path(RUNS_ROOT)) for folder in (run.parent, run))
    by_name = {path.name: path for path in (*below, *others) if path.is_dir()}
    guess = nearest(name, by_name)
    return None if guess is None else by_name[guess]


def is_export(folder: Path) -> bool:
    """Return True if a folder holds exported weights instead of checkpoints."""
    is_incomplete = (folder / DIGESTS_NAME).exists() and not (folder / "checkpoints").exists()
    return (folder / WEIGHTS_NAME).exists() or is_incomplete


def _last_below(place: str) -> Path:
    below = Path(RUNS_ROOT) / place
    root = Path(place) if place and Path(place).is_dir() and not below.is_dir() else below
    newest = max(runs_under(root), key=_time_of_start, default=None)
    if newest is None:
        guess = nearest_folder(place)
        way_on = f"did you mean '{LAST}:{guess.relative_to(RUNS_ROOT)}'?" if guess else "train one: genlab train"
        raise ConfigurationError(f"{LAST} must name a run, but there is no run below {root}/; {way_on}")
    return newest


def _time_of_start(run: Path) -> float:
    """Return the time of a run's last start or resumption, which writes its configuration."""
    return (run / CONFIG_NAME).stat().st_mtime


def _listed(names: Iterable[str]) -> str:
    found = list(names)
    return ", ".join([*found[:_MAX_RUNS_LISTED], *(["..."] if len(found) > _MAX_RUNS_LISTED else [])])
