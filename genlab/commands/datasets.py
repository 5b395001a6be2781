"""`genlab datasets`: every option of ``dataset=`` with the first sentence of its file; or a summary of one data set.

The summary reads the data as training would, so that errors in them are reported before a run is started.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from genlab.config.catalogue import options_of
from genlab.config.consequences import require_effect
from genlab.config.fields import check_fields
from genlab.launch.contract import JobContext
from genlab.tables import described

# Data sets bring torch, which the list does without: they are imported only where one is read.


@dataclass(frozen=True, kw_only=True)
class DatasetsSettings:
    """The keys of configs/datasets.yaml."""

    dataset: dict[str, Any] | None
    """The data set to summarise; None lists all."""


def read(values: Mapping[str, Any], overrides: Sequence[str]) -> DatasetsSettings:
    """Return the checked settings.

    Raises:
        ConfigurationError: Something in them does not fit.
    """
    settings = check_fields(DatasetsSettings, {"dataset": None, **values}, "")
    if settings.dataset is not None:
        require_effect({"dataset": settings.dataset}, overrides)
        from genlab.config.build import bind
        from genlab.data.dataset import Dataset

        bind(settings.dataset, "dataset", expects=Dataset)
    return settings


def run(settings: DatasetsSettings, context: JobContext) -> None:
    """Print one line for each data set, or the summary of one of them.

    Raises:
        DataError: The data set cannot be used; the message names every file at fault.
    """
    if settings.dataset is None:
        print(described(options_of("dataset", context.config_folders).items(), indent=""))
        return
    from genlab.config.build import build
    from genlab.data.dataset import Dataset
    from genlab.data.survey import describe

    for block in describe(build(settings.dataset, "dataset", expects=Dataset)):
        print(block, flush=True)
