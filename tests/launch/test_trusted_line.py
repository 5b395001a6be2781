"""The command line and ``--config-dir`` are trusted: every feature of Hydra works there."""

from pathlib import Path

import pytest

from genlab.launch import command as application
from tests.conftest import Genlab
from tests.thinning import slow

CALLBACK = """
import os
from hydra.experimental.callback import Callback

class Told(Callback):
    def on_job_start(self, config, **_):
        with open("MARKER", "a") as file:
            file.write(os.environ["TOLD"])
"""


def test_callbacks_variables_and_search_paths_of_the_user_work(
    genlab: Genlab, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("ELSEWHERE", "from the environment")
    monkeypatch.syspath_prepend(str(tmp_path))
    Path("my_callbacks.py").write_text(CALLBACK)
    Path("mine/hydra/callbacks").mkdir(parents=True)
    Path("mine/hydra/callbacks/told.yaml").write_text(
        "# @package _global_\nhydra: {callbacks: {told: {_target_: my_callbacks.Told}}}\n"
    )
    variable = "+hydra.job.env_set.TOLD='${oc.env:ELSEWHERE}'"
    for place in (("--config-dir", "mine"), ("hydra.searchpath=[file://mine]",)):
        genlab("models", *place, "hydra/callbacks=told", variable).checked()
    assert Path("MARKER").read_text() == "from the environment" * 2


@pytest.mark.parametrize(
    "arguments",
    [
        ("hydra/launcher=slurm", "+hydra.launcher.setup=['module load cuda']", "+hydra.launcher.srun_args=['--mpi=x']"),
        ("+hydra.launcher.own=${oc.env:HOME}", "hydra.launcher._target_=my.Launcher"),
        slow((("hydra.sweeper._target_=my.Sweeper",),)),
    ],
    ids=["slurm", "launcher", "sweeper"],
)
def test_any_launcher_and_sweeper_passes_the_preflight_checks(
    genlab: Genlab, monkeypatch: pytest.MonkeyPatch, arguments: tuple[str, ...]
) -> None:
    monkeypatch.setattr(application, "run_sweep", lambda *_, **__: None)
    genlab("train", "-m", "trainer=smoke", "seed=0,1", *arguments).checked()
