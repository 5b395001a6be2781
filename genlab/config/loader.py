"""Hydra's loader of configurations, which composes the same overrides once."""

import copy
from typing import Any

from hydra._internal.config_loader_impl import ConfigLoaderImpl
from hydra.types import RunMode

_MAX_JOBS_KEPT = 64


class Loader(ConfigLoaderImpl):
    """Loader of one command.

    We compose before Hydra does, to check what will run; and Hydra's sweepers and its launchers both compose each job.
    """

    def __init__(self, search_path: Any) -> None:
        super().__init__(search_path)
        self._composed: dict[tuple[RunMode, tuple[str, ...]], Any] = {}
        self._jobs: dict[tuple[str, ...], Any] = {}

    def load_configuration(
        self, config_name: str | None, overrides: list[str], run_mode: RunMode, *args: Any, **options: Any
    ) -> Any:
        """Compose a command's configuration, or return the earlier composition itself."""
        key = (run_mode, tuple(overrides))
        if key not in self._composed:
            self._composed[key] = super().load_configuration(config_name, overrides, run_mode, *args, **options)
        return self._composed[key]

    def load_sweep_config(self, master_config: Any, sweep_overrides: list[str]) -> Any:
        """Compose a job, or return the earlier composition for the same overrides."""
        key = (*master_config.hydra.overrides.hydra, *sweep_overrides)
        if key in self._jobs:
            return self._jobs.pop(key)
        job = super().load_sweep_config(master_config, sweep_overrides)
        if len(self._jobs) < _MAX_JOBS_KEPT:
            self._jobs[key] = copy.deepcopy(job)
        return job

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_composed": {}, "_jobs": {}}  # it goes to the workers of a launcher
