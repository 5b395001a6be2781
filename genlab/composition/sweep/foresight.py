"""Which jobs of a sweep are composed and checked before the first one starts: not all, for there may be thousands."""

import itertools
from collections.abc import Iterator, Sequence

from hydra.core.override_parser.types import Override

from genlab.composition.composer import Composer
from genlab.composition.sweep.search import interval_ends

MAX_CHECKED_AHEAD = 64


def jobs_of_every_choice(composer: Composer, overrides: Sequence[str]) -> Iterator[list[str]]:
    """Every combination of the groups' options, each of which can bring settings of Hydra; no plain value can.

    None where all options are genlab's own: outside of Hydra's groups, over which nothing sweeps, these bring none.
    """
    if not composer.has_foreign_options(overrides):
        return
    values = []
    for line, override in zip(overrides, composer.parse(overrides), strict=True):
        alternatives = _alternatives(line, override)
        is_choice = len(alternatives) > 1 and composer.options(override.key_or_group, overrides)
        values.append(alternatives if is_choice else alternatives[:1])
    yield from map(list, itertools.product(*values))


def _alternatives(line: str, override: Override) -> list[str]:
    """What an override becomes in the jobs of a sweep; of an interval, its ends."""
    key = override.get_key_element()
    if not override.is_sweep_override():
        return [line]
    if override.is_discrete_sweep():
        return [f"{key}={value}" for value in override.sweep_string_iterator()]
    return [f"{key}={end}" for end in interval_ends(override)]


def jobs_one_change_apart(composer: Composer, overrides: Sequence[str]) -> Iterator[list[str]]:
    """Every value of every swept key at least once, without the product of all of them."""
    values = [_alternatives(line, parsed) for line, parsed in zip(overrides, composer.parse(overrides), strict=True)]
    first = [alternatives[0] for alternatives in values]
    yield first
    num_yielded = 1
    for position, alternatives in enumerate(values):
        for alternative in alternatives[1:]:
            if num_yielded == MAX_CHECKED_AHEAD:
                return
            yield [*first[:position], alternative, *first[position + 1 :]]
            num_yielded += 1
