"""Row by row and pixel by pixel equals the convolution of the whole picture."""

import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st

from genlab.models.pixelcnn.cached_layers import PixelConvolution, RowConvolution
from genlab.nn.masked import MaskedConv2d

SIDES = st.integers(1, 7)


@settings(deadline=None, max_examples=30)
@given(rows=st.integers(1, 4), reach=st.integers(0, 3), height=SIDES, width=SIDES, batch=st.integers(1, 3))
def test_rows_equal_the_whole(rows, reach, height, width, batch):
    weight, bias = torch.randn(5, 3, rows, 2 * reach + 1), torch.randn(5)
    x = torch.randn(batch, 3, height, width)
    whole = F.conv2d(F.pad(x, (reach, reach, rows - 1, 0)), weight, bias)
    layer = RowConvolution(weight, bias, num_samples=batch, width=width, padding=(reach, reach))
    for row in range(height):
        layer.push(x[:, :, row].transpose(1, 2))
        torch.testing.assert_close(layer.output().transpose(1, 2), whole[:, :, row], atol=1e-5, rtol=1e-5)


@settings(deadline=None, max_examples=30)
@given(
    kernel=st.sampled_from([(1, 1), (1, 5), (3, 3), (5, 3), (7, 7)]),
    groups=st.integers(1, 3),
    height=SIDES,
    width=SIDES,
    batch=st.integers(1, 3),
)
def test_pixels_and_colour_groups_equal_the_whole(kernel, groups, height, width, batch):
    convolution = MaskedConv2d(4, 5, kernel, num_groups=groups, mask_type="B")
    x = torch.randn(batch, 4, height, width)
    with torch.no_grad():
        whole = convolution(x)
        layer = PixelConvolution(
            convolution.effective_weight(),
            convolution.bias,
            num_samples=batch,
            width=width,
            left=kernel[1] // 2,
            bounds_in=convolution.bounds_in,
            bounds_out=convolution.bounds_out,
        )
        for row in range(height):
            layer.begin_row()
            for column in range(width):
                for group in range(groups):
                    part_in = slice(*convolution.bounds_in[group : group + 2])
                    part_out = slice(*convolution.bounds_out[group : group + 2])
                    layer.inputs[group][column].copy_(x[:, part_in, row, column])
                    expected = whole[:, part_out, row, column]
                    torch.testing.assert_close(layer.output(column, group), expected, atol=1e-5, rtol=1e-5)


def test_memory_grows_with_the_width_and_not_with_the_height():
    layer = PixelConvolution(torch.randn(2, 2, 3, 5), torch.randn(2), num_samples=1, width=6, left=2)
    kept = layer._rows.data_ptr(), layer._rows.shape
    for _ in range(50):
        layer.begin_row()
    assert (layer._rows.data_ptr(), layer._rows.shape) == kept
    assert layer._rows.shape == (1, 2, 6 + 4, 2)
