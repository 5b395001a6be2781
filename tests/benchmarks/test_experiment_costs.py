"""The estimate of what a published experiment costs."""

import pytest
import torch

from benchmarks import experiment_costs
from benchmarks.gpu.subjects import configuration_of
from genlab.comparison.published import read_experiments
from genlab.config.location import config_directory

CPU = torch.device("cpu")


def test_a_short_step_is_measured_whole(monkeypatch: pytest.MonkeyPatch) -> None:
    steps, batch, seconds = experiment_costs.estimate("pixelcnn_pp_dynamic_mnist_quick", device=CPU, batch=2, steps=1)
    assert (steps, batch) == (6_000, 16)
    assert 0 < seconds < experiment_costs.LONGEST_STEP
    monkeypatch.setattr(experiment_costs, "LONGEST_STEP", 0.0)
    sizes: list[int] = []
    monkeypatch.setattr(experiment_costs, "trainer_of", lambda subject, *_, **__: sizes.append(subject.overrides[1]))
    monkeypatch.setattr(experiment_costs, "median_ms", lambda *_, **__: 500.0)
    assert experiment_costs.estimate("pixelcnn_pp_dynamic_mnist_quick", device=CPU, batch=2, steps=1)[2] == 4.0
    assert sizes == ["trainer.batch_size=2"]


def test_every_experiment_that_was_not_run_has_known_images() -> None:
    for experiment in read_experiments([config_directory()]):
        if experiment.ours.startswith("not run"):
            target = configuration_of(f"experiment={experiment.name}", quiet=False).dataset["_target_"]
            assert target.rsplit(".", 1)[1] in experiment_costs.SHAPES, experiment.name
