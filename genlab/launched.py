"""The place that a launcher such as torchrun gives this process among those that it starts, in the environment."""

import os
from typing import NamedTuple


class Place(NamedTuple):
    """Of one process among several."""

    rank: int
    num_processes: int
    local_rank: int
    """Rank among the processes of this machine."""


def this_place() -> Place | None:
    """None where no launcher has given a whole one: some environments set a part of it for themselves."""
    texts = [os.environ.get(name, "") for name in ("RANK", "WORLD_SIZE", "LOCAL_RANK")]
    return Place(*map(int, texts)) if all(text.isdigit() for text in texts) else None
