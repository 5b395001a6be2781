"""One pass over real and generated images where that is the same function, two where it is not."""

import functools

import pytest
import torch

from genlab.models.gan.dcgan import DCGANDiscriminator
from genlab.models.gan.discriminator import Discriminator
from genlab.models.gan.networks import BatchNorm2d, GaussianNoiseLayer
from genlab.models.gan.techniques.minibatch_discrimination import MinibatchFeatures
from tests.models.gan.tiny import make_discriminator, make_mlp_discriminator
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


@pytest.mark.parametrize("kind", KINDS)
def test_whether_images_of_a_batch_influence_each_other(kind: str) -> None:
    discriminator = KINDS[kind]()
    images = torch.randn(4, 1, 4, 4, requires_grad=True)
    outputs = discriminator(images, torch.zeros(4, 2)).outputs
    (gradient,) = torch.autograd.grad(outputs[0].sum(), images)
    assert gradient[0].any()
    assert bool(gradient[1:].any()) == discriminator.couples_batches == (kind not in ("plain", "noisy"))
