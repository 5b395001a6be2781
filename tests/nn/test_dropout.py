"""Dropout: the shares and values of its masks, their gradients and layouts, and its masks in a compiled network."""

import subprocess
import sys

import pytest
import torch
from torch import Tensor, nn

from genlab.nn.dropout import Dropout

NUM = 200_000


def mask(p: float, shape: tuple[int, ...] = (NUM,), seed: int = 0) -> Tensor:
    torch.manual_seed(seed)
    return Dropout(p)(torch.ones(shape))


@pytest.mark.parametrize("p", [0.001, 0.1, 0.5, 0.99])
def test_the_share_of_zeros_is_p_and_the_mean_stays(p: float) -> None:
    y = mask(p)
    standard_error = (p * (1 - p) / NUM) ** 0.5
    assert abs((y == 0).double().mean().item() - p) < 5 * standard_error
    assert y.unique().tolist() == pytest.approx([0, 1 / (1 - p)], rel=1e-3)
    # Exact in expectation, for the rounded probability too.
    assert y.max().item() == pytest.approx(1 / (1 - round(p * 65536) / 65536), rel=1e-6)


def test_elements_and_masks_are_independent() -> None:
    """Also the four that share a drawn word of 64 bits, and whole feature maps are not dropped."""
    kept = (mask(0.5, (NUM // 4, 4)) != 0).double()
    limit = 5 / (NUM // 4) ** 0.5
    assert torch.corrcoef(kept.T).fill_diagonal_(0).abs().max() < limit
    assert not torch.equal(mask(0.5), mask(0.5, seed=1))
    assert torch.equal(mask(0.5), mask(0.5))
    torch.manual_seed(0)
    layer = Dropout(0.5)
    assert not torch.equal(layer(torch.ones(64)), layer(torch.ones(64)))


@pytest.mark.parametrize("p", [0.0, 1e-7, 1.0])
def test_extreme_probabilities_are_those_of_pytorch(p: float) -> None:
    expected = nn.Dropout(p)(torch.ones(100))
    assert torch.equal(mask(p, (100,)), expected)


def test_it_is_the_identity_in_evaluation() -> None:
    x = torch.randn(3, 5)
    assert Dropout(0.5).eval()(x) is x


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16])
@pytest.mark.parametrize("memory_format", [torch.contiguous_format, torch.channels_last])
def test_type_and_layout_stay_and_the_gradient_is_the_mask(
    dtype: torch.dtype, memory_format: torch.memory_format
) -> None:
    x = torch.randn(2, 3, 5, 7, dtype=dtype).contiguous(memory_format=memory_format).requires_grad_()
    y = Dropout(0.5)(x)
    assert (y.dtype, y.shape) == (x.dtype, x.shape)
    assert y.is_contiguous(memory_format=memory_format)
    (gradient,) = torch.autograd.grad(y.sum(), x)
    assert set(gradient.unique().tolist()) == {0, 2}
    assert torch.equal(gradient * x, y)


@pytest.mark.slow
def test_compiled_layers_draw_the_masks_of_eager_ones() -> None:
    """Each its own, although the calls are alike."""
    command = [sys.executable, "-W", "ignore", "-m", "tests.nn.compiled_dropout"]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=300)
    assert done.returncode == 0, done.stderr
