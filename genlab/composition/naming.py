"""Names of run folders, and the resolvers through which Hydra asks for them."""

import hashlib
import re
import secrets
import unicodedata
from collections.abc import Callable, Sequence
from datetime import datetime
from os import environ
from typing import Any

import omegaconf
from omegaconf import OmegaConf

from genlab.composition.catalogue import settings_of

MAX_SLUG_LENGTH = 80
_HASH_LENGTH = 8
_UNSAFE = re.compile(r"[^A-Za-z0-9._-]+")


def slug(overrides: Sequence[str], *, said_elsewhere: Sequence[str] = ()) -> str:
    """A folder-safe, shell-safe summary of command-line overrides; empty when there are none.

    Each override shortens to the last part of its key and the last part of a path; overrides of ``hydra`` and ``sweep``
    are left out. At most 80 characters: a longer one is cut and ends in a hash of all overrides.

    Args:
        overrides: The words of the command line.
        said_elsewhere: Keys that stand in the folder's name already.

    >>> slug(["trainer.num_steps=10", "optimizer.default.lr=4e-4"])
    'num_steps-10_lr-4e-4'
    """
    told = [
        override
        for override in overrides
        if not re.match(r"[+~]*(hydra[./]|sweep\.)", override) and override.partition("=")[0] not in said_elsewhere
    ]
    parts = [_short(override) for override in told]
    text = "_".join(part for part in parts if part)
    if len(text) <= MAX_SLUG_LENGTH:
        return text
    digest = hashlib.sha256("\0".join(told).encode()).hexdigest()[:_HASH_LENGTH]
    return f"{text[: MAX_SLUG_LENGTH - _HASH_LENGTH - 1]}-{digest}"


def _short(override: str) -> str:
    key, _, value = override.lstrip("+~").partition("=")
    last_key = re.split(r"[./@]", key)[-1]
    last_value = value.strip("'\"").rstrip("/").rsplit("/", 1)[-1]
    return f"{_safe(last_key)}-{_safe(last_value)}" if last_value else _safe(last_key)


def _safe(text: str) -> str:
    plain = unicodedata.normalize("NFKD", text).encode("ascii", "ignore").decode()
    return _UNSAFE.sub("-", plain).strip("-.")


def register_resolvers(started: datetime) -> None:
    """Make the ``genlab.*`` resolvers known to OmegaConf, and close ``oc.env``.

    A resolved configuration is written into the run folder, so ``${oc.env:...}`` would copy secrets there: only
    variables of this program's own may be read.

    Args:
        started: The start of this process, the same for every folder that it names.
    """
    stamp = started.strftime("%Y-%m-%d_%H-%M-%S-%f")
    nonce = secrets.token_hex(8)

    def run_folder(resume: str | None, dataset: Any, model: Any, overrides: Sequence[str]) -> str:
        if resume is not None:
            return str(resume)
        parts = [stamp, slug(list(overrides), said_elsewhere=("model", "dataset"))]
        return f"outputs/{_safe(str(dataset))}_{_safe(str(model))}/{'_'.join(part for part in parts if part)}"

    def job_folder(number: Any, overrides: Sequence[str]) -> str:
        return "_".join(part for part in (str(number), slug(list(overrides))) if part)

    def environment(name: str, *default: str | None) -> str | None:
        if not name.startswith("GENLAB_"):
            raise ValueError(f"a configuration may read only environment variables named GENLAB_..., got '{name}'")
        if name not in environ and not default:
            raise KeyError(f"the environment variable {name} is not set")
        return environ.get(name, *default)

    resolvers: dict[str, Callable[..., str | None]] = {
        "genlab.started": lambda: stamp,
        "genlab.nonce": lambda: nonce,
        "genlab.run_folder": run_folder,
        "genlab.job_folder": job_folder,
        "genlab.settings_of": settings_of,
        "genlab.output_subdir": lambda resume: ".hydra" if resume is None else None,
        "oc.env": environment,
    }
    # OmegaConf 2.4 renames the function and warns about the old name; 2.3 has an older one under the new name.
    is_renamed = tuple(map(int, omegaconf.__version__.split(".")[:2])) >= (2, 4)
    register: Callable[..., None] = getattr(OmegaConf, "register_resolver" if is_renamed else "register_new_resolver")
    for name, resolver in resolvers.items():
        register(name, resolver, replace=True)
