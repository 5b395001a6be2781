"""`hydra/launcher=slurm`, as Hydra wants it. Imported at every start of any Hydra application, so it imports little."""

from collections.abc import Sequence
from typing import Any

from hydra.core.utils import JobReturn
from hydra.plugins.launcher import Launcher
from hydra.types import HydraContext, TaskFunction


class SlurmLauncher(Launcher):
    """Hydra launcher that runs the jobs of a sweep as an array of SLURM's."""

    def __init__(self, **settings: Any) -> None:
        self._settings = settings

    def setup(self, *, hydra_context: HydraContext, task_function: TaskFunction, config: Any) -> None:
        """Make the launcher; Hydra calls it before :meth:`launch`."""
        from genlab.launch.slurm import SlurmArrays

        self._arrays = SlurmArrays(**self._settings)
        self._arrays.setup(hydra_context=hydra_context, task_function=task_function, config=config)

    def launch(self, job_overrides: Sequence[Sequence[str]], initial_job_idx: int) -> Sequence[JobReturn]:
        """Run jobs of the given overrides, and return when SLURM has ended them all."""
        return self._arrays.launch(job_overrides, initial_job_idx)
