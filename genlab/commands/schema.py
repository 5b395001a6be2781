"""`genlab schema`: JSON schemas of the config groups, by which editors complete and check YAML files."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from genlab.config.fields import check_fields
from genlab.config.json_schema import FOLDER, schemas
from genlab.config.location import config_directory
from genlab.launch.contract import JobContext
from genlab.storage import replace_atomically, require_writable


@dataclass(frozen=True, kw_only=True)
class SchemaSettings:
    """The settings of `genlab schema`."""

    out: str | None
    """Folder to write to; None is ``schema/`` in genlab's own configuration tree."""


def read(values: Mapping[str, Any], overrides: Sequence[str]) -> SchemaSettings:
    """Return the checked settings.

    Raises:
        ConfigurationError: Something in them does not fit.
    """
    del overrides
    return check_fields(SchemaSettings, values, "")


def run(settings: SchemaSettings, context: JobContext) -> None:
    """Write a file for each group.

    Raises:
        StorageError: The folder cannot be written.
    """
    del context
    configs = config_directory()
    folder = configs / FOLDER if settings.out is None else Path(settings.out)
    require_writable(folder, hint="out=FOLDER writes elsewhere")
    folder.mkdir(parents=True, exist_ok=True)
    for name, content in schemas(configs).items():
        replace_atomically(folder / name, f"{json.dumps(content, indent=1, ensure_ascii=False)}\n".encode())
        print(folder / name)
