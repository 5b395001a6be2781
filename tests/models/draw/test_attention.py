"""Filter banks against the formulas of arXiv:1502.04623, section 3.2; ``listing_mistake_n`` fails on the n-th mistake
of the source listing in place of the paper's formula.
"""

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from genlab.checks.attention import paper_bank
from genlab.models.draw.attention import AttentionBias, FilterGrid, ReadAttention, WriteAttention

NO_BIAS = AttentionBias(0.0, 0.0, 0.0)
# The constants of a grid are kept in single precision, also where it computes in double.
SINGLE = {"rtol": 1e-5, "atol": 1e-6}


def make_grid(num_filters: int, height: int, width: int) -> FilterGrid:
    return FilterGrid(num_filters=num_filters, height=height, width=width).double()


def parameters(grid: FilterGrid, *, x: float, y: float, variance: float, stride: float, gamma: float = 1.0) -> Tensor:
    """The parameters of one window given in pixels: eqs. 21 to 24 solved for what the layer must emit."""
    height, width = len(grid.rows), len(grid.columns)
    span = (max(height, width) - 1) / max(grid.num_filters - 1, 1)
    raw = (
        2 * x / (width + 1) - 1,
        2 * y / (height + 1) - 1,
        math.log(variance),
        math.log(stride / span),
        math.log(gamma),
    )
    return torch.tensor([raw], dtype=torch.float64)


@settings(deadline=None)
@given(
    x=st.floats(1, 12),
    y=st.floats(1, 9),
    variance=st.floats(0.3, 6),
    stride=st.floats(0.2, 3),
    num_filters=st.integers(1, 6),
    is_square=st.booleans(),
)
def test_banks_are_those_of_the_paper(
    x: float, y: float, variance: float, stride: float, num_filters: int, is_square: bool
) -> None:
    height, width = (12, 12) if is_square else (9, 12)
    grid = make_grid(num_filters, height, width)
    filters_y, filters_x, gamma = grid(parameters(grid, x=x, y=y, variance=variance, stride=stride, gamma=1.7))
    torch.testing.assert_close(filters_x[0], paper_bank(x, variance, stride, num_filters, width), **SINGLE)
    torch.testing.assert_close(filters_y[0], paper_bank(y, variance, stride, num_filters, height), **SINGLE)
    assert gamma.item() == pytest.approx(1.7)


@pytest.mark.parametrize("variance", [1.0, 4.0])
def test_listing_mistake_1_fitted_variance_is_sigma_squared(variance: float) -> None:
    grid = make_grid(1, 61, 61)
    _, filters_x, _ = grid(parameters(grid, x=31, y=31, variance=variance, stride=1))
    row, position = filters_x[0, 0], torch.arange(1, 62, dtype=torch.float64)
    mean = (row * position).sum()
    assert row.sum().item() == pytest.approx(1.0)
    assert (row * (position - mean) ** 2).sum().item() == pytest.approx(variance, rel=1e-4)


def test_listing_mistake_2_vertical_filters_follow_the_vertical_centre() -> None:
    grid = make_grid(3, 20, 20)
    filters_y, filters_x, _ = grid(parameters(grid, x=5, y=14, variance=0.5, stride=2))
    assert filters_x[0].argmax(1).add(1).tolist() == [3, 5, 7]
    assert filters_y[0].argmax(1).add(1).tolist() == [12, 14, 16]


@pytest.mark.parametrize("num_filters", [2, 3, 4, 5])
def test_listing_mistake_3_the_grid_is_centred_on_g_for_odd_and_even_n(num_filters: int) -> None:
    grid = make_grid(num_filters, 41, 41)
    filters_y, filters_x, _ = grid(parameters(grid, x=21, y=18.5, variance=1, stride=2))
    position = torch.arange(1, 42, dtype=torch.float64)
    assert (filters_x[0] @ position).mean().item() == pytest.approx(21, abs=1e-6)
    assert (filters_y[0] @ position).mean().item() == pytest.approx(18.5, abs=1e-6)


def test_listing_mistake_4_a_larger_delta_widens_the_grid() -> None:
    grid = FilterGrid(num_filters=5, height=28, width=28)
    raw = torch.zeros(2, 5)
    raw[1, 3] = math.log(0.5)
    stride = grid.window(raw).stride
    assert stride.tolist() == pytest.approx([27 / 4, 27 / 8])  # eq. 24: (max(A, B) - 1) / (N - 1) times exp(log delta~)


def test_zero_parameters_centre_the_window_in_any_image() -> None:
    window = FilterGrid(num_filters=3, height=7, width=10)(torch.zeros(1, 5))
    assert window[0].shape == (1, 3, 7)
    decoded = FilterGrid(num_filters=3, height=7, width=10).window(torch.zeros(1, 5))
    assert (decoded.center_x.item(), decoded.center_y.item()) == (5.5, 4.0)


