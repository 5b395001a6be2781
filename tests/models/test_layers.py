"""Networks train through the layers whose gradients are derived by hand as through PyTorch's own."""

import pytest
import torch
from torch import nn

from benchmarks.composed import configuration_of
from genlab.config.schema import RunConfiguration
from genlab.errors import ConfigurationError
from genlab.nn.convolution.layers import ReferenceConv2d, ReferenceConvTranspose2d
from genlab.run.record import build_model
from genlab.training.optimization import FrozenOutside, PhaseUpdate
from genlab.training.schedules import constant
from genlab.types import Batch, ImageSpec
from tests.thinning import thinned

NUM_STEPS = 20
CPU = torch.device("cpu")
SPEC = ImageSpec(channels=1, height=16, width=16, num_levels=256, num_classes=3)
SMALL = {
    "dcgan": ("model.generator.channels=8", "model.discriminator.channels=8"),
    "dcgan_assignment": (),
    "wgan_gp": ("model.generator.channels=8", "model.discriminator.channels=8", "model.n_critic=2"),
    "classifier": ("model.width=8",),
}


def configuration(model: str, layers: str, *overrides: str) -> RunConfiguration:
    small = SMALL.get(model, ())
    return configuration_of(f"model={model}", f"model/layers={layers}", "trainer.precision=float32", *small, *overrides)


@pytest.mark.parametrize("model", SMALL)
def test_every_convolution_is_of_the_chosen_layers(model: str) -> None:
    network = build_model(configuration(model, "reference"), SPEC)
    kinds = [type(layer) for layer in network.modules() if isinstance(layer, nn.Conv2d | nn.ConvTranspose2d)]
    assert set(kinds) <= {ReferenceConv2d, ReferenceConvTranspose2d}
    assert kinds


def losses(settings: RunConfiguration, dtype: torch.dtype) -> torch.Tensor:
    """Of every phase at each of the first steps, (steps, phases)."""
    torch.manual_seed(0)
    model = build_model(settings, SPEC).to(dtype)
    updates = [
        PhaseUpdate(
            phase,
            optimizer=settings.bound_optimizer(phase.name).factory(),
            schedule=lambda optimizer, num_steps: constant(optimizer),
            settings=settings.settings,
            device=CPU,
        )
        for phase in model.phases()
    ]
    frozen = FrozenOutside(updates, model.parameters())
    generator = torch.Generator().manual_seed(1)
    rows = []
    torch.set_default_dtype(dtype)
    try:
        for _ in range(NUM_STEPS):
            images = torch.randint(256, (8, 1, 16, 16), generator=generator).to(dtype) / 255
            batch = Batch(images=images, labels=torch.randint(3, (8,), generator=generator))
            row = []
            for update in updates:
                frozen.enter(update)
                for _ in range(update.phase.repeats):
                    metrics, _ = update.run(batch)
                frozen.leave(update)
                name = next(name for name in metrics if name.startswith(("adversarial", "cross_entropy")))
                row.append(metrics[name])
            rows.append(torch.stack(row))
    finally:
        torch.set_default_dtype(torch.float32)
    return torch.stack(rows)


@pytest.mark.parametrize("model", thinned(SMALL, 4))
def test_the_first_losses_follow_the_builtin_layers(model: str) -> None:
    """In fp32 at a low rate: at the recipes' own, training doubles a rounding error every few steps.

    PyTorch's convolutions with and without their fast library differ as much there.
    """
    rate = "optimizer.default.lr=1e-5"
    builtin, reference = (
        losses(configuration(model, layers, rate), torch.float32) for layers in ("builtin", "reference")
    )
    assert builtin.shape[0] == NUM_STEPS
    torch.testing.assert_close(reference, builtin, rtol=1e-4, atol=1e-4 * builtin.abs().max().item())


# Not WGAN-GP, whose penalty is always in fp32.
@pytest.mark.slow
@pytest.mark.parametrize("model", [model for model in SMALL if model != "wgan_gp"])
def test_the_first_losses_follow_at_the_recipes_rate_in_double_precision(model: str) -> None:
    builtin, reference = (losses(configuration(model, layers), torch.float64) for layers in ("builtin", "reference"))
    torch.testing.assert_close(reference, builtin, rtol=1e-6, atol=1e-8)
    assert not torch.allclose(builtin[0], builtin[-1], rtol=1e-3), "nothing was learned"


def test_networks_without_convolutions_refuse_the_choice() -> None:
    settings = configuration("gan", "reference")
    with pytest.raises(ConfigurationError, match="model/layers has no effect on MLPDiscriminator"):
        build_model(settings, SPEC)
