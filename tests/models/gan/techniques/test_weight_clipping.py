"""After every update of the critic its parameters are within the bound, and only its."""

import pytest
import torch

from genlab.checks.phases import training_step
from genlab.models.gan.objectives import Wasserstein
from genlab.models.gan.techniques.weight_clipping import WeightClipping
from tests.models.gan.tiny import make_gan, make_updates
from tests.models.tiny import make_batch


def test_parameters_are_within_the_bound_after_an_update() -> None:
    model = make_gan(None, WeightClipping(bound=0.01), objective=Wasserstein(), n_critic=2)
    generator = {name: parameter.clone() for name, parameter in model.generator.named_parameters()}
    before = torch.cat([parameter.detach().flatten() for parameter in model.discriminator.parameters()])
    discriminator_update = make_updates(model, lr=1e-3)[:1]
    training_step(model, discriminator_update, make_batch(model.spec, 4))
    after = torch.cat([parameter.detach().flatten() for parameter in model.discriminator.parameters()])
    assert after.abs().max() <= 0.01
    inside = before.abs() < 0.005
    torch.testing.assert_close(after[inside], before[inside], atol=2.5e-3, rtol=0)
    assert (after[before > 0.02] > 0.008).all(), "a large weight is brought to the bound, and moves from there"
    assert all(torch.equal(parameter, generator[name]) for name, parameter in model.generator.named_parameters())
    assert max(parameter.abs().max() for parameter in generator.values()) > 0.1


@pytest.mark.parametrize("bound", [0.0, -0.01])
def test_a_bound_out_of_range_is_refused(bound: float) -> None:
    with pytest.raises(ValueError, match=r"weight_clipping\.bound must be between"):
        WeightClipping(bound=bound)
