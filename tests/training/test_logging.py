"""TensorBoard reads back each value that was written, once."""

import json
from pathlib import Path

import pytest
import torch
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from tensorboard.plugins.custom_scalar.layout_pb2 import Layout
from tensorboard.plugins.hparams.plugin_data_pb2 import HParamsPluginData

from genlab.training.loggers.tensorboard import TensorBoard, charts_across_phases
from genlab.training.logging import RunLog


def read(folder: Path) -> EventAccumulator:
    accumulator = EventAccumulator(str(folder), size_guidance={"scalars": 0, "images": 0})
    accumulator.Reload()
    return accumulator


def opened(folder: Path, *, start: int = 0, **hyperparameters: bool | int | float | str) -> RunLog:
    loggers = {"tensorboard": TensorBoard()}
    return RunLog(folder, start_step=start, hyperparameters={"model": "tiny", **hyperparameters}, loggers=loggers)


def write(folder: Path, *, start: int, stop: int, succeeded: bool = True) -> None:
    log = opened(folder, start=start, lr=1e-3, fused=True, units=8)
    for step in range(start + 1, stop + 1):
        log.scalars({"train/only/nll_nats": float(step)}, step=step, images_seen=8 * step, seconds=0.5)
    log.close(succeeded=succeeded)


def test_a_resumed_run_shows_every_step_once(tmp_path: Path) -> None:
    write(tmp_path, start=0, stop=10)
    write(tmp_path, start=6, stop=12)  # the first process got to step 10, its checkpoint only to 6
    steps = [event.step for event in read(tmp_path).Scalars("train/only/nll_nats")]
    assert steps == list(range(1, 13))
    lines = [json.loads(line) for line in (tmp_path / "metrics.jsonl").read_text().splitlines()]
    assert [line["step"] for line in lines] == list(range(1, 13))


def test_a_half_written_last_line_is_dropped(tmp_path: Path) -> None:
    write(tmp_path, start=0, stop=3)
    with (tmp_path / "metrics.jsonl").open("a") as file:
        file.write('{"step": 3, "imag')
    write(tmp_path, start=3, stop=4)
    assert [json.loads(line)["step"] for line in (tmp_path / "metrics.jsonl").read_text().splitlines()] == [1, 2, 3, 4]


@pytest.mark.parametrize("succeeded", [True, False])
def test_hyperparameters_stand_in_the_same_file_with_their_types(tmp_path: Path, succeeded: bool) -> None:
    write(tmp_path, start=0, stop=2, succeeded=succeeded)
    assert len(list(tmp_path.glob("events.out.tfevents.*"))) == 1
    metadata = read(tmp_path).SummaryMetadata
    start = HParamsPluginData.FromString(metadata("_hparams_/session_start_info").plugin_data.content)
    values = start.session_start_info.hparams
    assert values["model"].string_value == "tiny"
    assert values["fused"].bool_value is True
    assert values["lr"].number_value == 1e-3
    end = HParamsPluginData.FromString(metadata("_hparams_/session_end_info").plugin_data.content)
    assert end.session_end_info.status == (1 if succeeded else 2)


def test_the_settings_and_the_end_are_those_of_the_last_start(tmp_path: Path) -> None:
    write(tmp_path, start=0, stop=10, succeeded=False)
    (first,) = tmp_path.glob("events.out.tfevents.*")
    first.write_bytes(first.read_bytes() + b"\x10\0\0")  # a record that a kill has cut
    log = opened(tmp_path, start=10, lr=5e-4)
    log.scalars({"train/only/nll_nats": 11.0}, step=11, images_seen=88, seconds=0.5)
    log.close(succeeded=True)
    board = read(tmp_path)
    start, end = (
        HParamsPluginData.FromString(board.SummaryMetadata(f"_hparams_/session_{part}_info").plugin_data.content)
        for part in ("start", "end")
    )
    assert start.session_start_info.hparams["lr"].number_value == 5e-4
    assert end.session_end_info.status == 1
    assert [event.step for event in board.Scalars("train/only/nll_nats")] == list(range(1, 12))


def test_runs_of_one_number_are_two_trials(tmp_path: Path) -> None:
    trials = set()
    for parent in ("digits-draw", "mnist-draw"):
        (folder := tmp_path / parent / "0001").mkdir(parents=True)
        write(folder, start=0, stop=1)
        content = read(folder).SummaryMetadata("_hparams_/session_start_info").plugin_data.content
        trials.add(HParamsPluginData.FromString(content).session_start_info.group_name)
    assert trials == {"digits-draw/0001", "mnist-draw/0001"}


def test_values_that_are_no_numbers_stay_valid_json(tmp_path: Path) -> None:
    log = opened(tmp_path)
    log.scalars({"a": float("nan"), "b": 1.0}, step=1, images_seen=8, seconds=0.1)
    log.close(succeeded=True)
    assert json.loads((tmp_path / "metrics.jsonl").read_text()) == {
        "step": 1,
        "images_seen": 8,
        "seconds": 0.1,
        "a": None,
        "b": 1.0,
    }


def test_pictures_are_kept(tmp_path: Path) -> None:
    log = opened(tmp_path)
    log.picture("samples", torch.rand(1, 9, 7), step=4)
    log.close(succeeded=True)
    (image,) = read(tmp_path).Images("samples")
    assert (image.step, image.width, image.height) == (4, 7, 9)


def test_a_full_disk_under_tensorboard_does_not_end_a_run(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    log = opened(tmp_path)

    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    writer = log._loggers["tensorboard"]._writer  # type: ignore[attr-defined]
    add_scalar, writer.add_scalar = writer.add_scalar, full  # type: ignore[method-assign]
    log.scalars({"a": 1.0}, step=1, images_seen=8, seconds=0.1)
    writer.add_scalar = add_scalar  # type: ignore[method-assign]
    log.scalars({"a": 2.0}, step=2, images_seen=16, seconds=0.2)
    log.close(succeeded=True)
    writer.close()
    assert "metrics.jsonl continues" in caplog.text
    assert len((tmp_path / "metrics.jsonl").read_text().splitlines()) == 2


def test_the_losses_of_a_game_share_a_chart(tmp_path: Path) -> None:
    names = ("train/discriminator/adversarial_nats", "train/generator/adversarial_nats")
    log = opened(tmp_path)
    for step in (1, 2):
        log.scalars(dict.fromkeys((*names, "train/generator/only_here"), 1.0), step=step, images_seen=8, seconds=0.1)
    log.close(succeeded=True)
    (event,) = read(tmp_path).Tensors("custom_scalars__config__")
    (category,) = Layout.FromString(event.tensor_proto.string_val[0]).category
    (chart,) = category.chart
    assert chart.title == "adversarial_nats"
    assert list(chart.multiline.tag) == [f"^{name}$" for name in names]


def test_a_model_of_one_phase_has_no_charts_across_phases() -> None:
    assert charts_across_phases(["train/model/nll_nats", "validation/nll_nats", "speed/images_per_second"]) == {}
