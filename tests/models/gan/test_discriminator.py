"""One pass over real and generated images where that is the same function, two where it is not."""

import copy
import functools

import pytest
import torch
from torch import nn

from genlab.models.gan.dcgan import DCGANDiscriminator
from genlab.models.gan.discriminator import Discriminator
from genlab.models.gan.networks import BatchNorm2d, GaussianNoiseLayer
from genlab.models.gan.techniques.minibatch_discrimination import MinibatchFeatures
from genlab.types import UNLABELLED, Batch
from tests.models.gan.tiny import make_discriminator, make_gan, make_mlp_discriminator
from tests.models.tiny import make_spec


def plain() -> Discriminator:
    return make_discriminator(make_mlp_discriminator()(spec=make_spec(), num_conditions=2))


def batch_normalized() -> Discriminator:
    settings = {
        "channels": 3,
        "num_hidden": None,
        "normalization": BatchNorm2d,
        "leak": 0.2,
    }
    make = functools.partial(DCGANDiscriminator, **settings)
    return make_discriminator(make(spec=make_spec(), num_conditions=2))


def minibatch_discriminating() -> Discriminator:
    network = make_mlp_discriminator()(spec=make_spec(), num_conditions=2)
    layer = MinibatchFeatures(num_features=network.num_features, num_kernels=3, kernel_size=2)
    return Discriminator(network, feature_layer=layer, num_joint_features=network.num_features + 3, num_outputs=1)


def noisy() -> Discriminator:
    """Noise before the outputs mixes no images; it is zero here, to be compared."""
    network = make_mlp_discriminator()(spec=make_spec(), num_conditions=2)
    noise = GaussianNoiseLayer(0.0)
    return Discriminator(network, feature_layer=noise, num_joint_features=network.num_features, num_outputs=1)


def forget(module: nn.Module) -> None:
    for layer in module.modules():
        if isinstance(layer, BatchNorm2d):
            layer.momentum = 1.0


KINDS = {"plain": plain, "noisy": noisy, "batch norm": batch_normalized, "minibatch": minibatch_discriminating}


@pytest.mark.parametrize("kind", KINDS)
def test_judging_both_is_judging_each(kind: str) -> None:
    discriminator = KINDS[kind]()
    real, fake = torch.randn(3, 1, 4, 4), torch.randn(5, 1, 4, 4) + 2
    conditions = torch.randn(3, 2), torch.randn(5, 2)
    both = discriminator.forward_both(real, fake, *conditions)
    for output, images, given in zip(both, (real, fake), conditions, strict=True):
        alone = discriminator(images, given)
        torch.testing.assert_close(output.features, alone.features)
        torch.testing.assert_close(output.outputs, alone.outputs)


def test_batch_normalisation_evaluates_each_kind_of_images_with_its_own_statistics() -> None:
    """With a momentum of 1 these are those of the last pass, and evaluation is the function that was trained."""
    discriminator = batch_normalized()
    forget(discriminator)
    real, fake, conditions = torch.randn(200, 1, 4, 4), 3 * torch.randn(200, 1, 4, 4) + 2, torch.randn(200, 2)
    trained = discriminator.forward_both(real, fake, conditions, conditions)
    discriminator.eval()
    close = {"rtol": 0.01, "atol": 0.01}  # the running variance has n - 1
    torch.testing.assert_close(discriminator(real, conditions).outputs, trained[0].outputs, **close)
    with discriminator.on_generated():
        torch.testing.assert_close(discriminator(fake, conditions).outputs, trained[1].outputs, **close)
    assert (discriminator(fake, conditions).outputs - trained[1].outputs).abs().max() > 0.5
    assert copy.deepcopy(discriminator).state_dict().keys() == batch_normalized().state_dict().keys()


@pytest.mark.parametrize("pack", [1, 2])
def test_the_scores_of_an_evaluation_are_those_of_training(pack: int) -> None:
    spec = make_spec()
    settings = {"channels": 3, "num_hidden": None, "normalization": BatchNorm2d, "leak": 0.2}
    model = make_gan(spec, discriminator=functools.partial(DCGANDiscriminator, **settings), pack=pack)
    forget(model.discriminator)
    batch = Batch(images=0.8 + 0.2 * torch.rand(400, 1, 4, 4), labels=torch.full((400,), UNLABELLED))
    in_training = model._discriminator_loss(batch).metrics
    model._generator_loss(batch)
    measured = {name: float(values.mean()) for name, values in model.evaluate(batch).items()}
    assert measured["score_real"] == pytest.approx(float(in_training["score_real"]), abs=0.01)
    assert measured["score_fake"] == pytest.approx(float(in_training["score_fake"]), abs=0.05)  # of other images


@pytest.mark.parametrize("kind", KINDS)
def test_whether_images_of_a_batch_influence_each_other(kind: str) -> None:
    discriminator = KINDS[kind]()
    images = torch.randn(4, 1, 4, 4, requires_grad=True)
    outputs = discriminator(images, torch.zeros(4, 2)).outputs
    (gradient,) = torch.autograd.grad(outputs[0].sum(), images)
    assert gradient[0].any()
    assert bool(gradient[1:].any()) == discriminator.couples_batches == (kind not in ("plain", "noisy"))
