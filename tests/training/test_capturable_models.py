"""Capture of the updates of every model; on the CPU, by a stand-in that is as strict as a device."""

import logging
from pathlib import Path

import pytest
import torch

from benchmarks.gpu.subjects import configuration_of
from benchmarks.recorded_graph import RecordedGraphs
from genlab.checks.subject import fitting_subject
from genlab.checks.training import noise
from genlab.config.location import config_directory
from genlab.run.record import build_model
from genlab.training.capture import WARM_UP_STEPS, StepCapture
from genlab.training.trainer import Trainer
from genlab.types import ImageSpec

MODELS = sorted(path.stem for path in (config_directory() / "model").glob("*.yaml"))
QUICK = ("draw", "infogan", "semi_supervised_gan")
EVERY = [name if name in QUICK else pytest.param(name, marks=pytest.mark.slow) for name in MODELS]


def image(**sides: int) -> ImageSpec:
    return ImageSpec(channels=1, num_levels=4, num_classes=10, **sides)


def refused_phases(tmp_path: Path, caplog: pytest.LogCaptureFixture, *overrides: str) -> list[str]:
    """Phases that are not captured after the warm-up, as the log names them."""
    configuration = configuration_of(*overrides, "trainer.batch_size=4")
    subject = fitting_subject(lambda spec: build_model(configuration, spec), image, sizes=None, seed=0)
    model = subject.fresh()
    trainer = Trainer(
        model=model,
        dataset=noise(subject.spec),
        optimizers={phase.name: configuration.bound_optimizer(phase.name).factory() for phase in model.phases()},
        schedule=configuration.bound_schedule,
        settings=configuration.settings,
        run_folder=tmp_path,
        device=torch.device("cpu"),
        seed=0,
        hyperparameters={},
        graphs=RecordedGraphs(),
    )
    assert isinstance(trainer._capture, StepCapture)
    trainer._capture._is_required = False
    with caplog.at_level(logging.INFO, "genlab"):
        for _ in range(WARM_UP_STEPS + 2):
            trainer._training_step()
            trainer.step += 1
    lines = [record.getMessage() for record in caplog.records if "is not captured" in record.getMessage()]
    return [line.split()[2] for line in lines]


@pytest.mark.parametrize("name", EVERY)
def test_the_updates_of_a_model_are_captured(tmp_path: Path, caplog: pytest.LogCaptureFixture, name: str) -> None:
    assert refused_phases(tmp_path, caplog, f"model={name}") == []


@pytest.mark.slow
def test_reused_images_and_further_techniques_are_captured(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    images = "diff_augment,adaptive_augment,instance_noise"
    techniques = f"technique=[feature_matching,historical_averaging,{images}]"
    assert refused_phases(tmp_path, caplog, "model=gan", techniques, "model.reuses_generated=true") == []


def test_a_penalty_of_every_other_update_is_not_captured(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    for interval, expected in ((1, []), (2, ["discriminator"])):
        overrides = ("model=gan", "technique=[r1_penalty]", f"model.techniques.r1_penalty.interval={interval}")
        assert refused_phases(tmp_path, caplog, *overrides) == expected


def test_a_batch_divided_by_labels_of_unknown_number_is_not_captured(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    overrides = ("model=semi_supervised_gan", "trainer.labelled_fraction=null")
    assert refused_phases(tmp_path, caplog, *overrides) == ["discriminator", "generator"]
