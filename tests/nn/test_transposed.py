"""The transposed convolution to images against PyTorch's."""

import pytest
import torch
from torch import nn
from torch.autograd import gradcheck, gradgradcheck

from genlab.nn.transposed import ImageConvTranspose2d


def same_pair(channels: int, kernel: int, stride: int, padding: int, extra: int) -> tuple[nn.ConvTranspose2d, ...]:
    """PyTorch's layer and ours with the same parameters, in double precision."""
    pair = tuple(
        layer(3, channels, kernel, stride, padding, output_padding=extra).double()
        for layer in (nn.ConvTranspose2d, ImageConvTranspose2d)
    )
    pair[1].load_state_dict(pair[0].state_dict())
    return pair


@pytest.mark.parametrize("channels", [1, 2])
@pytest.mark.parametrize(
    ("kernel", "stride", "padding", "extra"), [(4, 2, 1, 0), (5, 2, 2, 1), (3, 1, 1, 0), (2, 2, 0, 0), (2, 3, 0, 2)]
)
def test_values_and_gradients_are_those_of_pytorch(
    channels: int, kernel: int, stride: int, padding: int, extra: int
) -> None:
    results = []
    x = torch.randn(2, 3, 5, 4, dtype=torch.float64)
    for layer in same_pair(channels, kernel, stride, padding, extra):
        inputs = x.to(memory_format=torch.channels_last).requires_grad_()
        y = layer(inputs)
        gradients = torch.autograd.grad(y.square().sum(), (inputs, *layer.parameters()))
        results.append((y, *gradients))
    for theirs, ours in zip(*results, strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-12, atol=1e-12)


def test_second_derivatives() -> None:
    layer = ImageConvTranspose2d(2, 1, 4, 2, 1).double()
    x = torch.randn(1, 2, 2, 2, dtype=torch.float64, requires_grad=True)
    assert gradcheck(layer, x)
    assert gradgradcheck(layer, x)


def test_the_overlaps_are_added_in_float32_under_autocast() -> None:
    layer = ImageConvTranspose2d(8, 1, 4, 2, 1)
    with torch.autocast("cpu", torch.bfloat16):
        y = layer(torch.randn(2, 8, 5, 5))
    assert y.dtype == torch.float32


def test_no_images_give_no_images() -> None:
    assert ImageConvTranspose2d(3, 1, 4, 2, 1)(torch.zeros(0, 3, 7, 7)).shape == (0, 1, 14, 14)


def test_other_channels_are_refused_as_by_pytorch() -> None:
    for layer in (nn.ConvTranspose2d, ImageConvTranspose2d):
        with pytest.raises(RuntimeError):
            layer(8, 1, 3)(torch.randn(2, 4, 4, 4))
