"""Minibatch discrimination against three loops."""

import numpy as np
import pytest
import torch
from torch import Tensor

from genlab.models.gan.techniques.minibatch_discrimination import MinibatchDiscrimination, MinibatchFeatures
from tests.models.gan.tiny import make_gan
from tests.models.tiny import make_batch


def by_loops(features: np.ndarray, tensor: np.ndarray) -> np.ndarray:
    """Section 3.2 of arXiv:1606.03498, without the image itself; `tensor` is T, (F, K, D)."""
    num, kernels = len(features), tensor.shape[1]
    matrices = np.einsum("bf,fkd->bkd", features, tensor)
    closeness = np.zeros((num, kernels))
    for i in range(num):
        for j in range(num):
            for k in range(kernels):
                if i != j:
                    closeness[i, k] += np.exp(-np.abs(matrices[i, k] - matrices[j, k]).sum())
    return np.concatenate((features, closeness), 1)


@pytest.mark.parametrize("num", [1, 2, 5])
def test_it_is_the_papers_sum_without_the_image_itself(num: int) -> None:
    layer = MinibatchFeatures(num_features=4, num_kernels=3, kernel_size=2)
    features = torch.randn(num, 4)
    tensor = layer.project.weight.detach().numpy().T.reshape(4, 3, 2)
    expected = torch.from_numpy(by_loops(features.numpy(), tensor)).float()
    torch.testing.assert_close(layer(features).detach(), expected, rtol=1e-5, atol=1e-6)


def test_a_collapsed_batch_shows_the_largest_closeness() -> None:
    layer = MinibatchFeatures(num_features=4, num_kernels=3, kernel_size=2)
    collapsed = layer(torch.ones(7, 4))
    torch.testing.assert_close(collapsed[:, 4:], torch.full((7, 3), 6.0))
    assert layer(10 * torch.randn(7, 4))[:, 4:].max() < 6


def test_first_and_second_derivatives(monkeypatch: pytest.MonkeyPatch) -> None:
    """A gradient penalty differentiates it twice. The layer's own fp32 is switched off for finite differences."""
    monkeypatch.setattr(Tensor, "float", lambda tensor: tensor)
    layer = MinibatchFeatures(num_features=3, num_kernels=2, kernel_size=2).double()
    features = torch.randn(3, 3, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(layer, (features,))
    assert torch.autograd.gradgradcheck(layer, (features,))


def test_the_distances_are_of_fp32_under_autocast() -> None:
    """Only the product is of bf16: what follows from its values is exact."""
    layer = MinibatchFeatures(num_features=4, num_kernels=3, kernel_size=2)
    features = torch.randn(6, 4)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        projected = layer.project(features)
        joined = layer(features)
    assert projected.dtype == torch.bfloat16
    matrices = projected.detach().double().view(6, 3, 2)
    closeness = (-(matrices[:, None] - matrices[None]).abs().sum(3)).exp().sum(1) - 1
    torch.testing.assert_close(joined[:, 4:].double(), closeness, rtol=1e-5, atol=1e-5)


def test_the_discriminator_gets_the_wider_features() -> None:
    model = make_gan(None, MinibatchDiscrimination(num_kernels=5, kernel_size=2))
    assert model.discriminator.output.in_features == 6 + 5
    output = model.discriminator(torch.randn(3, 1, 4, 4), torch.empty(3, 0))
    assert output.features.shape == (3, 6), "feature matching sees the network's own"
    assert all(len(values) == 3 for values in model.evaluate(make_batch(model.spec, 3)).values())


@pytest.mark.parametrize("name", ["num_kernels", "kernel_size"])
def test_numbers_out_of_range_are_refused(name: str) -> None:
    with pytest.raises(ValueError, match=rf"minibatch_discrimination\.{name}"):
        MinibatchDiscrimination(**({"num_kernels": 3, "kernel_size": 2} | {name: 0}))
