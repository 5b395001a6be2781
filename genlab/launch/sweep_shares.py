"""The share of this machine that each job of a local sweep gets: devices of its own, and a part of the cores.

The process of the sweep knows the machine, and the parent process of each job takes the job's share. The launcher is
between them, so environment variables, which all its workers inherit, describe the machine.
"""

import itertools
import os
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout
from hydra._internal.core_plugins.basic_launcher import BasicLauncher

from genlab.config.compose import Composed
from genlab.environment import environment
from genlab.errors import ConfigurationError
from genlab.launch.processes import num_cores

DEVICES_VARIABLE = "GENLAB_SWEEP_DEVICES"
CORES_VARIABLE = "GENLAB_SWEEP_CORES"
_VISIBLE = "CUDA_VISIBLE_DEVICES"


def num_parallel(whole: Composed, num_jobs: int | None) -> int | None:
    """Return the number of jobs that run on this machine at once; None where they run elsewhere.

    Args:
        whole: The composed configuration of the sweep.
        num_jobs: Total number; None if a search makes them.

    Raises:
        ConfigurationError: A number of the launcher or of the sweeper is out of its range.
    """
    launcher, sweeper = whole.hydra.launcher, whole.hydra.sweeper
    kind = str(launcher.get("_target_")).rpartition(".")[2]
    limits = [num_jobs]
    for key in ("max_batch_size", "n_jobs"):  # of a grid and of a search
        if (limit := sweeper.get(key)) is not None:
            limits.append(_whole_number(limit, f"hydra.sweeper.{key}"))
    if kind == BasicLauncher.__name__:
        limits.append(1)
    elif kind == "JoblibLauncher":
        number = launcher.get("n_jobs")
        if isinstance(number, int) and number < 0:  # as in joblib: -1 is all cores, -2 all but one
            number = max(num_cores() + 1 + number, 1)
        limits.append(_whole_number(1 if number is None else number, "hydra.launcher.n_jobs"))
    elif kind != "LocalLauncher":  # that of submitit starts all at once
        return None
    return min((limit for limit in limits if limit is not None), default=None)


def _whole_number(value: object, key: str) -> int:
    if not isinstance(value, int) or isinstance(value, bool) or value < 1:
        raise ConfigurationError(f"{key} must be a whole number of at least 1, got {value}")
    return value


@contextmanager
def machine_in_environment(devices: Sequence[str], parallel: int | None) -> Iterator[None]:
    """Describe the shared machine to the parent processes of the jobs, while a launcher runs them.

    Args:
        devices: Names of the CUDA devices that this process sees.
        parallel: Jobs at once; None where they run on other machines.
    """
    # Launchers start Python with -m, which would import from the working directory.
    variables = {"PYTHONSAFEPATH": "1"}
    if parallel is not None and devices:
        variables[DEVICES_VARIABLE] = ",".join(devices)
    # The user's own number of threads is that of every job.
    if parallel is not None and parallel > 1 and "OMP_NUM_THREADS" not in os.environ:
        variables[CORES_VARIABLE] = str(max(num_cores() // parallel, 1))
    with environment(variables):
        yield


def threads_of_job(job: Mapping[str, Any]) -> int | None:
    """Return the number of threads of each process of a job; None if it has a number of its own, or all cores."""
    cores = os.environ.get(CORES_VARIABLE)
    if cores is None or isinstance(job["num_threads"], int):
        return None
    return max(int(cores) // int(job["trainer"]["devices"]), 1)


@contextmanager
def own_devices(job: Mapping[str, Any], folder: Path) -> Iterator[dict[str, str]]:
    """Lock the CUDA devices of a job, and yield the environment variable that shows it only these.

    A job gets devices that no other job has locked. If there are too few, it shares those with the fewest jobs. The
    locks are the kernel's, so that a kill leaves nothing stale.

    Args:
        job: Its configuration.
        folder: For the locks; the same for all jobs of the sweep.
    """
    names = [name for name in os.environ.get(DEVICES_VARIABLE, "").split(",") if name]
    if not names or not str(job["device"]).startswith(("auto", "cuda")):
        yield {}
        return
    if ":" in str(job["device"]):
        yield {_VISIBLE: ",".join(names)}  # the user has chosen among all of them
        return
    num = min(job["trainer"]["devices"], len(names))
    with ExitStack() as locks:
        with ExitStack() as choosing:
            _lock(folder / "devices.lock", choosing, wait=True)
            for level in itertools.count():
                with ExitStack() as attempt:
                    free = (
                        name for name in names if _lock(folder / f"device-{name}-{level}.lock", attempt, wait=False)
                    )
                    own = list(itertools.islice(free, num))
                    if len(own) == num:
                        locks.enter_context(attempt.pop_all())
                        break
        yield {_VISIBLE: ",".join(own)}


def _lock(path: Path, locks: ExitStack, *, wait: bool) -> bool:
    """Lock a file until the stack is left; return False if another process has locked it."""
    try:
        locks.enter_context(FileLock(path, timeout=-1 if wait else 0))
    except Timeout:
        return False
    return True
