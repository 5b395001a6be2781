"""Historical averaging of a known walk."""

from dataclasses import replace

import pytest
import torch
from torch import Tensor

from genlab.checks.adversarial import step_tensors
from genlab.models.gan.techniques.base import StepTensors
from genlab.models.gan.techniques.historical_averaging import HistoricalAveraging
from genlab.types import Loss
from tests.models.gan.tiny import make_discriminator, make_gan, make_mlp_discriminator, make_mlp_generator
from tests.models.tiny import make_spec

WEIGHT = 0.5


def prepared() -> tuple[HistoricalAveraging, StepTensors]:
    torch.manual_seed(0)
    discriminator = make_discriminator(make_mlp_discriminator()(spec=make_spec(), num_conditions=0))
    generator = make_mlp_generator()(spec=make_spec(), num_inputs=3)
    technique = HistoricalAveraging(weight=WEIGHT)
    technique.prepare(generator, discriminator)
    tensors = step_tensors(discriminator, torch.randn(2, 1, 4, 4), torch.randn(2, 1, 4, 4))
    return technique, replace(tensors, generator=generator)


def flat(tensors: StepTensors, side: str) -> Tensor:
    network = getattr(tensors, side)
    return torch.cat([parameter.detach().flatten() for parameter in network.parameters()])


def term(technique: HistoricalAveraging, tensors: StepTensors, side: str) -> Loss:
    return technique.discriminator_term(tensors) if side == "discriminator" else technique.generator_term(tensors)


@pytest.mark.parametrize("side", ["generator", "discriminator"])
def test_a_walk_pays_for_its_distance_from_the_mean_of_its_past(side: str) -> None:
    technique, tensors = prepared()
    network = getattr(tensors, side)
    past = []
    for number in range(6):
        with torch.no_grad():
            for parameter in network.parameters():
                parameter.add_(number * torch.randn_like(parameter))
        past.append(flat(tensors, side))
        network.zero_grad()
        loss = term(technique, tensors, side)
        distance = past[-1] - torch.stack(past).mean(0)
        expected = distance.square().sum()
        torch.testing.assert_close(loss.metrics["historical_distance_squared"], expected, rtol=1e-4, atol=1e-6)
        torch.testing.assert_close(loss.value.detach(), WEIGHT * expected, rtol=1e-4, atol=1e-6)
        loss.value.backward()
        gradient = torch.cat([parameter.grad.flatten() for parameter in network.parameters()])
        torch.testing.assert_close(gradient, 2 * WEIGHT * distance, rtol=1e-4, atol=1e-5)
    assert expected > 1


def test_the_first_step_costs_nothing_and_has_a_finite_gradient() -> None:
    technique, tensors = prepared()
    loss = technique.generator_term(tensors)
    assert loss.value.item() == 0
    for gradient in torch.autograd.grad(loss.value, list(tensors.generator.parameters())):
        assert torch.equal(gradient, torch.zeros_like(gradient))


def test_the_two_networks_have_a_history_each() -> None:
    technique, tensors = prepared()
    for _ in range(3):
        technique.discriminator_term(tensors)
    technique.generator_term(tensors)
    assert technique.num_seen.tolist() == [1, 3]


def test_the_averages_are_in_the_checkpoint_and_a_loaded_model_continues_from_them() -> None:
    technique, tensors = prepared()
    with torch.no_grad():
        for _ in range(3):
            technique.generator_term(tensors)
            for parameter in tensors.generator.parameters():
                parameter.add_(1.0)
    model = make_gan(None, HistoricalAveraging(weight=WEIGHT))
    num_tensors = len(list(model.generator.parameters())) + len(list(model.discriminator.parameters()))
    assert sum(name.startswith("techniques.technique_0.") for name in model.state_dict()) == num_tensors + 1

    other = HistoricalAveraging(weight=WEIGHT)
    other.prepare(tensors.generator, tensors.discriminator)
    other.load_state_dict(technique.state_dict())
    assert torch.equal(other.generator_term(tensors).value, technique.generator_term(tensors).value)
