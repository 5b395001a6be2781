"""Observers: when they are due, what a checkpoint keeps of them, and that any of them can stop a run."""

import functools
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from genlab.config.schema import RunConfiguration
from genlab.errors import ConfigurationError, StoppedBySignal
from genlab.measures import Measure
from genlab.training import trainer as trainer_module
from genlab.training.observer import Observer
from genlab.training.observers import TimeLimit
from genlab.training.run import TrainingRun
from genlab.training.summary import StopReason
from tests.training.conftest import TinyGAN, make_trainer
from tests.training.test_trainer import StopAt, assert_states_equal, last_state, scalars


class Brightness(Observer):
    """The mean of the model's samples, summed over all looks."""

    measures = {"samples/brightness": Measure(unit="1", kind="estimate", direction="neither")}  # noqa: RUF012

    def __init__(self, run: TrainingRun, *, interval: int, limit: float = float("inf")) -> None:
        super().__init__(run, interval=interval)
        self.limit = limit
        self.total = 0.0

    def observe(self, step: int) -> StopReason | None:
        self.total += float(self.run.evaluated_model().sample(2).mean())  # from the default generators
        self.run.write({"samples/brightness": self.total})
        return StopReason(f"too bright at step {step}", is_final=True) if self.total > self.limit else None

    def state_dict(self) -> dict[str, Any]:
        return {"total": self.total}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        self.total = state["total"]


def brightness(interval: int = 6, limit: float = float("inf")) -> dict[str, Any]:
    return {"observer.brightness": functools.partial(Brightness, interval=interval, limit=limit)}


def test_max_minutes_are_minutes(monkeypatch: pytest.MonkeyPatch) -> None:
    seconds = 100.0
    monkeypatch.setattr("genlab.training.observers.time.monotonic", lambda: seconds)
    run: Any = SimpleNamespace(last_step=9, settings=SimpleNamespace(dry_run=False))
    limit = TimeLimit(run, max_minutes=2)
    seconds = 220.0
    assert limit.observe(1) is None
    seconds = 220.5
    assert limit.observe(1) is not None
    assert limit.observe(9) is None  # the run ends anyway


def test_a_measure_that_selects_and_is_not_measured_is_named_once(
    run_folder: Callable[[str], Path], caplog: pytest.LogCaptureFixture
) -> None:
    model = TinyGAN()
    model.selection_measure = "gap_nat"  # type: ignore[misc]
    summary = make_trainer(run_folder("a"), model, validation_interval=5).fit(resume=False)
    assert summary.best == {}
    (warning,) = (record.message for record in caplog.records if "is not measured" in record.message)
    assert warning.startswith("validation/gap_nat selects the best checkpoint and is not measured; measured: valid")


def test_a_periodic_measure_of_ones_own_is_kept_and_changes_nothing_else(run_folder: Callable[[str], Path]) -> None:
    plain, whole, cut = run_folder("plain"), run_folder("whole"), run_folder("cut")
    make_trainer(plain).fit(resume=False)
    summary = make_trainer(whole, observers=brightness()).fit(resume=False)
    assert summary.measures["samples/brightness"].direction == "neither"
    looks = [line for line in scalars(whole) if "samples/brightness" in line]
    assert [line["step"] for line in looks] == [6, 12, 18, 20]
    assert [line for line in scalars(whole) if line not in looks] == scalars(plain)

    with pytest.raises(StoppedBySignal):
        make_trainer(cut, StopAt(7), observers=brightness()).fit(resume=False)
    make_trainer(cut, observers=brightness()).fit(resume=True)
    assert_states_equal(last_state(whole), last_state(cut))
    assert scalars(whole) == scalars(cut)
    assert last_state(cut)["observers"]["observer.brightness"] == {"total": looks[-1]["samples/brightness"]}


def test_a_reason_of_any_process_stops_all_of_them(
    run_folder: Callable[[str], Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    summary = make_trainer(run_folder("a"), observers=brightness(limit=0.6)).fit(resume=False)
    assert (summary.status, summary.step, summary.reason) == ("finished", 12, "too bright at step 12")

    other = StopReason("too dark")  # of another process, which this one hears of after its first step
    monkeypatch.setattr(trainer_module, "largest", lambda flags: [flags[0], *(1 for _ in flags[1:])])
    monkeypatch.setattr(trainer_module, "gathered", lambda own: [own, other])
    trainer = make_trainer(run_folder("b"))
    assert trainer.fit(resume=False).reason == "too dark"
    assert (trainer.step, trainer.summary.status) == (1, "interrupted")


def test_the_order_stands_in_one_place(run_folder: Callable[[str], Path]) -> None:
    trainer = make_trainer(
        run_folder("a"), observers=brightness(), sample_interval=5, watch_interval=5, max_minutes=1.0, dry_run=True
    )
    names = ["slowdown", "metrics", "validation", "pictures", "collapse", "observer.brightness", "time_limit"]
    assert list(trainer.observers) == names
    assert [name for name, each in trainer.observers.items() if each.due(1)] == ["time_limit"]
    assert [name for name, each in trainer.observers.items() if each.due(2)] == names  # the last one of a dry run


def test_a_node_names_its_class_and_its_arguments() -> None:
    node = {"_target_": f"{__name__}.Brightness", "intervall": 6}
    nothing: dict[str, Any] = {key: {} for key in ("dataset", "optimizer", "schedule", "trainer", "model")}
    rest: dict[str, Any] = {"num_threads": None, "resume": None, "allow_other_data": False}
    configuration = RunConfiguration(
        seed=0, device="cpu", observer={"brightness": node, "other": None}, **nothing, **rest
    )
    with pytest.raises(ConfigurationError, match=r"observer\.brightness\.intervall .*interval'"):
        _ = configuration.bound_observers
    node["interval"] = node.pop("intervall")
    assert list(configuration.bound_observers) == ["observer.brightness"]


def test_a_model_warns_once_of_the_course_of_its_measures(
    run_folder: Callable[[str], Path], caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    courses: list[int] = []

    def warning(self: object, course: Sequence[Mapping[str, float]]) -> str | None:
        courses.append(len(course))
        return "nothing is learned" if len(course) == 2 else None

    trainer = make_trainer(run_folder("a"))
    monkeypatch.setattr(type(trainer.model), "followed", ("train/discriminator/gradient_norm", "validation/gap_nats"))
    monkeypatch.setattr(type(trainer.model), "warning_in_training", warning)
    trainer = make_trainer(run_folder("b"), validation_interval=5)
    trainer.fit(resume=False)
    assert courses == [1, 2]
    assert [record.getMessage() for record in caplog.records if "nothing is" in record.getMessage()] == [
        "step 10: nothing is learned"
    ]
    assert last_state(run_folder("b"))["observers"]["course"]["has_warned"]
