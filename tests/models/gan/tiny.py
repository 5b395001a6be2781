"""GANs small enough to be measured by brute force, and the trainer's updates without the trainer."""

import functools
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from genlab.checks.adversarial import FlatPixels
from genlab.models.gan.conditioning import Unconditional
from genlab.models.gan.discriminator import Discriminator
from genlab.models.gan.gan import GAN
from genlab.models.gan.latent import UniformNoise
from genlab.models.gan.mlp import MLPDiscriminator, MLPGenerator
from genlab.models.gan.networks import DiscriminatorNetwork
from genlab.models.gan.objectives import NonSaturating
from genlab.models.gan.output import Tanh
from genlab.models.gan.techniques.base import Technique
from genlab.nn.convolution.layers import builtin_layers
from genlab.training.optimization import PhaseUpdate
from genlab.types import ImageSpec
from tests.models.tiny import make_spec
from tests.training.conftest import cosine, make_settings


def make_mlp_generator(*, normalization: Callable[[int], nn.Module] | None = None) -> Callable[..., MLPGenerator]:
    settings = {"hidden": [8, 7], "activation": nn.Tanh, "normalization": normalization}
    settings["normalizes_output_weights"] = False
    return functools.partial(MLPGenerator, **settings)


def make_mlp_discriminator(**noise: float) -> Callable[..., MLPDiscriminator]:
    settings = {"hidden": [9, 6], "leak": 0.2, "input_noise": 0.0, "hidden_noise": 0.0}
    return functools.partial(MLPDiscriminator, **(settings | noise))


def make_gan(spec: ImageSpec | None = None, *techniques: Technique, kind: type[GAN] = GAN, **changes: Any) -> GAN:
    settings: dict[str, Any] = {
        "latent": UniformNoise(size=3),
        "generator": make_mlp_generator(),
        "output": Tanh(),
        "discriminator": make_mlp_discriminator(),
        "layers": builtin_layers(),
        "objective": NonSaturating(),
        "conditioning": Unconditional(),
        "techniques": {f"technique_{index}": technique for index, technique in enumerate(techniques)},
        "n_critic": 1,
        "generator_repeats": 1,
        "pack": 1,
        "reuses_generated": False,
    }
    return kind(spec=spec or make_spec(), **(settings | changes))


class ScaledPixels(FlatPixels):
    """Its features are the pixels times the condition, or the pixels where there is none."""

    def forward(self, images: Tensor, conditions: Tensor) -> Tensor:
        return super().forward(images, conditions) * conditions.prod(1, keepdim=True)


def make_discriminator(network: DiscriminatorNetwork) -> Discriminator:
    return Discriminator(network, feature_layer=nn.Identity(), num_joint_features=network.num_features, num_outputs=1)


def make_updates(model: GAN, *, lr: float = 1e-2, **settings: Any) -> list[PhaseUpdate]:
    return [
        PhaseUpdate(
            phase,
            optimizer=functools.partial(torch.optim.Adam, lr=lr, betas=(0.5, 0.9)),
            schedule=cosine,
            settings=make_settings(**settings),
            device=torch.device("cpu"),
        )
        for phase in model.phases()
    ]


def gradients(model: nn.Module, loss: Tensor) -> dict[str, Tensor]:
    """Of all parameters; zeros where the loss does not depend on one."""
    named = dict(model.named_parameters())
    found = torch.autograd.grad(loss, list(named.values()), allow_unused=True)
    return {
        name: torch.zeros_like(parameter) if gradient is None else gradient
        for (name, parameter), gradient in zip(named.items(), found, strict=True)
    }
