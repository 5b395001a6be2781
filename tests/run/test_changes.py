"""What a resumption may change of its run."""

from pathlib import Path

import pytest

from genlab.errors import ConfigurationError
from genlab.run.changes import resumed
from genlab.run.record import load_run, save_configuration
from tests.run.conftest import edit


def test_resumption_takes_the_trainer_and_the_device_and_nothing_else(run_folder: Path) -> None:
    run = load_run(run_folder)
    changed = resumed(run, [f"resume={run_folder}", "trainer.num_steps=9", "device=cpu", "num_threads=1"])
    assert (changed.settings.num_steps, changed.device, changed.num_threads) == (9, "cpu", 1)
    assert changed.model == run.configuration.model
    for override in ("seed=1", "model.num_glimpses=3", "trainer=gpu", "~trainer.num_steps", "dataset=mnist"):
        with pytest.raises(ConfigurationError, match="cannot change on resume"):
            resumed(run, [override])
    with pytest.raises(ConfigurationError, match="did you mean 'num_steps'"):
        resumed(run, ["trainer.num_step=9"])


def test_a_resumed_run_may_change_the_numbers_of_a_schedule_of_ours_and_no_other(run_folder: Path) -> None:
    assert resumed(load_run(run_folder), ["schedule.final_fraction=0.5"]).schedule["final_fraction"] == 0.5
    with pytest.raises(ConfigurationError, match="cannot change on resume"):
        resumed(load_run(run_folder), ["schedule._target_=genlab.training.schedules.constant"])
    # Its numbers come back with its state, and those of the command line would have no effect.
    step = {"_target_": "torch.optim.lr_scheduler.StepLR", "step_size": 3}
    edit(run_folder, lambda values: values.update(schedule=step))
    with pytest.raises(ConfigurationError, match=r"schedule\.step_size cannot change on resume"):
        resumed(load_run(run_folder), ["schedule.step_size=5"])


def spread(folder: Path) -> None:
    edit(folder, lambda values: values["trainer"].update(devices=2, max_restarts=3))


PLACE = {"RANK": 0, "LOCAL_RANK": 0, "MASTER_ADDR": "localhost", "MASTER_PORT": 1}


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        ([], (2, 3)),
        (["trainer.devices=1"], (1, 0)),
        (["trainer.devices=4"], (4, 3)),
        (["trainer.devices=4", "trainer.max_restarts=0"], (4, 0)),
    ],
)
def test_one_process_is_resumed_without_what_goes_with_several(
    run_folder: Path, arguments: list[str], expected: tuple[int, int]
) -> None:
    spread(run_folder)
    settings = resumed(load_run(run_folder), arguments).settings
    assert (settings.devices, settings.max_restarts) == expected
    with pytest.raises(ConfigurationError, match=r"trainer\.max_restarts must be 0 with trainer\.devices=1, got 1"):
        resumed(load_run(run_folder), ["trainer.devices=1", "trainer.max_restarts=1"])


@pytest.mark.parametrize("num_workers", [1, 2, 4])
def test_the_number_of_processes_of_an_earlier_start_does_not_bind_torchrun(
    run_folder: Path, monkeypatch: pytest.MonkeyPatch, num_workers: int
) -> None:
    spread(run_folder)
    for name, value in {**PLACE, "WORLD_SIZE": num_workers}.items():
        monkeypatch.setenv(name, str(value))
    settings = resumed(load_run(run_folder), []).settings
    assert (settings.devices, settings.max_restarts) == (1, 0)
    assert resumed(load_run(run_folder), ["trainer.devices=3"]).settings.devices == 3
    monkeypatch.setenv("GENLAB_LAUNCHED", "1")  # by ourselves, as the run's own settings ask
    settings = resumed(load_run(run_folder), []).settings
    assert (settings.devices, settings.max_restarts) == (2, 3)


def test_a_resumption_keeps_the_loggers_of_its_run_or_some_of_them(run_folder: Path) -> None:
    edit(
        run_folder,
        lambda values: values["logger"].update(
            wandb={"_target_": "genlab.training.loggers.wandb.WeightsAndBiases", "project": None}
        ),
    )
    run = load_run(run_folder)
    assert list(resumed(run, []).logger) == ["tensorboard", "wandb"]
    assert list(resumed(run, ["logger=[tensorboard]"]).loggers) == ["tensorboard"]
    assert resumed(run, ["logger=[]"]).loggers == {}
    with pytest.raises(ConfigurationError, match="logger must name some of the run's own with resume: tensorboard, wa"):
        resumed(run, ["logger=[mlflow]"])
    changed = resumed(run, ["logger=[]"])
    save_configuration(run_folder, changed, run.spec, dataset_fingerprint=run.dataset_fingerprint)
    assert list(resumed(load_run(run_folder), ["logger=[wandb]"]).logger) == ["wandb"]
    edit(run_folder, lambda values: values.update(logger={}))
    with pytest.raises(ConfigurationError, match="own with resume: there are none, got tensorboard"):
        resumed(load_run(run_folder), ["logger=tensorboard"])
