"""`genlab schema`: JSON schemas of the YAML files, with which editors complete and check them."""

import json
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from typing import get_type_hints

from genlab.config.fields import reader_of
from genlab.config.json_schema import FOLDER, TRAIN, schemas
from genlab.config.location import config_directory
from genlab.launch.contract import JobContext
from genlab.storage import replace_atomically, require_writable


@dataclass(frozen=True, kw_only=True)
class SchemaSettings:
    """The settings of `genlab schema`."""

    out: str | None
    """Folder to write to; None is ``schema/`` in genlab's own configuration tree."""


read = reader_of(SchemaSettings)


def settings_of_commands(configs: Path) -> dict[str, type]:
    """Return the settings class of each command, except for `genlab train`."""
    commands = sorted(path.stem for path in configs.glob("*.yaml") if path.stem != TRAIN)
    readers = {command: import_module(f"genlab.commands.{command}").read for command in commands}
    return {command: get_type_hints(reader)["return"] for command, reader in readers.items()}


def run(settings: SchemaSettings, context: JobContext) -> None:
    """Write a file for each group and each command.

    Raises:
        StorageError: The folder cannot be written.
    """
    del context
    configs = config_directory()
    folder = configs / FOLDER if settings.out is None else Path(settings.out)
    require_writable(folder)
    folder.mkdir(parents=True, exist_ok=True)
    for name, content in schemas(configs, settings_of_commands(configs)).items():
        replace_atomically(folder / name, f"{json.dumps(content, indent=1, ensure_ascii=False)}\n".encode())
        print(folder / name)
