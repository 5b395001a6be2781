"""Logger for Weights & Biases, which reads its variables: WANDB_MODE=offline, WANDB_PROJECT, WANDB_DIR, ..."""

import os
from collections.abc import Mapping
from typing import Any

import yaml  # type: ignore[import-untyped]
from torch import Tensor

from genlab.errors import ConfigurationError
from genlab.printing import one_line
from genlab.sampling.pictures import to_pillow
from genlab.training.logger import LoggedRun, Logger, library

_WITHOUT_LOGIN = ("offline", "dryrun", "disabled")


class WeightsAndBiases(Logger):
    """A run in a project of Weights & Biases; a resumed run continues it.

    Args:
        project: Name of the project; None takes WANDB_PROJECT, or genlab.
    """

    _run: Any

    def __init__(self, *, project: str | None) -> None:
        self.project = project or os.environ.get("WANDB_PROJECT") or "genlab"

    def require(self) -> None:
        wandb = library("wandb", logger="wandb")
        if wandb.setup().settings.mode in _WITHOUT_LOGIN:
            return
        try:
            # Asks the server: wandb.init waits 90 s for one that is away, and refuses a key when the folder is made.
            is_known = wandb.login(prompt=False, verify=True)
        except wandb.Error as error:
            reason = one_line(str(error)).rstrip(".")
            raise ConfigurationError(
                f"logger=[wandb] cannot log in: {reason}; call wandb login, or set WANDB_MODE=offline"
            ) from error
        if not is_known:
            raise ConfigurationError("logger=[wandb] needs a login: call wandb login, or set WANDB_MODE=offline")

    def open(self, run: LoggedRun) -> None:
        wandb = library("wandb", logger="wandb")
        self._run = wandb.init(
            project=self.project,
            id=run.kept_id("wandb"),
            resume="allow",
            name=run.name,
            tags=[str(run.hyperparameters[key]) for key in ("model", "dataset") if key in run.hyperparameters],
            config=yaml.safe_load(run.configuration.read_text(encoding="utf-8")),
            allow_val_change=True,  # a resumed run may be longer
            settings=wandb.Settings(console="off"),  # the progress display is no log
        )
        run.keep_id("wandb", self._run.id)

    def scalars(self, values: Mapping[str, float], *, step: int) -> None:
        self._run.log(dict(values), step=step)

    def picture(self, tag: str, image: Tensor, *, step: int) -> None:
        self._run.log({tag: library("wandb", logger="wandb").Image(to_pillow(image))}, step=step)

    def conclude(self, measures: Mapping[str, float]) -> None:
        self._run.summary.update(dict(measures))

    def close(self, *, succeeded: bool) -> None:
        self._run.finish(exit_code=int(not succeeded))
