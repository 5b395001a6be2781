"""The rank of this process, as given by the environment variables of a launcher such as torchrun."""

import os
from typing import NamedTuple

_VARIABLES = ("RANK", "WORLD_SIZE", "LOCAL_RANK", "MASTER_ADDR", "MASTER_PORT")
LAUNCHER_VARIABLE = "GENLAB_LAUNCHED"
"""Environment variable that genlab's own launcher sets if it reports the failures of its processes."""
TO_RUN_ALONE = "to run alone, leave out torchrun or unset RANK and WORLD_SIZE"


class Place(NamedTuple):
    """The rank of one process among several."""

    rank: int
    num_processes: int
    local_rank: int
    """Rank among the processes of this machine."""


def this_place() -> Place | None:
    """Return the rank of this process; None if the environment variables are incomplete."""
    *texts, address, port = (os.environ.get(name, "") for name in _VARIABLES)
    if not (address and all(text.isascii() and text.isdecimal() for text in (*texts, port))):
        return None
    place = Place(*map(int, texts))
    return place if place.rank < place.num_processes and place.local_rank < place.num_processes else None


def stray_place_warning() -> str | None:
    """Return a warning if environment variables announce other processes that no launcher has started.

    Schedulers and container images set some of the variables, and a shell keeps those of an earlier experiment.
    """
    rank, num = os.environ.get("RANK"), os.environ.get("WORLD_SIZE")
    if rank is None or num in (None, "1") or this_place() is not None:
        return None
    missing = [name for name in _VARIABLES if not os.environ.get(name)]
    reason = f"without {', '.join(missing)} they" if missing else "they"
    return f"RANK={rank} and WORLD_SIZE={num} are ignored, because {reason} are not a valid rank of a launcher"
