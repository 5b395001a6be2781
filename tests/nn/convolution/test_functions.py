"""The autograd functions: equal to the NumPy reference and to PyTorch's own, with gradients of every order."""

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.autograd import grad, gradcheck, gradgradcheck

from genlab.nn.convolution import step_by_step
from genlab.nn.convolution.functions import (
    InputGradient,
    WeightGradient,
    WindowGrid,
    avg_pool2d,
    conv2d,
    conv_transpose2d,
    locate_maxima,
    max_pool2d,
)
from tests.thinning import thinned


def normal(*shape, seed=0):
    generator = torch.Generator().manual_seed(seed + sum(shape))
    return torch.randn(shape, dtype=torch.float64, generator=generator).requires_grad_()


def apart(*shape, seed=0):
    """Distinct numbers at least 0.1 apart: maxima that no small step moves."""
    generator = torch.Generator().manual_seed(seed)
    number = int(np.prod(shape))
    return (0.1 * torch.randperm(number, generator=generator)).double().view(shape).requires_grad_()


@st.composite
def grids(draw):
    """A grid and an image it lies on, different along both axes."""

    def axis():
        kernel = draw(st.integers(1, 3))
        padding = draw(st.integers(0, kernel // 2))
        size = draw(st.integers(max(1, kernel - 2 * padding), 6))
        return kernel, draw(st.integers(1, 3)), padding, size

    vertical, horizontal = axis(), axis()
    kernel, stride, padding, size = zip(vertical, horizontal, strict=True)
    return WindowGrid(kernel, stride, padding), size


# --- Against the loops.


@settings(max_examples=25)
@given(f=st.integers(1, 3), stride=st.integers(1, 3), pad=st.integers(0, 2), side=st.integers(3, 6))
def test_convolution_and_its_gradients_equal_the_loops(f, stride, pad, side):
    x, w, b = normal(2, 3, side, side + 1), normal(4, 3, f, f), normal(4)
    z = conv2d(x, w, b, stride=(stride, stride), padding=(pad, pad))
    dz = normal(*z.shape, seed=1)
    A_prev, dZ = (t.detach().numpy().transpose(0, 2, 3, 1) for t in (x, dz))  # (m, H, W, C)
    W = w.detach().numpy().transpose(2, 3, 1, 0)  # (f, f, C_prev, C)
    B = b.detach().numpy().reshape(1, 1, 1, -1)
    Z = step_by_step.conv_forward(A_prev, W, B, stride=stride, pad=pad)
    np.testing.assert_allclose(z.detach().numpy().transpose(0, 2, 3, 1), Z, atol=1e-12)
    dx, dw, db = grad(z, (x, w, b), dz)
    dA_prev, dW, dB = step_by_step.conv_backward(dZ, A_prev, W, stride=stride, pad=pad)
    np.testing.assert_allclose(dx.detach().numpy().transpose(0, 2, 3, 1), dA_prev, atol=1e-12)
    np.testing.assert_allclose(dw.detach().numpy().transpose(2, 3, 1, 0), dW, atol=1e-12)
    np.testing.assert_allclose(db.detach().numpy(), dB.reshape(-1), atol=1e-12)


@pytest.mark.parametrize("mode", ["max", "average"])
@settings(max_examples=25)
@given(f=st.integers(1, 3), stride=st.integers(1, 3), side=st.integers(3, 6), has_ties=st.booleans())
def test_pooling_and_its_gradient_equal_the_loops(mode, f, stride, side, has_ties):
    x = normal(2, 3, side, side + 1)
    if has_ties:
        x = x.detach().round().requires_grad_()
    grid = WindowGrid((f, f), (stride, stride), (0, 0))
    z = (max_pool2d if mode == "max" else avg_pool2d)(x, grid)
    dz = normal(*z.shape, seed=1)
    A_prev, dA = (t.detach().numpy().transpose(0, 2, 3, 1) for t in (x, dz))
    A = step_by_step.pool_forward(A_prev, f=f, stride=stride, mode=mode)
    np.testing.assert_allclose(z.detach().numpy().transpose(0, 2, 3, 1), A, atol=1e-12)
    (dx,) = grad(z, x, dz)
    dA_prev = step_by_step.pool_backward(dA, A_prev, f=f, stride=stride, mode=mode)
    np.testing.assert_allclose(dx.numpy().transpose(0, 2, 3, 1), dA_prev, atol=1e-12)


# --- Against PyTorch's own functions, whose code shares nothing with ours but unfold and fold.


def two_orders(z, inputs):
    """The output, its gradients along a random direction, and the gradients of those along others."""
    dz = normal(*z.shape, seed=1)
    first = grad(z, inputs, dz, create_graph=True)
    # gradgradcheck passes over a gradient that is cut off from its graph.
    assert all(gradient.requires_grad for gradient in first)
    along = sum((gradient * normal(*gradient.shape, seed=2)).sum() for gradient in first)
    return z, *first, *grad(along, (*inputs, dz), allow_unused=True, materialize_grads=True)


def assert_same_orders(ours, theirs, inputs):
    for a, b in zip(two_orders(ours, inputs), two_orders(theirs, inputs), strict=True):
        torch.testing.assert_close(a, b)


@settings(max_examples=40)
@given(case=grids())
def test_convolution_equals_torch(case):
    grid, size = case
    x, w, b = normal(2, 3, *size), normal(4, 3, *grid.kernel_size), normal(4)
    z = conv2d(x, w, b, stride=grid.stride, padding=grid.padding)
    z_torch = F.conv2d(x, w, b, grid.stride, grid.padding)
    assert_same_orders(z, z_torch, (x, w, b))


@settings(max_examples=40)
@given(case=grids(), data=st.data())
def test_transposed_convolution_equals_torch(case, data):
    grid, (rows, columns) = case
    output_padding = tuple(data.draw(st.integers(0, stride - 1)) for stride in grid.stride)
    z, w, b = normal(2, 4, rows, columns), normal(4, 3, *grid.kernel_size), normal(3)
    arguments = {"stride": grid.stride, "padding": grid.padding, "output_padding": output_padding}
    try:
        x_torch = F.conv_transpose2d(z, w, b, **arguments)
    except RuntimeError:
        with pytest.raises(ValueError, match="at least one pixel"):
            conv_transpose2d(z, w, b, **arguments)
        return
    assert_same_orders(conv_transpose2d(z, w, b, **arguments), x_torch, (z, w, b))


@settings(max_examples=40)
@given(case=grids(), has_ties=st.booleans())
def test_poolings_equal_torch(case, has_ties):
    grid, size = case
    x = normal(2, 3, *size)
    if has_ties:
        x = x.detach().round().requires_grad_()
    assert_same_orders(max_pool2d(x, grid), F.max_pool2d(x, *grid), (x,))
    assert_same_orders(avg_pool2d(x, grid), F.avg_pool2d(x, *grid), (x,))


# --- First and second order against finite differences.

SETTINGS = [
    WindowGrid((3, 3), (1, 1), (1, 1)),
    WindowGrid((2, 2), (2, 2), (0, 0)),
    WindowGrid((3, 2), (2, 1), (0, 1)),
    WindowGrid((2, 3), (3, 2), (1, 0)),  # pixels that no window sees
]


@pytest.mark.parametrize("check", [gradcheck, gradgradcheck])
@pytest.mark.parametrize("grid", thinned(SETTINGS, 4))
def test_gradients_of_the_convolutions(check, grid):
    def convolve(x, w, b):
        return conv2d(x, w, b, stride=grid.stride, padding=grid.padding)

    def transpose(z, w, b):
        output_padding = (grid.stride[0] - 1, 0)
        return conv_transpose2d(z, w, b, stride=grid.stride, padding=grid.padding, output_padding=output_padding)

    assert check(convolve, (normal(2, 2, 3, 4), normal(2, 2, *grid.kernel_size), normal(2)))
    assert check(transpose, (normal(2, 2, 2, 2), normal(2, 2, *grid.kernel_size), normal(2)))


@pytest.mark.parametrize("check", [gradcheck, gradgradcheck])
@pytest.mark.parametrize("grid", thinned(SETTINGS, 2))
def test_gradients_of_the_poolings(check, grid):
    assert check(lambda x: max_pool2d(x, grid), (apart(2, 2, 3, 4),))
    assert check(lambda x: avg_pool2d(x, grid), (normal(2, 2, 3, 4),))


def test_only_what_is_needed_is_computed(monkeypatch):
    """A discriminator's first layer needs no gradient of the image, a frozen network none of its weights."""

    def fail(*arguments):
        raise AssertionError("not needed")

    x, w = normal(1, 1, 4, 4), normal(1, 1, 2, 2)
    with monkeypatch.context() as patch:
        patch.setattr(InputGradient, "forward", fail)
        conv2d(x.detach(), w).sum().backward()
    with monkeypatch.context() as patch:
        patch.setattr(WeightGradient, "forward", fail)
        conv2d(x, w.detach()).sum().backward()
    assert w.grad.ne(0).all()
    assert x.grad.ne(0).all()


# --- The pieces.


@settings(max_examples=25)
@given(case=grids())
def test_cutting_and_pasting_are_transposes(case):
    grid, size = case
    x = normal(2, 3, *size)
    windows = grid.cut(x)
    rows, columns = grid.shape(*size)
    assert windows.shape == (2, 3, grid.num_pixels, rows * columns)
    y = normal(*windows.shape, seed=1)
    torch.testing.assert_close((windows * y).sum(), (x * grid.paste(y, size)).sum())


def test_the_first_maximum_alone_gets_the_gradient():
    grid = WindowGrid((2, 2), (2, 2), (0, 0))
    x = torch.ones(1, 1, 2, 4, requires_grad=True)
    max_pool2d(x, grid).sum().backward()
    assert x.grad[0, 0].tolist() == [[1, 0, 1, 0], [0, 0, 0, 0]]
    theirs = torch.ones(1, 1, 2, 4, requires_grad=True)
    F.max_pool2d(theirs, 2).sum().backward()
    assert torch.equal(x.grad, theirs.grad)


def test_maxima_of_padded_windows_lie_in_the_image():
    """Negative pixels must beat the padding, and a window of -inf must not point outside the image."""
    grid = WindowGrid((3, 3), (2, 2), (1, 1))
    x = torch.full((1, 2, 4, 4), -torch.inf)
    x[0, 1] = -7
    _, theirs = F.max_pool2d(x, *grid, return_indices=True)
    assert torch.equal(locate_maxima(x, grid), theirs)


def test_a_batch_of_no_images():
    x = torch.zeros(0, 3, 5, 5, requires_grad=True)
    w = torch.ones(2, 3, 3, 3, requires_grad=True)
    conv2d(x, w).sum().backward()
    assert not w.grad.any()


def test_refusals():
    with pytest.raises(ValueError, match=r"kernel_size must be at most \(4, 4\) \(the padded image\), got \(5, 1\)"):
        conv2d(normal(1, 1, 2, 2), normal(1, 1, 5, 1), padding=(1, 1))
    with pytest.raises(ValueError, match="output_padding must be smaller than stride"):
        conv_transpose2d(normal(1, 1, 2, 2), normal(1, 1, 2, 2), output_padding=(1, 0))
