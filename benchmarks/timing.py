"""Timing of several ways in turns, so that other load on the machine falls on all of them."""

import time
from collections.abc import Callable, Mapping
from statistics import median


def median_seconds(
    ways: Mapping[str, Callable[[], object]],
    *,
    rounds: int,
    warm_up: int = 0,
    steps: int = 1,
    clock: Callable[[], float] = time.process_time,
) -> dict[str, float]:
    """Return the median seconds of a step of each way, over the rounds.

    Args:
        ways: Name to a step; they take turns.
        rounds: That count.
        warm_up: Rounds before these, which do not count.
        steps: Of each way in a round.
        clock: By default the CPU time of all threads of this process.
    """
    seconds: dict[str, list[float]] = {name: [] for name in ways}
    for index in range(warm_up + rounds):
        for name, step in ways.items():
            start = clock()
            for _ in range(steps):
                step()
            if index >= warm_up:
                seconds[name].append((clock() - start) / steps)
    return {name: median(times) for name, times in seconds.items()}
