"""`genlab models`: every option of ``model=``, ours and the user's, with the first line of its file."""

from collections.abc import Mapping, Sequence
from typing import Any

from genlab.config.catalogue import NoSettings, describe_options, read_nothing
from genlab.launch.contract import JobContext


def read(values: Mapping[str, Any], overrides: Sequence[str]) -> NoSettings:
    """Check that no setting was given.

    Raises:
        ConfigurationError: A setting was given.
    """
    del overrides
    return read_nothing(values)


def run(settings: NoSettings, context: JobContext) -> None:
    """Print one line for each model."""
    del settings
    for line in describe_options("model", context.config_folders):
        print(line)
