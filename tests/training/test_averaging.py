from pathlib import Path

import pytest
import torch
from torch.nn.utils.parametrizations import spectral_norm

from genlab.errors import CheckpointError
from genlab.training.averaging import WeightAverage, averaged_weights
from genlab.types import Batch
from tests.training.conftest import TinyGAN, make_trainer


def test_follows_the_recursion_with_its_warm_up() -> None:
    model = TinyGAN()
    average = WeightAverage(model, decay=0.9)
    expected = model.generator[0].weight.detach().clone()
    for step in range(200):
        with torch.no_grad():
            model.generator[0].weight.add_(1.0)
        average.update(step)
        decay = min(0.9, (1 + step) / (10 + step))
        expected = decay * expected + (1 - decay) * model.generator[0].weight.detach()
        torch.testing.assert_close(average.model.generator[0].weight, expected)
    # A linear ramp of slope 1 is followed with the lag decay / (1 - decay).
    lag = model.generator[0].weight.detach() - average.model.generator[0].weight
    torch.testing.assert_close(lag, torch.full_like(lag, 9.0), rtol=1e-3, atol=1e-3)


def test_the_average_begins_at_initial_weights_that_depend_on_data(tmp_path: Path) -> None:
    class Started(TinyGAN):
        def initialize(self, batch: Batch) -> None:
            torch.nn.init.constant_(self.generator[0].weight, len(batch.images))

    state = make_trainer(tmp_path, Started(), ema_decay=0.9, num_initialization_images=5).state
    state.initialize()
    assert state.average is not None
    assert state.average.model.generator[0].weight.unique().tolist() == [5.0]


def test_buffers_are_the_models_own_at_any_time() -> None:
    model = TinyGAN()
    average = WeightAverage(model, decay=0.9)
    model.generator[1].running_mean.fill_(3.0)
    model.generator[1].running_var = torch.full((16,), 2.0)  # set anew, not changed in place
    ours, theirs = average.model.generator[1], model.generator[1]
    assert torch.equal(ours.running_mean, theirs.running_mean)
    assert torch.equal(ours.running_var, theirs.running_var)
    assert not any(parameter.requires_grad for parameter in average.model.parameters())


def test_a_checkpoint_keeps_the_averaged_parameters_alone() -> None:
    model = TinyGAN()
    average = WeightAverage(model, decay=0.9)
    assert average.state_dict().keys() == dict(model.named_parameters()).keys()


def test_stale_buffers_of_older_checkpoints_are_passed_over() -> None:
    model = TinyGAN()
    stale = WeightAverage(TinyGAN(), decay=0.9).model.state_dict()
    model.generator[1].running_mean.fill_(3.0)
    weights = averaged_weights(model.state_dict(), stale, model)
    assert torch.equal(weights["generator.1.running_mean"], torch.full((16,), 3.0))
    average = WeightAverage(model, decay=0.9)
    average.load_state_dict(stale)
    assert torch.equal(model.generator[1].running_mean, torch.full((16,), 3.0))


def test_an_average_that_lacks_a_parameter_is_refused() -> None:
    model = TinyGAN()
    kept = WeightAverage(model, decay=0.9).state_dict()
    del kept["generator.0.weight"]
    with pytest.raises(CheckpointError, match=r"lack generator\.0\.weight"):
        averaged_weights(model.state_dict(), kept, model)


def test_the_singular_vectors_of_the_trained_weights_serve_the_averaged_ones() -> None:
    model = TinyGAN()
    layer = spectral_norm(model.discriminator[0])
    average = WeightAverage(model, decay=0.99)
    optimizer = torch.optim.Adam(model.discriminator.parameters(), lr=1e-3)
    for step in range(200):
        model.discriminator(torch.randn(8, 16)).square().mean().backward()
        optimizer.step()
        optimizer.zero_grad()
        average.update(step)
    averaged = average.model.eval().discriminator[0]
    assert averaged.parametrizations.weight[0]._u is layer.parametrizations.weight[0]._u
    moved = averaged.parametrizations.weight.original - layer.parametrizations.weight.original
    assert float(moved.detach().norm()) > 0.01
    assert float(torch.linalg.matrix_norm(averaged.weight.detach(), 2)) == pytest.approx(1, abs=0.01)