def test_a_single_filter_has_no_stride_to_divide_by() -> None:
    grid = make_grid(1, 9, 9)
    raw = torch.zeros(1, 5, dtype=torch.float64)
    raw[0, 3] = 3.0
    wide, narrow = grid(raw)[1], grid(torch.zeros(1, 5, dtype=torch.float64))[1]
    assert wide.isfinite().all()
    torch.testing.assert_close(wide, narrow)
    assert make_grid(1, 1, 1)(raw)[1].tolist() == [[[1.0]]]


@pytest.mark.parametrize(("coordinate", "log_variance"), [(50.0, 0.0), (-1e3, -15.0), (1e9, -80.0), (3.0, 90.0)])
def test_listing_mistake_8_rows_outside_the_image_are_never_nan_nor_their_gradient(
    coordinate: float, log_variance: float
) -> None:
    grid = FilterGrid(num_filters=4, height=11, width=11)
    raw = torch.tensor([[coordinate, -coordinate, log_variance, 0.3, 0.0]], requires_grad=True)
    filters_y, filters_x, _ = grid(raw)
    torch.testing.assert_close(filters_x.sum(2), torch.ones(1, 4))
    torch.testing.assert_close(filters_y.sum(2), torch.ones(1, 4))
    (filters_x.square().sum() + filters_y.square().sum()).backward()
    assert raw.grad is not None
    assert raw.grad.isfinite().all()


def fix_window(attention: ReadAttention | WriteAttention, raw: Tensor) -> None:
    """Make a layer emit one window, whatever the state."""
    layer = attention.parameters_of if isinstance(attention, ReadAttention) else attention.patch_and_parameters
    with torch.no_grad():
        layer.weight[-5:] = 0
        layer.bias[-5:] = raw[0]


@pytest.mark.parametrize("channels", [1, 3])
def test_reading_with_as_many_narrow_filters_as_pixels_returns_the_image(channels: int) -> None:
    read = ReadAttention(num_units=2, num_filters=6, height=6, width=6, initial_bias=NO_BIAS).double()
    fix_window(read, parameters(read.grid, x=3.5, y=3.5, variance=1e-3, stride=1))
    images = torch.rand(2, 6, channels, 6, dtype=torch.float64)
    first, second = read((images, 2 * images), torch.randn(2, 2, dtype=torch.float64))
    torch.testing.assert_close(first, images.flatten(1))
    torch.testing.assert_close(second, 2 * images.flatten(1))


def test_reading_is_the_products_of_the_paper_scaled_by_gamma() -> None:
    read = ReadAttention(num_units=2, num_filters=3, height=5, width=8, initial_bias=NO_BIAS).double()
    raw = parameters(read.grid, x=4.2, y=2.4, variance=0.8, stride=1.3, gamma=2.5)
    fix_window(read, raw)
    images = torch.rand(1, 5, 2, 8, dtype=torch.float64)
    (patch,) = read((images,), torch.zeros(1, 2, dtype=torch.float64))
    filters_y, filters_x, _ = read.grid(raw)
    for channel in range(2):
        expected = 2.5 * filters_y[0] @ images[0, :, channel] @ filters_x[0].T
        torch.testing.assert_close(patch.view(3, 2, 3)[:, channel], expected)


def test_writing_is_the_products_of_the_paper_divided_by_gamma() -> None:
    write = WriteAttention(num_units=2, num_filters=3, channels=2, height=5, width=8, initial_bias=NO_BIAS).double()
    raw = parameters(write.grid, x=4.2, y=2.4, variance=0.8, stride=1.3, gamma=2.5)
    fix_window(write, raw)
    hidden = torch.randn(1, 2, dtype=torch.float64)
    written = write(hidden)  # (1, 5, 2, 8)
    patch = write.patch_and_parameters(hidden)[0, :-5].view(3, 2, 3)
    filters_y, filters_x, _ = write.grid(raw)
    for channel in range(2):
        expected = filters_y[0].T @ patch[:, channel] @ filters_x[0] / 2.5
        torch.testing.assert_close(written[0, :, channel], expected)


def test_windows_start_where_their_bias_says() -> None:
    bias = AttentionBias(log_variance=1.0, log_stride=-0.5, log_gamma=0.25)
    read = ReadAttention(num_units=2, num_filters=3, height=9, width=9, initial_bias=bias)
    window = read.window(torch.zeros(1, 2))
    assert window.center_x.item() == window.center_y.item() == 5.0
    assert window.variance.item() == pytest.approx(math.exp(1.0))
    assert window.stride.item() == pytest.approx(4 * math.exp(-0.5))
    assert window.gamma.item() == pytest.approx(math.exp(0.25))


def test_attention_is_computed_in_single_precision_under_autocast() -> None:
    write = WriteAttention(num_units=8, num_filters=3, channels=1, height=9, width=9, initial_bias=NO_BIAS)
    hidden = torch.randn(4, 8)
    expected = write(hidden)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert torch.equal(write(hidden), expected)
