"""Every job of a sweep has a new folder of its own inside of the sweep's, or the sweep does not begin."""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest

from genlab.errors import ConfigurationError
from genlab.launch.sweep_folder import JobRecord, SweepFolder, SweepPlan
from genlab.launch.sweep_placement import require_separate_folders
from tests.conftest import Outcome
from tests.thinning import thinned

JOBS = (("seed=0",), ("seed=1",))


def check(
    sweep: Path,
    *places: str,
    jobs: Sequence[Sequence[str]] | None = JOBS,
    is_numbered: bool = False,
    is_resumed: bool = False,
) -> None:
    """Check a sweep whose job n has folder n."""
    require_separate_folders(
        lambda overrides, number: places[number],
        jobs,
        trial=("seed=0",),
        sweep=SweepFolder(sweep),
        is_resumed=is_resumed,
        is_numbered=is_numbered,
    )


REFUSED = [
    (("same", "same"), "must differ between jobs, got same for 0 and 1"),
    (("same", "./x/../same"), "must differ between jobs, got same for 0 and 1"),
    ((".", "1"), "must lie in the sweep's folder, got '.' for job 0"),
    (("", "1"), "must lie in the sweep's folder"),
    (("0", "../1"), "must lie in the sweep's folder, got '../1' for job 1"),
    (("0", "/elsewhere/1"), "must lie in the sweep's folder"),
    (("0", "link/1"), "must lie in the sweep's folder"),
    (("a", "a/b"), "must not put one job's folder into another's, got a for job 0 and a/b for job 1"),
    (("a/b/c", "a"), "must not put one job's folder into another's"),
    (("jobs", "1"), "must not be jobs"),
    (("0", "jobs/1"), "must not be jobs"),
    (("0", "summary.csv"), "must not be summary.csv"),
    (("0", "study.db"), "must not be study.db"),
    (("0" * 256, "1"), "names of at most 255 bytes, got 256 for job 0"),
    (("ä" * 128, "1"), "names of at most 255 bytes, got 256 for job 0"),
    (("/".join(["x" * 200] * 20), "1"), "paths of at most 3800 bytes"),
    (("0", "finished"), "must name new or empty folders"),
    (("0", "a_file"), "must name new or empty folders"),
]


@pytest.fixture
def sweep(tmp_path: Path) -> Path:
    """Return a folder with a finished run, a file and a link that leads out of it."""
    place = tmp_path / "sweep"
    (place / "finished").mkdir(parents=True)
    (place / "finished" / "summary.json").write_text("{}")
    (place / "empty").mkdir()
    (place / "a_file").touch()
    (place / "link").symlink_to(tmp_path)
    return place


@pytest.mark.parametrize(("places", "message"), REFUSED)
def test_folders_that_are_shared_elsewhere_or_taken_are_refused(
    sweep: Path, places: tuple[str, ...], message: str
) -> None:
    with pytest.raises(ConfigurationError, match=r"hydra\.sweep\.subdir") as refused:
        check(sweep, *places)
    assert message in str(refused.value)


@pytest.mark.parametrize("places", [("0", "1"), ("a", "ab"), ("a/b", "a/c"), ("empty", "1"), ("0" * 255, "1")])
def test_separate_folders_are_taken(sweep: Path, places: tuple[str, ...]) -> None:
    check(sweep, *places)


def test_a_search_may_try_the_same_settings_twice(sweep: Path) -> None:
    check(sweep, "0", "1", jobs=None)
    with pytest.raises(ConfigurationError, match="must differ between jobs"):
        check(sweep, "seed-0", "seed-0", jobs=None)


def test_the_folder_of_a_run_is_no_place_for_a_sweep(tmp_path: Path) -> None:
    (tmp_path / "config.yaml").touch()
    with pytest.raises(ConfigurationError, match=r"hydra\.sweep\.dir must not be the folder of a run"):
        check(tmp_path, "0", "1", is_numbered=True)


def resumable(sweep: Path, *records: JobRecord) -> None:
    folder = SweepFolder(sweep)
    folder.write_plan(SweepPlan(overrides=("seed=0,1",), config_dir=None, jobs=JOBS), command="genlab")
    for record in records:
        folder.write_record(record)


def record(number: int, folder: str, status: Any = "interrupted") -> JobRecord:
    return JobRecord(number=number, overrides=JOBS[number], folder=folder, status=status)


@pytest.mark.parametrize("is_numbered", [False, True])
def test_a_resumed_job_keeps_its_folder(sweep: Path, is_numbered: bool) -> None:
    resumable(sweep, record(0, "finished", "finished"), record(1, "empty"))
    check(sweep, "finished", "empty", is_numbered=is_numbered, is_resumed=True)
    with pytest.raises(ConfigurationError, match="must stay as it was on resumption: job 1 has the folder empty, got"):
        check(sweep, "finished", "another", is_numbered=is_numbered, is_resumed=True)


def test_the_shipped_folders_are_composed_only_where_they_may_hold_something(tmp_path: Path, sweep: Path) -> None:
    """With the number in front they are separate, and a thousand compositions would take minutes."""
    check(tmp_path / "new", is_numbered=True)
    with pytest.raises(ConfigurationError, match="must name new or empty folders"):
        check(sweep, "0", "finished", is_numbered=True)


WHOLE = [
    (("seed=0,1", "hydra.sweep.subdir=same"), "must differ between jobs, got same for 0 and 1; add ${hydra:job.num}"),
    (("seed=0,1", "hydra.sweep.subdir=${hydra.job.override_dirname}/x/.."), None),
]


@pytest.mark.parametrize(("arguments", "message"), thinned(WHOLE, 2))
def test_the_look_comes_before_the_first_job(
    genlab: Callable[..., Outcome],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    arguments: tuple[str, ...],
    message: str | None,
) -> None:
    from genlab.launch import command as application

    monkeypatch.setattr(application, "run_sweep", lambda *_, **__: None)
    outcome = genlab("train", "-m", "trainer=smoke", *arguments)
    assert (outcome.code, outcome.errors.count("\n")) == ((2, 1) if message else (0, 0)), outcome.errors
    assert (message or "") in outcome.errors
    assert list(tmp_path.iterdir()) == []
