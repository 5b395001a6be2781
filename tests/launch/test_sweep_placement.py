"""Every job of a sweep has a folder of its own inside of the sweep's, and no job clears what is not its own."""

from pathlib import Path

import pytest

from genlab.launch import command
from tests.conftest import Genlab

SWEEP = ("train", "-m", "trainer=smoke", "seed=0,1", "hydra.sweep.dir=sweep")


@pytest.mark.parametrize("name", ["same", "${hydra.job.override_dirname}"])
def test_names_without_the_number_are_refused_before_the_first_job(genlab: Genlab, tmp_path: Path, name: str) -> None:
    genlab(*SWEEP, f"hydra.sweep.subdir={name}").assert_error(2, "hydra.sweep.subdir must contain ${hydra:job.num}")
    assert list(tmp_path.iterdir()) == []


def test_names_with_the_number_are_taken(genlab: Genlab, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(command, "run_sweep", lambda *_, **__: None)
    outcome = genlab(*SWEEP, "hydra.sweep.subdir=${hydra.job.override_dirname}/${hydra.job.num}")
    assert (outcome.code, outcome.errors) == (0, "")


def test_the_folder_of_a_run_is_no_place_for_a_sweep(genlab: Genlab) -> None:
    Path("sweep").mkdir()
    Path("sweep/config.yaml").touch()
    outcome = genlab(*SWEEP)
    assert (outcome.code, outcome.errors) == (
        2, "genlab: error: hydra.sweep.dir must not be the folder of a run, got sweep\n"
    )  # fmt: skip


@pytest.mark.slow
@pytest.mark.parametrize("launcher", [(), ("hydra/launcher=local", "hydra.launcher.n_jobs=1")])
def test_a_job_clears_nothing_of_others(genlab: Genlab, launcher: tuple[str, ...]) -> None:
    Path("sweep/0").mkdir(parents=True)
    Path("sweep/0/book").write_text("of a life")
    outcome = genlab(*SWEEP, "hydra.sweep.subdir=${hydra:job.num}", *launcher)
    assert outcome.code == 2
    assert "hydra.sweep.subdir must name new or empty folders, got sweep/0" in outcome.errors
    assert Path("sweep/0/book").read_text() == "of a life"
