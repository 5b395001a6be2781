"""Pretrained models by name: exports in one folder, with an index of their digests.

They are searched in ``GENLAB_PRETRAINED``, else ``pretrained/`` in the user's cache, and then in the package, which
ships the smallest one. ``SHA256SUMS`` in such a folder is the index, in the format of ``sha256sum --check``.
"""

import os
import re
from collections.abc import Iterator, Mapping
from contextlib import suppress
from pathlib import Path

import genlab
from genlab.config.location import config_directory
from genlab.errors import CheckpointError, ConfigurationError
from genlab.paths import absolute, expanded, from_here, user_cache
from genlab.storage import replace_atomically

VARIABLE = "GENLAB_PRETRAINED"
INDEX_NAME = "SHA256SUMS"
_CONFIG_NAME, _WEIGHTS_NAME = "config.yaml", "model.safetensors"
_DIGITS = "digits_draw"
_QUICK = "_quick"
_LINE = re.compile(r"^([0-9a-f]{64}) [ *](\w+)/model\.safetensors$", re.MULTILINE)


def overrides_of(name: str) -> list[str]:
    """Return the overrides of `genlab train` that make a pretrained model."""
    return ["model=draw"] if name == _DIGITS else [f"experiment={name}"]


def known_names() -> list[str]:
    """Return the names of all pretrained models: the digits of DRAW, and every quick experiment."""
    return [_DIGITS, *sorted(path.stem for path in (config_directory() / "experiment").glob(f"*{_QUICK}.yaml"))]


def own_folder() -> Path:
    """Return the folder of the user's pretrained models.

    Raises:
        ConfigurationError: The home folder is unknown.
    """
    named = os.environ.get(VARIABLE, "")
    return Path(expanded(named, VARIABLE)).absolute() if named else user_cache() / "pretrained"


def find_pretrained(name: str) -> Path | None:
    """Return the folder of a pretrained model; None if it does not exist.

    Raises:
        CheckpointError: It has no weights, or its digest is not that of the index.
    """
    if not re.fullmatch(r"\w+", name, re.ASCII):
        return None
    for place in _places():
        folder = place / name
        if not (folder / _CONFIG_NAME).is_file():
            continue
        if not (folder / _WEIGHTS_NAME).is_file():
            reason = f"it has no {_WEIGHTS_NAME}"
        elif digests(folder).get("") != digests(place).get(name):
            reason = f"its digest is not that of {place / INDEX_NAME}"
        else:
            return folder
        raise CheckpointError(f"{from_here(folder)} is damaged: {reason}; remove it, then genlab pretrained {name}")
    return None


def require_made(name: str) -> None:
    """Refuse the name of a missing pretrained model, with the command that makes it.

    Raises:
        ConfigurationError: As said.
    """
    if name in known_names():
        raise ConfigurationError(f"{name} is not in {from_here(own_folder())}; to train it: genlab pretrained {name}")


def outside(folder: Path) -> Path:
    """Return a folder to write to for a run: its own, or for a pretrained model its counterpart below outputs/."""
    for place in _places():
        if absolute(folder).is_relative_to(place):
            return Path("outputs/pretrained") / absolute(folder).relative_to(place)
    return folder


def is_pretrained(folder: Path) -> bool:
    """Return True if a folder lies among the pretrained models."""
    return outside(folder) != folder


def digests(folder: Path) -> Mapping[str, str]:
    """Return the digests of an index by name; that of a single export by ""."""
    try:
        text = (folder / INDEX_NAME).read_text(encoding="ascii")
    except (OSError, ValueError):
        return {}
    single = re.match(rf"([0-9a-f]{{64}}) [ *]{re.escape(_WEIGHTS_NAME)}$", text, re.MULTILINE)
    return {"": single[1]} if single else {name: digest for digest, name in _LINE.findall(text)}


def write_index(place: Path) -> None:
    """Write the index of the exports in a folder."""
    found = {folder.name: digests(folder).get("") for folder in sorted(place.iterdir()) if folder.is_dir()}
    lines = [f"{digest}  {name}/{_WEIGHTS_NAME}\n" for name, digest in found.items() if digest]
    replace_atomically(place / INDEX_NAME, "".join(lines).encode())


def _places() -> Iterator[Path]:
    with suppress(ConfigurationError):  # no home
        yield own_folder()
    yield Path(genlab.__file__).absolute().parent / "pretrained"
