"""Names of run folders, and the resolvers through which Hydra asks for them."""

import re
import secrets
import unicodedata
from collections.abc import Callable, Collection, Sequence
from typing import Any

import omegaconf
from omegaconf import OmegaConf

from genlab.config.catalogue import settings_of
from genlab.config.compose import parse_overrides
from genlab.errors import ConfigurationError

MAX_SLUG_LENGTH = 40
UNNUMBERED = "NNNN"
"""Placeholder in the name of a folder for the number that it gets when it is made."""
_IN_PARENT_NAME = ("model", "dataset")
_OWN_NAME = re.compile(r"[A-Za-z][\w.-]*", re.ASCII)
_UNSAFE = re.compile(r"[^A-Za-z0-9._-]+")


def slug(overrides: Sequence[str], *, left_out: Collection[str] = ()) -> str:
    """Return a short summary of command-line overrides that is safe in a shell; empty without overrides.

    Each override shortens to the last part of its key and the last part of a path, an experiment to its name; overrides
    of ``hydra``, ``sweep`` and ``logger`` are left out. Overrides that do not fit into 40 characters are left out too:
    the number of a folder makes its name unique, not the slug.

    Args:
        overrides: Of the command line.
        left_out: Keys that are not named.

    >>> slug(["experiment=draw_mnist", "trainer.num_steps=10"])
    'draw_mnist-num_steps-10'
    """
    parts = [
        part
        for override in overrides
        if not re.match(r"[+~]*(hydra[./]|sweep\.|logger\b)", override) and _key(override) not in left_out
        if (part := _short(override))
    ]
    text = "-".join(parts)
    while len(text) > MAX_SLUG_LENGTH and len(parts) > 1:
        parts.pop()
        text = "-".join(parts)
    return text[:MAX_SLUG_LENGTH].rstrip("-.")


def _key(override: str) -> str:
    return override.lstrip("+~").partition("=")[0]


def numbered(number: str, overrides: Sequence[str], left_out: Collection[str] = ()) -> str:
    """Return ``<number>-<slug>``, or the number alone for an empty slug."""
    return "-".join(part for part in (number, slug(overrides, left_out=left_out)) if part)


def _short(override: str) -> str:
    key, _, value = override.lstrip("+~").partition("=")
    last_key = re.split(r"[./@]", key)[-1]
    last_value = value.strip("'\"").rstrip("/").rsplit("/", 1)[-1]
    if key == "experiment" and last_value:
        return _safe(last_value)
    sign = "-" if re.match(r"-[\d.]", last_value) else ""
    last_value = re.sub(r"(?<=\de)\+(?=\d)", "", last_value)  # 1e+30 is not 1e-30
    return f"{_safe(last_key)}-{sign}{_safe(last_value)}" if last_value else _safe(last_key)


def _safe(text: str) -> str:
    plain = unicodedata.normalize("NFKD", text).encode("ascii", "ignore").decode()
    return _UNSAFE.sub("-", plain).strip("-.")


def require_name(name: object) -> None:
    """Refuse a name that is not valid for a single folder.

    Raises:
        ConfigurationError: As said.
    """
    if name is not None and not (isinstance(name, str) and _OWN_NAME.fullmatch(name)):
        raise ConfigurationError(
            f"name must be an ASCII letter followed by ASCII letters, digits, '.', '_' and '-', got {name}; "
            "hydra.run.dir=FOLDER places a run anywhere"
        )


def register_resolvers() -> None:
    """Make the ``genlab.*`` resolvers known to OmegaConf."""
    nonce = secrets.token_hex(8)

    def run_folder(resume: str | None, name: str | None, dataset: Any, model: Any, overrides: Sequence[str]) -> str:
        if resume is not None:
            return str(resume)
        own = name or numbered(UNNUMBERED, overrides, _IN_PARENT_NAME)
        return f"outputs/{_safe(str(dataset))}-{_safe(str(model))}/{own}"

    def sweep_folder(name: str | None, overrides: Sequence[str]) -> str:
        varied = {override.input_line for override in parse_overrides(overrides) if override.is_sweep_override()}
        first = sorted(overrides, key=lambda override: override not in varied)  # the keys that the sweep varies
        return f"outputs/sweeps/{name or numbered(UNNUMBERED, first)}"

    def job_folder(number: int | str, overrides: Sequence[str], in_every_job: Sequence[str]) -> str:
        return numbered(str(number).zfill(3), overrides, in_every_job)

    resolvers: dict[str, Callable[..., str | None]] = {
        "genlab.nonce": lambda: nonce,
        "genlab.run_folder": run_folder,
        "genlab.sweep_folder": sweep_folder,
        "genlab.job_folder": job_folder,
        "genlab.settings_of": settings_of,
        "genlab.output_subdir": lambda resume: ".hydra" if resume is None else None,
    }
    # OmegaConf 2.4 renames the function and warns about the old name; 2.3 has an older one under the new name.
    is_renamed = tuple(map(int, omegaconf.__version__.split(".")[:2])) >= (2, 4)
    register: Callable[..., None] = getattr(OmegaConf, "register_resolver" if is_renamed else "register_new_resolver")
    for name, resolver in resolvers.items():
        register(name, resolver, replace=True)
