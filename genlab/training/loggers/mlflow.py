"""Logger for MLflow, which reads MLflow's variables: MLFLOW_TRACKING_URI=sqlite:///FILE or https://SERVER, ..."""

import os
import time
from collections.abc import Mapping
from typing import Any

from torch import Tensor

from genlab.environment import environment
from genlab.errors import ConfigurationError
from genlab.printing import one_line
from genlab.sampling.pictures import to_pillow
from genlab.training.logger import LoggedRun, Logger, library

_MAX_PARAMETERS = 100  # of one request
# For the check before a run. MLflow's own 7 retries take 4 silent minutes, which suits only a run that trains.
_SHORT_PATIENCE = {"MLFLOW_HTTP_REQUEST_MAX_RETRIES": "2", "MLFLOW_HTTP_REQUEST_TIMEOUT": "20"}


class MLflow(Logger):
    """A run in an experiment of MLflow; a resumed run continues it.

    Args:
        experiment: Name of the experiment; None takes MLFLOW_EXPERIMENT_NAME, or genlab.
    """

    def __init__(self, *, experiment: str | None) -> None:
        self.experiment = experiment or os.environ.get("MLFLOW_EXPERIMENT_NAME") or "genlab"

    def require(self) -> None:
        try:
            self._connect()
            with environment({name: os.environ.get(name, value) for name, value in _SHORT_PATIENCE.items()}):
                self._client.search_experiments(max_results=1)
        except ConfigurationError:
            raise
        except Exception as error:  # a login, a server that is away or a refused kind of store: all are of one class
            raise ConfigurationError(
                f"logger=[mlflow] cannot use {self._mlflow.get_tracking_uri()}: {one_line(str(error))}; "
                "MLFLOW_TRACKING_URI names another place"
            ) from error

    def _connect(self) -> None:
        self._mlflow = library("mlflow", logger="mlflow")
        self._client: Any = self._mlflow.MlflowClient()

    def open(self, run: LoggedRun) -> None:
        self._connect()
        known = self._client.get_experiment_by_name(self.experiment)
        experiment = known.experiment_id if known else self._client.create_experiment(self.experiment)
        self._id = run.kept_id("mlflow")
        if self._id is None:
            self._id = self._client.create_run(experiment, run_name=run.name).info.run_id
            run.keep_id("mlflow", self._id)
            entities = self._mlflow.entities
            parameters = [entities.Param(key, str(value)) for key, value in run.hyperparameters.items()]
            for start in range(0, len(parameters), _MAX_PARAMETERS):
                self._client.log_batch(self._id, params=parameters[start : start + _MAX_PARAMETERS])
        self._client.update_run(self._id, status="RUNNING")
        self._client.log_artifact(self._id, str(run.configuration))

    def scalars(self, values: Mapping[str, float], *, step: int) -> None:
        metric, now = self._mlflow.entities.Metric, int(time.time() * 1000)
        self._client.log_batch(self._id, metrics=[metric(tag, value, now, step) for tag, value in values.items()])

    def picture(self, tag: str, image: Tensor, *, step: int) -> None:
        self._client.log_image(self._id, to_pillow(image), key=tag, step=step, synchronous=True)

    def conclude(self, measures: Mapping[str, float]) -> None:
        # Those of the test are logged already.
        best = {tag: value for tag, value in measures.items() if tag.startswith("best/")}
        self.scalars(best, step=int(best.get("best/step", 0)))

    def close(self, *, succeeded: bool) -> None:
        self._client.set_terminated(self._id, "FINISHED" if succeeded else "FAILED")
