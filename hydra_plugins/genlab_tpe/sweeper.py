"""`hydra/sweeper=tpe`, as Hydra wants it. Imported at every start of any Hydra application, so it imports little."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from hydra.core.plugins import Plugins
from hydra.plugins.launcher import Launcher
from hydra.plugins.sweeper import Sweeper
from hydra.types import HydraContext, TaskFunction


class TPESweeper(Sweeper):
    """Hydra sweeper that runs the search with the launcher that the user chose."""

    def __init__(self, **settings: Any) -> None:
        del settings
        self.config: Any = None
        self.launcher: Launcher | None = None

    def setup(self, *, hydra_context: HydraContext, task_function: TaskFunction, config: Any) -> None:
        """Store the launcher; Hydra calls it before :meth:`sweep`."""
        self.config = config
        self.hydra_context = hydra_context
        self.launcher = Plugins.instance().instantiate_launcher(
            hydra_context=hydra_context, task_function=task_function, config=config
        )

    def sweep(self, arguments: list[str]) -> Any:
        """Search until the trials are used up."""
        from genlab.launch.sweep import planned_search

        assert self.launcher is not None
        launcher = self.launcher
        folder = Path(str(self.config.hydra.sweep.dir))

        def launch(jobs: Sequence[Sequence[str]], first_number: int) -> object:
            self.validate_batch_is_legal(jobs)
            return launcher.launch(jobs, initial_job_idx=first_number)

        planned_search(self.config, arguments, folder).run(launch)
