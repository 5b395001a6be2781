"""Configurations of training as the command line composes them."""

from typing import Any

from genlab.config.compose import open_composer, plain
from genlab.config.naming import register_resolvers
from genlab.config.schema import RunConfiguration, read_run_configuration


def values_of(*overrides: str) -> dict[str, Any]:
    """Return the resolved configuration of `genlab train OVERRIDES`."""
    register_resolvers()
    with open_composer("train", config_dir=None) as composer:
        return plain(composer.compose([*overrides]))


def configuration_of(*overrides: str) -> RunConfiguration:
    """Return the same, checked and bound."""
    return read_run_configuration(values_of(*overrides))
