"""`genlab datasets`: every option of ``dataset=`` with the first line of its file; with one of them, a look at it.

The look reads the data as training would, so that what would end a run is said before one is started.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from genlab.config.catalogue import describe_options
from genlab.config.fields import check_fields
from genlab.launch.contract import JobContext

# Data sets bring torch, which the list does without: they are imported where one is looked at.


@dataclass(frozen=True, kw_only=True)
class DatasetsSettings:
    """The keys of configs/datasets.yaml."""

    dataset: dict[str, Any] | None
    """The one to look at; None lists all."""


def read(values: Mapping[str, Any], overrides: Sequence[str]) -> DatasetsSettings:
    """The checked settings.

    Raises:
        ConfigurationError: Something in them does not fit.
    """
    del overrides
    settings = check_fields(DatasetsSettings, {"dataset": None, **values}, "")
    if settings.dataset is not None:
        from genlab.config.build import bind
        from genlab.data.dataset import Dataset

        bind(settings.dataset, "dataset", expects=Dataset)
    return settings


def run(settings: DatasetsSettings, context: JobContext) -> None:
    """Print one line for each data set, or what one of them holds.

    Raises:
        DataError: The one cannot be used; its message names every file to blame.
    """
    if settings.dataset is None:
        for line in describe_options("dataset", context.config_folders):
            print(line)
        return
    from genlab.config.build import build
    from genlab.data.dataset import Dataset
    from genlab.data.survey import describe

    for block in describe(build(settings.dataset, "dataset", expects=Dataset)):
        print(block, flush=True)
