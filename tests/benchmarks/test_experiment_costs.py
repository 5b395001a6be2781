"""The estimate of what a published experiment costs."""

import pytest
import torch

from benchmarks import experiment_costs
from benchmarks.gpu.subjects import Subject, configuration_of
from genlab.comparison.published import read_experiments
from genlab.config.location import config_directory

CPU = torch.device("cpu")


@pytest.mark.parametrize(("milliseconds", "measured", "seconds"), [(500.0, [2, 16], 0.5), (8e3, [2], 64.0)])
def test_a_short_step_is_measured_whole_and_a_long_one_extrapolated(
    monkeypatch: pytest.MonkeyPatch, milliseconds: float, measured: list[int], seconds: float
) -> None:
    sizes: list[int] = []

    def build(subject: Subject, *_: object, **__: object) -> None:
        sizes.append(int(subject.overrides[1].removeprefix("trainer.batch_size=")))

    monkeypatch.setattr(experiment_costs, "trainer_of", build)
    monkeypatch.setattr(experiment_costs, "median_ms", lambda *_, **__: milliseconds)
    found = experiment_costs.estimate("pixelcnn_pp_dynamic_mnist_quick", device=CPU, batch=2, steps=1)
    assert found == (6_000, 16, seconds)
    assert sizes == measured


def test_a_step_of_an_experiment_is_taken() -> None:
    assert experiment_costs.estimate("pixelcnn_blocks_mnist_quick", device=CPU, batch=2, steps=1)[2] > 0


@pytest.mark.slow
def test_every_experiment_that_was_not_run_has_known_images() -> None:
    for experiment in read_experiments([config_directory()]):
        if experiment.ours.startswith("not run"):
            target = configuration_of(f"experiment={experiment.name}", quiet=False).dataset["_target_"]
            assert target.rsplit(".", 1)[1] in experiment_costs.SHAPES, experiment.name
