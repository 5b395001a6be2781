"""Preflight checks of a sweep: its values, and representative jobs that are composed before the first one starts.

Not all jobs are composed, since there may be thousands.
"""

import itertools
import math
from collections.abc import Iterator, Sequence
from typing import Any

from hydra.core.override_parser.types import Override, ValueType
from hydra.errors import HydraException

from genlab.config.compose import Composed, Composer, parse_overrides
from genlab.config.suggestions import suggestion
from genlab.errors import ConfigurationError
from genlab.launch.search import interval_ends

_MAX_COMPOSED = 64
MAX_JOBS = 10_000
Scalar = bool | int | float | str | None


def in_fixed_order(composer: Composer, overrides: Sequence[str], *, is_search: bool) -> list[str]:
    """Return the overrides with every ``shuffle(...)`` carried out once, so that job n stays job n on resumption.

    Args:
        composer: Of the command.
        overrides: Of the sweep.
        is_search: True if jobs are chosen one by one, and not as all combinations of the values.

    Raises:
        ConfigurationError: An override sweeps over no value, or there are too many jobs.
    """
    arguments: list[str] = []
    num_values: dict[str, int] = {}
    for argument, override in zip(overrides, parse_overrides(overrides), strict=True):
        if not override.is_discrete_sweep():
            arguments.append(argument)
            continue
        key = override.get_key_element()
        num_values[key] = _num_values(composer, argument, override)
        if not is_search and math.prod(num_values.values()) > MAX_JOBS:
            raise ConfigurationError(f"{argument} must leave at most {MAX_JOBS:,} jobs; search with hydra/sweeper=tpe")
        is_shuffled = getattr(override.value(), "shuffle", False)
        arguments.append(f"{key}=choice({','.join(override.sweep_string_iterator())})" if is_shuffled else argument)
    return arguments


def _num_values(composer: Composer, argument: str, override: Override) -> int:
    """Return the number of values of a sweep; a number above the limit stands for any larger one.

    Raises:
        ConfigurationError: It has no values.
    """
    sweep: Any = override.value()
    try:
        members = sweep.range() if override.is_range_sweep() else override.sweep_iterator()
        number = sum(1 for _ in itertools.islice(members, MAX_JOBS + 1))
    except (ValueError, HydraException, ArithmeticError):  # a step of 0, or an end that is no number
        number = 0
    if number == 0:
        hint = ""
        if override.value_type == ValueType.GLOB_CHOICE_SWEEP:
            options = composer.options(override.key_or_group)
            pattern = ", ".join(sweep.include)
            hint = f"; {suggestion(pattern, options, kind='options')}" if options else "; it chooses options of a group"
        raise ConfigurationError(f"{argument} must sweep over at least one value, got 0{hint}")
    return number


def _alternatives(argument: str, override: Override) -> list[str]:
    """Return what one override becomes in the jobs of a sweep: each of its values, or the ends of an interval."""
    if not override.is_sweep_override():
        return [argument]
    key = override.get_key_element()
    if override.is_discrete_sweep():
        values = override.sweep_string_iterator()
        return [f"{key}={value}" for value in itertools.islice(values, MAX_JOBS)]
    return [f"{key}={end}" for end in interval_ends(override)]


def jobs_one_change_apart(composer: Composer, overrides: Sequence[str]) -> Iterator[tuple[list[str], Composed]]:
    """Yield every value of every swept key at least once, without the product of all of them, with its configuration.

    Options of groups are composed; another plain value is put into the configuration of the first job.
    """
    pairs = zip(overrides, parse_overrides(overrides), strict=True)
    values = [_alternatives(argument, override) for argument, override in pairs]
    first = [alternatives[0] for alternatives in values]
    parsed_first = parse_overrides(first)
    composed = composer.compose(first)
    yield first, composed
    changes = [(position, value) for position, values_of_one in enumerate(values) for value in values_of_one[1:]]
    for position, value in changes[: _MAX_COMPOSED - 1]:
        job = [*first[:position], value, *first[position + 1 :]]
        others = [override for n, override in enumerate(parsed_first) if n != position]
        (override,) = parse_overrides([value])
        is_plain = _is_plain_value(composer, override, others)
        yield job, composer.with_value(composed, override) if is_plain else composer.compose(job)


def _is_plain_value(composer: Composer, override: Override, others: Sequence[Override]) -> bool:
    """Return True if an override sets a value that no option of a group and no other override depends on."""
    key = override.key_or_group
    if override.is_delete() or not isinstance(override.value(), Scalar) or composer.options(key):
        return False
    related = [other for other in others if f"{key}.".startswith(f"{other.key_or_group}.")]
    related += [other for other in others if other.key_or_group.startswith(f"{key}.")]
    return all(composer.options(other.key_or_group) for other in related)
