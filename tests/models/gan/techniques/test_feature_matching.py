"""Means of batches are matched, never one image with another."""

import pytest
import torch

from genlab.checks.adversarial import step_tensors
from genlab.models.gan.networks import DiscriminatorNetwork
from genlab.models.gan.techniques.feature_matching import FeatureMatching
from tests.models.gan.tiny import gradients, make_discriminator, make_gan, make_mlp_discriminator
from tests.models.tiny import make_batch, make_spec


def network() -> DiscriminatorNetwork:
    return make_mlp_discriminator()(spec=make_spec(), num_conditions=0)


def test_it_is_the_squared_distance_of_mean_features() -> None:
    discriminator = make_discriminator(network())
    real, fake = torch.randn(7, 1, 4, 4), torch.randn(4, 1, 4, 4)  # the two batches need not be of one size
    tensors = step_tensors(discriminator, real, fake)
    loss = FeatureMatching(weight=3.0, replaces_objective=True).generator_term(tensors)
    empty = torch.empty(7, 0)
    features = [discriminator.network(images, empty[: len(images)]).detach().numpy() for images in (real, fake)]
    expected = ((features[0].mean(0) - features[1].mean(0)) ** 2).sum()
    assert loss.metrics["feature_distance_squared"].item() == pytest.approx(expected, rel=1e-5)
    assert loss.value.item() == pytest.approx(3 * expected, rel=1e-5)


def test_another_order_of_the_same_images_costs_nothing() -> None:
    real = torch.randn(6, 1, 4, 4)
    tensors = step_tensors(make_discriminator(network()), real, real.flip(0))
    loss = FeatureMatching(weight=1.0, replaces_objective=True).generator_term(tensors)
    assert loss.value.item() == pytest.approx(0, abs=1e-10)


def test_the_real_features_carry_no_gradient_and_the_generated_ones_do() -> None:
    discriminator = make_discriminator(network())
    real = torch.randn(5, 1, 4, 4, requires_grad=True)
    fake = torch.randn(5, 1, 4, 4, requires_grad=True)
    loss = FeatureMatching(weight=1.0, replaces_objective=True).generator_term(step_tensors(discriminator, real, fake))
    of_real, of_fake = torch.autograd.grad(loss.value, (real, fake), allow_unused=True)
    assert of_real is None
    assert bool(of_fake.flatten(1).any(1).all())


@pytest.mark.parametrize("replaces", [True, False])
def test_it_stands_in_place_of_the_objective_or_beside_it(replaces: bool) -> None:
    model = make_gan(None, FeatureMatching(weight=2.0, replaces_objective=replaces))
    batch = make_batch(model.spec, 5)
    _, generator = model.phases()
    loss = generator.loss(batch)
    expected = 2 * loss.metrics["feature_distance_squared"]
    if not replaces:
        expected = expected + loss.metrics["adversarial_nats"]
    torch.testing.assert_close(loss.value.detach(), expected)
    found = gradients(model, loss.value)
    assert bool(found["discriminator.output.weight"].any()) != replaces
    assert all(bool(gradient.any()) for name, gradient in found.items() if name.startswith("generator."))


def test_it_teaches_the_discriminator_nothing() -> None:
    tensors = step_tensors(make_discriminator(network()), torch.randn(2, 1, 4, 4), torch.randn(2, 1, 4, 4))
    assert FeatureMatching(weight=1.0, replaces_objective=True).discriminator_term(tensors) is None
