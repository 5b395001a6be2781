"""Jobs of one machine share its devices and cores, each with its own."""

import os
import threading
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest
import torch
from omegaconf import OmegaConf

from genlab.errors import ConfigurationError
from genlab.launch import sweep_shares as shares
from genlab.launch.devices import processes_on
from genlab.launch.sweep_shares import (
    CORES_VARIABLE,
    DEVICES_VARIABLE,
    machine_in_environment,
    num_parallel,
    own_devices,
)

VISIBLE = "CUDA_VISIBLE_DEVICES"


def job(device: str = "auto", *, devices: int = 1, num_threads: int | None = None) -> dict[str, Any]:
    return {"device": device, "trainer": {"devices": devices}, "num_threads": num_threads}


def locked_devices(folder: Path, stack: ExitStack, **settings: Any) -> str | None:
    return stack.enter_context(own_devices(job(**settings), folder)).get(VISIBLE)


@pytest.fixture
def four(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(DEVICES_VARIABLE, "0,1,2,3")


@pytest.mark.usefixtures("four")
def test_jobs_at_the_same_time_have_devices_of_their_own(tmp_path: Path) -> None:
    with ExitStack() as jobs:
        assert [locked_devices(tmp_path, jobs) for _ in range(3)] == ["0", "1", "2"]
        with ExitStack() as fourth:
            assert locked_devices(tmp_path, fourth) == "3"
        assert locked_devices(tmp_path, jobs) == "3", "a device is free again when its job has ended"


@pytest.mark.usefixtures("four")
def test_more_jobs_than_devices_are_spread_evenly(tmp_path: Path) -> None:
    with ExitStack() as jobs:
        given = [locked_devices(tmp_path, jobs) for _ in range(10)]
    assert sorted(map(given.count, "0123"), reverse=True) == [3, 3, 2, 2]


@pytest.mark.usefixtures("four")
def test_a_job_of_several_processes_has_as_many_devices(tmp_path: Path) -> None:
    with ExitStack() as jobs:
        assert locked_devices(tmp_path, jobs) == "0"
        assert locked_devices(tmp_path, jobs, devices=2) == "1,2"
        assert locked_devices(tmp_path, jobs, devices=2) == "0,1", "one is left, so it shares two"
        assert locked_devices(tmp_path, jobs, device="cuda") == "3"


@pytest.mark.usefixtures("four")
def test_a_device_chosen_by_number_is_the_users_own(tmp_path: Path) -> None:
    with ExitStack() as jobs:
        assert locked_devices(tmp_path, jobs, device="cuda:2") == "0,1,2,3"
        assert locked_devices(tmp_path, jobs, device="cpu") is None
        assert locked_devices(tmp_path, jobs) == "0"


@pytest.mark.usefixtures("four")
def test_jobs_that_start_at_once_do_not_choose_the_same(tmp_path: Path) -> None:
    given = []
    all_hold = threading.Barrier(4)

    def hold() -> None:
        with own_devices(job(), tmp_path) as variables:
            given.append(variables[VISIBLE])
            all_hold.wait(timeout=60)

    threads = [threading.Thread(target=hold) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(given) == ["0", "1", "2", "3"]


def test_without_a_cuda_device_nothing_is_set(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(DEVICES_VARIABLE, raising=False)
    with own_devices(job(), tmp_path) as variables:
        assert variables == {}
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("visible", "found"), [(None, ("0", "1")), ("3,GPU-7f", ("3", "GPU-7f")), ("5, 6,-1,7", ("5", "6"))]
)
def test_the_devices_are_those_that_the_user_lets_be_seen(
    monkeypatch: pytest.MonkeyPatch, visible: str | None, found: tuple[str, ...]
) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    if visible is None:
        monkeypatch.delenv(VISIBLE, raising=False)
    else:
        monkeypatch.setenv(VISIBLE, visible)
    assert processes_on("auto", num=1, key="trainer.devices").visible_devices == found
    assert processes_on("cpu", num=1, key="trainer.devices").visible_devices == ()


BASIC = "hydra._internal.core_plugins.basic_launcher.BasicLauncher"
JOBLIB = "hydra_plugins.hydra_joblib_launcher.joblib_launcher.JoblibLauncher"
LOCAL = "hydra_plugins.hydra_submitit_launcher.submitit_launcher.LocalLauncher"
SLURM = "hydra_plugins.genlab_slurm.launcher.SlurmLauncher"


def whole(launcher: str, *, n_jobs: object = None, **sweeper: object) -> Any:
    return OmegaConf.create({"hydra": {"launcher": {"_target_": launcher, "n_jobs": n_jobs}, "sweeper": sweeper}})


PARALLEL = [
    (whole(BASIC), 9, 1),
    (whole(JOBLIB, n_jobs=4), 9, 4),
    (whole(JOBLIB, n_jobs=4), 2, 2),
    (whole(JOBLIB), 9, 1),
    (whole(JOBLIB, n_jobs=-1), 99, 8),
    (whole(JOBLIB, n_jobs=-2), 99, 7),
    (whole(JOBLIB, n_jobs=-20), 99, 1),
    (whole(JOBLIB, n_jobs=4, max_batch_size=3), 9, 3),
    (whole(JOBLIB, n_jobs=4, n_jobs_of_search=2), None, 4),
    (whole(LOCAL), 9, 9),
    (whole(SLURM), 9, None),
]


@pytest.mark.parametrize(("configuration", "num_jobs", "expected"), PARALLEL)
def test_how_many_jobs_run_at_once(
    monkeypatch: pytest.MonkeyPatch, configuration: Any, num_jobs: int | None, expected: int | None
) -> None:
    monkeypatch.setattr(shares, "num_cores", lambda: 8)
    assert num_parallel(configuration, num_jobs) == expected


@pytest.mark.parametrize(
    ("configuration", "key"),
    [
        (whole(JOBLIB, n_jobs=0), "hydra.launcher.n_jobs"),
        (whole(JOBLIB, n_jobs="x"), "hydra.launcher.n_jobs"),
        (whole(JOBLIB, n_jobs=1.5), "hydra.launcher.n_jobs"),
        (whole(BASIC, max_batch_size=0), "hydra.sweeper.max_batch_size"),
    ],
)
def test_numbers_that_no_launcher_takes_are_refused(configuration: Any, key: str) -> None:
    with pytest.raises(ConfigurationError, match=f"{key} must be a whole number of at least 1"):
        num_parallel(configuration, 2)


@pytest.fixture
def eight_cores(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shares, "num_cores", lambda: 8)
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)


@pytest.mark.usefixtures("eight_cores")
def test_jobs_at_the_same_time_share_the_cores(monkeypatch: pytest.MonkeyPatch) -> None:
    with machine_in_environment((), 3):
        assert shares.threads_of_job(job()) == 2
        assert shares.threads_of_job(job(num_threads="auto")) == 2
        assert shares.threads_of_job(job(devices=2)) == 1
        assert shares.threads_of_job(job(devices=20)) == 1
        assert shares.threads_of_job(job(num_threads=5)) is None, "the user's own number"
    with machine_in_environment((), 1):
        assert shares.threads_of_job(job()) is None, "alone it has them all"
    monkeypatch.setenv("OMP_NUM_THREADS", "4")
    with machine_in_environment((), 3):
        assert shares.threads_of_job(job()) is None, "the user's own number"


@pytest.mark.usefixtures("eight_cores")
def test_only_jobs_of_this_machine_are_reported_of_it() -> None:
    before = dict(os.environ)
    with machine_in_environment(("0", "1"), None):
        assert DEVICES_VARIABLE not in os.environ
        assert CORES_VARIABLE not in os.environ
    with machine_in_environment(("0", "1"), 2):
        assert (os.environ[DEVICES_VARIABLE], os.environ[CORES_VARIABLE]) == ("0,1", "4")
        assert os.environ["PYTHONSAFEPATH"] == "1", "else workers of launchers import from the working directory"
    assert dict(os.environ) == before
