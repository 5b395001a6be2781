"""The record of a folder of samples: their settings and number; and the array names of an NPZ."""

from pathlib import Path
from typing import Any

from genlab.errors import ConfigurationError
from genlab.storage import read_json

RECORD_NAME = "sampling.json"
NPZ_NAME = "samples.npz"
IMAGES_KEY, LABELS_KEY = "arr_0", "arr_1"
"""Arrays of an NPZ of samples, named as ``numpy.savez`` names unnamed ones."""


def read_record(folder: Path) -> dict[str, Any] | None:
    """Return the record of a folder of samples; None if absent.

    Raises:
        ConfigurationError: It is damaged.
    """
    try:
        record = read_json(folder, RECORD_NAME)
    except FileNotFoundError:
        return None
    except (OSError, ValueError) as error:
        raise ConfigurationError(f"{folder / RECORD_NAME} cannot be read; name another folder") from error
    if not isinstance(record.get("is_finished"), bool):
        raise ConfigurationError(f"{folder / RECORD_NAME} is not the record of a sampling; name another folder")
    return record
