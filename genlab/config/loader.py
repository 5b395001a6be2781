"""Hydra's loader of configurations, which composes the same overrides once."""

import copy
from collections.abc import Sequence
from typing import Any

from hydra._internal.config_loader_impl import ConfigLoaderImpl
from hydra._internal.config_repository import CachingConfigRepository
from hydra.core.object_type import ObjectType
from hydra.core.override_parser.types import Override
from hydra.types import RunMode


class Loader(ConfigLoaderImpl):
    """Loader of one command.

    We compose before Hydra does, to check what will run; and Hydra's sweepers and its launchers both compose each job.
    A question about a group's options would open the configuration tree anew.
    """

    def __init__(self, search_path: Any) -> None:
        super().__init__(search_path)
        self._composed: dict[tuple[RunMode, tuple[str, ...]], Any] = {}
        self._trees: dict[tuple[str | None, ...], CachingConfigRepository] = {}

    def load_configuration(
        self, config_name: str | None, overrides: list[str], run_mode: RunMode, *args: Any, **options: Any
    ) -> Any:
        """Compose a command's configuration, or return the earlier composition itself."""
        key = (run_mode, tuple(overrides))
        if key not in self._composed:
            self._composed[key] = super().load_configuration(config_name, overrides, run_mode, *args, **options)
        return self._composed[key]

    def load_sweep_config(self, master_config: Any, sweep_overrides: list[str]) -> Any:
        """Compose a job, or copy the earlier composition for the same overrides: Hydra changes it."""
        return copy.deepcopy(super().load_sweep_config(master_config, sweep_overrides))

    def get_group_options(
        self,
        group_name: str,
        results_filter: ObjectType | None = ObjectType.CONFIG,
        config_name: str | None = None,
        overrides: list[str] | None = None,
    ) -> list[str]:
        """Return the options of a group, from the tree of an earlier composition if there is one."""
        tree = self._trees.get(_tree_key(config_name, overrides or []))
        if tree is None:
            return super().get_group_options(group_name, results_filter, config_name, overrides)
        return tree.get_group_options(group_name, results_filter)

    def _parse_overrides_and_create_caching_repo(
        self, config_name: str | None, overrides: list[str]
    ) -> tuple[list[Override], CachingConfigRepository]:
        # Each composition opens a tree of its own: it changes the configurations that its tree has read.
        parsed, tree = super()._parse_overrides_and_create_caching_repo(config_name, overrides)
        self._trees[_tree_key(config_name, overrides)] = tree
        return parsed, tree

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_composed": {}, "_trees": {}}  # it goes to the workers of a launcher


def _tree_key(config_name: str | None, overrides: Sequence[str]) -> tuple[str | None, ...]:
    """Return what decides the folders of a configuration tree: the main configuration and hydra.searchpath."""
    return (config_name, *(override for override in overrides if override.startswith("hydra.searchpath")))
