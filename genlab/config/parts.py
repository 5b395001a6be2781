"""Parts of a model that the command line replaces by others."""

from collections.abc import Mapping, Sequence
from typing import Any

from genlab.config.build import PARTIAL, TARGET, parameters_of, takes_any_name
from genlab.config.compose import parse_overrides
from genlab.config.targets import find_target

_MODEL = "model"


def with_replaced_parts(values: Mapping[str, Any], overrides: Sequence[str]) -> Mapping[str, Any]:
    """Return a configuration without what a preset sets for a part of its own that the command line has replaced.

    ``model=infogan model/generator=mlp``: the preset's ``generator.weight_std`` is of no MLP. A key that was typed, or
    that the new part takes, stays.

    Args:
        values: Plain data.
        overrides: The command line.

    Raises:
        ConfigurationError: The target of a part does not exist.
    """
    keys = [override.key_or_group for override in parse_overrides(overrides)]
    model = values.get(_MODEL)
    if not isinstance(model, Mapping):
        return values
    replaced = {}
    for group, _, part in (key.partition("/") for key in keys):
        node, place = model.get(part) if group == _MODEL else None, f"{_MODEL}.{part}."
        if isinstance(node, Mapping) and TARGET in node:
            parameters = parameters_of(find_target(node[TARGET], place.rstrip(".")))
            typed = (key.removeprefix(place).partition(".")[0] for key in keys if key.startswith(place))
            taken = {TARGET, PARTIAL, *parameters, *typed}
            is_open = takes_any_name(parameters)
            replaced[part] = {key: value for key, value in node.items() if is_open or key in taken}
    return {**values, _MODEL: {**model, **replaced}}
