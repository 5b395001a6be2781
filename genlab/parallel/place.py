"""The place that a launcher such as torchrun gives this process among those that it starts, in the environment."""

import os
import socket
from typing import NamedTuple

from genlab.errors import ConfigurationError

_VARIABLES = ("RANK", "WORLD_SIZE", "LOCAL_RANK", "MASTER_ADDR", "MASTER_PORT")
_SECONDS_TO_CONNECT = 10.0
LAUNCHER_VARIABLE = "GENLAB_LAUNCHED"
"""Set where genlab's own launcher tells how the processes ended."""
TO_RUN_ALONE = "to run alone, leave out torchrun or unset RANK and WORLD_SIZE"


class Place(NamedTuple):
    """Of one process among several."""

    rank: int
    num_processes: int
    local_rank: int
    """Rank among the processes of this machine."""


def this_place() -> Place | None:
    """Return the place of this process; None where no launcher has given it a whole one."""
    *texts, address, port = (os.environ.get(name, "") for name in _VARIABLES)
    if not (address and all(text.isascii() and text.isdecimal() for text in (*texts, port))):
        return None
    place = Place(*map(int, texts))
    return place if place.rank < place.num_processes and place.local_rank < place.num_processes else None


def told_stray_place() -> str | None:
    """Return what to tell the user where the environment promises other processes, and no launcher can have said so.

    Schedulers and images of containers set some of the variables, and a shell keeps those of a former experiment.
    """
    rank, num = os.environ.get("RANK"), os.environ.get("WORLD_SIZE")
    if rank is None or num in (None, "1") or this_place() is not None:
        return None
    missing = [name for name in _VARIABLES if not os.environ.get(name)]
    reason = f"without {', '.join(missing)} they" if missing else "they"
    return f"RANK={rank} and WORLD_SIZE={num} are ignored, for {reason} are no place that a launcher gives"


def require_launcher() -> None:
    """Refuse a place whose launcher is gone: one that holds the store of its processes listens as long as it lives.

    Raises:
        ConfigurationError: As said.
    """
    if this_place() is None or os.environ.get("TORCHELASTIC_USE_AGENT_STORE") != "True":
        return
    address, port = os.environ["MASTER_ADDR"], int(os.environ["MASTER_PORT"])
    try:
        socket.create_connection((address, port), timeout=_SECONDS_TO_CONNECT).close()
    except (OSError, OverflowError) as error:
        raise ConfigurationError(
            f"RANK and WORLD_SIZE name a launcher at {address}:{port} that does not answer; {TO_RUN_ALONE}"
        ) from error
