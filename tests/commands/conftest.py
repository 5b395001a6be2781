"""One small trained run that every command is tried on."""

import os
from pathlib import Path

import pytest

from genlab.cli import main

TINY = (
    "trainer=smoke",
    "trainer.num_steps=3",
    "dataset.size=8",
    "model.num_glimpses=2",
    "model.num_units=16",
    "num_threads=1",
)


@pytest.fixture(scope="session")
def trained_run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("outputs") / "run"
    here = Path.cwd()
    os.chdir(folder.parent)
    try:
        assert main(["train", "model=draw", *TINY, f"hydra.run.dir={folder}"]) == 0
    finally:
        os.chdir(here)
    return folder
