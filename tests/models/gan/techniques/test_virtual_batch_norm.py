"""Virtual batch normalisation against NumPy, and the independence of a batch's images."""

import functools

import numpy as np
import pytest
import torch
from torch import Generator, nn

from genlab.models.gan.conditioning import ClassLabels
from genlab.models.gan.dcgan import DCGANGenerator
from genlab.models.gan.dcgan_assignment import AssignmentGenerator
from genlab.models.gan.networks import BatchNorm1d, BatchNorm2d
from genlab.models.gan.techniques.virtual_batch_norm import (
    ReferencedGenerator,
    VirtualBatchNorm,
    VirtualBatchNormalization,
)
from tests.models.gan.tiny import make_gan, make_mlp_generator
from tests.models.tiny import make_spec, randomize

NUM_REFERENCE = 4
GENERATORS = {
    "mlp": make_mlp_generator(normalization=BatchNorm1d),
    "plain mlp": make_mlp_generator(),
    "dcgan": functools.partial(DCGANGenerator, channels=8, normalization=BatchNorm2d),
    "plain dcgan": functools.partial(DCGANGenerator, channels=8, normalization=None),
    "assignment": functools.partial(AssignmentGenerator, channels=4, weight_std=None),
}


def by_numpy(x: np.ndarray, weight: np.ndarray, bias: np.ndarray) -> np.ndarray:
    """Each row among the reference rows and itself, all positions of all of them pooled, in float64."""
    reference, rows = x[:NUM_REFERENCE], []
    for index, row in enumerate(x):
        pool = reference if index < NUM_REFERENCE else np.concatenate((reference, row[None]))
        by_channel = np.moveaxis(pool, 1, 0).reshape(x.shape[1], -1)
        shape = (-1, *[1] * (x.ndim - 2))
        mean, variance = by_channel.mean(1).reshape(shape), by_channel.var(1).reshape(shape)
        rows.append((row - mean) / np.sqrt(variance + 1e-5) * weight.reshape(shape) + bias.reshape(shape))
    return np.stack(rows)


@pytest.mark.parametrize("shape", [(7, 3), (7, 3, 2, 5), (4, 3), (5, 3, 1, 1)])
@pytest.mark.parametrize("offset", [0.0, 1000.0])
def test_it_is_numpys_with_the_example_itself_joined(shape: tuple[int, ...], offset: float) -> None:
    """A mean of a thousand standard deviations must not cost the variance its digits."""
    layer = VirtualBatchNorm(3, num_reference=NUM_REFERENCE)
    randomize(layer, 0.5)
    x = torch.randn(shape) + offset
    expected = by_numpy(x.double().numpy(), layer.weight.detach().numpy(), layer.bias.detach().numpy())
    torch.testing.assert_close(layer(x).detach().double(), torch.from_numpy(expected), rtol=2e-3, atol=2e-3)


def test_its_gradient_is_that_of_finite_differences(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.Tensor, "float", lambda tensor: tensor)
    for shape in ((6, 3), (6, 3, 2, 2)):
        layer = VirtualBatchNorm(3, num_reference=NUM_REFERENCE).double()
        randomize(layer, 0.5)
        assert torch.autograd.gradcheck(layer, (torch.randn(shape, dtype=torch.float64, requires_grad=True),))


@pytest.mark.parametrize("name", GENERATORS)
def test_no_image_depends_on_another_one_of_its_batch(name: str) -> None:
    technique = VirtualBatchNormalization(num_reference=NUM_REFERENCE)
    model = make_gan(None, technique, generator=GENERATORS[name])
    assert not any(isinstance(module, nn.BatchNorm1d | nn.BatchNorm2d) for module in model.generator.modules())
    assert any(isinstance(module, VirtualBatchNorm) for module in model.generator.modules())
    inputs = torch.randn(3, 3, requires_grad=True)
    pixels = model.generator(inputs).flatten(1)
    for row in range(3):
        (gradient,) = torch.autograd.grad(pixels[row].square().sum(), inputs, retain_graph=True)
        assert [bool(part.any()) for part in gradient] == [index == row for index in range(3)]
    alone = model.generator(inputs[:1]).detach().flatten(1)
    torch.testing.assert_close(alone, pixels[:1].detach())
    model.eval()
    torch.testing.assert_close(model.generator(inputs).detach().flatten(1), pixels.detach())


def test_every_normalisation_and_every_place_of_one_is_replaced() -> None:
    technique = VirtualBatchNormalization(num_reference=NUM_REFERENCE)
    for name, expected in {"mlp": 2, "plain mlp": 2, "dcgan": 2, "plain dcgan": 2, "assignment": 3}.items():
        model = make_gan(None, technique, generator=GENERATORS[name])
        found = [module for module in model.generator.modules() if isinstance(module, VirtualBatchNorm)]
        assert len(found) == expected, name


def test_the_reference_batch_is_fixed_and_in_the_checkpoint() -> None:
    technique = VirtualBatchNormalization(num_reference=NUM_REFERENCE)
    models = [make_gan(None, technique, generator=GENERATORS["mlp"]) for _ in range(2)]
    references = [model.state_dict()["generator.reference"] for model in models]
    assert not torch.equal(*references)
    assert not any(name.endswith("reference") for name, _ in models[0].named_parameters())
    models[1].load_state_dict(models[0].state_dict())
    drawn = [model.sample(3, generator=Generator().manual_seed(1)) for model in models]
    assert torch.equal(*drawn)


def test_the_reference_has_the_generators_inputs_with_conditions() -> None:
    model = make_gan(make_spec(num_classes=3), VirtualBatchNormalization(num_reference=50), conditioning=ClassLabels())
    assert isinstance(model.generator, ReferencedGenerator)
    reference = model.generator.reference
    assert reference.shape == (50, 3 + 3)
    assert (reference[:, :3].abs() <= 1).all()
    assert torch.equal(reference[:, 3:].sum(1), torch.ones(50))
    assert bool((reference[:, 3:].sum(0) > 0).all())


def test_the_statistics_are_of_fp32_under_autocast() -> None:
    layer = VirtualBatchNorm(3, num_reference=NUM_REFERENCE)
    x = (torch.randn(6, 3, 4, 4) + 5).bfloat16()
    with torch.autocast("cpu", dtype=torch.bfloat16):
        normalized = layer(x)
    assert normalized.dtype == torch.bfloat16
    assert torch.equal(normalized, layer(x.float()).bfloat16())


def test_a_number_out_of_range_is_refused() -> None:
    with pytest.raises(ValueError, match=r"num_reference must be an integer of at least 2, got 1"):
        VirtualBatchNormalization(num_reference=1)
