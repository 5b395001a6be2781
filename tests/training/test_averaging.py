import torch

from genlab.training.averaging import WeightAverage
from tests.training.conftest import TinyGAN


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


def test_buffers_are_copied_when_the_average_is_used() -> None:
    model = TinyGAN()
    average = WeightAverage(model, decay=0.9)
    model.generator[1].running_mean.fill_(3.0)
    assert torch.equal(average.up_to_date().generator[1].running_mean, torch.full((16,), 3.0))
    assert not any(parameter.requires_grad for parameter in average.model.parameters())
