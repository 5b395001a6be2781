"""The NumPy reference: the document's published numbers, right and wrong, and finite differences."""

import runpy

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.signal import correlate

from genlab.nn.convolution import step_by_step
from genlab.nn.convolution.step_by_step import (
    conv_backward,
    conv_forward,
    conv_single_step,
    create_mask_from_window,
    distribute_value,
    num_positions,
    pool_backward,
    pool_forward,
    zero_pad,
)


def test_zero_pad_keeps_the_image_and_adds_zeros():
    np.random.seed(1)
    x = np.random.randn(4, 3, 3, 2)
    x_pad = zero_pad(x, 2)
    np.testing.assert_allclose(
        x[1, 1], [[0.90085595, -0.68372786], [-0.12289023, -0.93576943], [-0.26788808, 0.53035547]], atol=1e-8
    )
    assert x_pad.shape == (4, 7, 7, 2)
    assert not x_pad[1, 1].any()
    assert np.array_equal(x_pad[:, 2:-2, 2:-2], x)
    assert np.abs(x_pad).sum() == pytest.approx(np.abs(x).sum())


# --- The document's numbers. It adds the bias to each of the f * f * C_prev products before it sums them.


def test_single_step_and_what_the_document_prints_for_it():
    np.random.seed(1)
    a_slice_prev = np.random.randn(4, 4, 3)
    W = np.random.randn(4, 4, 3)
    b = np.random.randn(1, 1, 1)
    output = conv_single_step(a_slice_prev, W, b)
    assert output == pytest.approx(-6.999089450680221, rel=1e-12)
    assert output + (4 * 4 * 3 - 1) * b.item() == pytest.approx(-23.16021220252078, rel=1e-12)


def published_convolution():
    np.random.seed(1)
    A_prev = np.random.randn(10, 4, 4, 3)
    W = np.random.randn(2, 2, 3, 8)
    b = np.random.randn(1, 1, 1, 8)
    Z = conv_forward(A_prev, W, b, stride=1, pad=2)
    return A_prev, W, b, Z, Z + (2 * 2 * 3 - 1) * b


def test_forward_and_what_the_document_prints_for_it():
    A_prev, _, _, Z, Z_document = published_convolution()
    np.testing.assert_allclose(A_prev[1, 2, 3], [-0.20075807, 0.18656139, 0.41005165], atol=1e-8)
    assert np.mean(Z) == pytest.approx(0.0028129462864862967, rel=1e-12)
    assert np.mean(Z_document) == pytest.approx(0.15585932488906465, rel=1e-12)


def test_backward_and_what_the_document_prints_for_it():
    """Its backward pass is right, but it is shown on the output Z of its forward pass in place of a gradient."""
    A_prev, W, _, Z, Z_document = published_convolution()
    means = [np.mean(gradient) for gradient in conv_backward(Z, A_prev, W, stride=1, pad=2)]
    assert means == pytest.approx([4.1145817049149835, 9.203677199014168, 1.3783436803789542], rel=1e-12)
    means = [np.mean(gradient) for gradient in conv_backward(Z_document, A_prev, W, stride=1, pad=2)]
    assert means == pytest.approx([9.60899067587, 10.5817412755, 76.3710691956], rel=1e-11)


def test_pooling_forward_as_in_the_document():
    np.random.seed(1)
    A_prev = np.random.randn(2, 4, 4, 3)
    highest = pool_forward(A_prev, f=4, stride=1, mode="max")
    mean = pool_forward(A_prev, f=4, stride=1, mode="average")
    expected = [[1.74481176, 1.6924546, 2.10025514], [1.19891788, 1.51981682, 2.18557541]]
    np.testing.assert_allclose(highest[:, 0, 0], expected, atol=1e-8)
    expected = [[-0.09498456, 0.11180064, -0.14263511], [-0.09525108, 0.28325018, 0.33035185]]
    np.testing.assert_allclose(mean[:, 0, 0], expected, atol=1e-8)


def test_mask_and_shares_as_in_the_document():
    np.random.seed(1)
    x = np.random.randn(2, 3)
    assert create_mask_from_window(x).tolist() == [[True, False, False], [False, False, False]]
    assert distribute_value(2.0, (2, 2)).tolist() == [[0.5, 0.5], [0.5, 0.5]]


def test_pooling_backward_as_in_the_document():
    np.random.seed(1)
    A_prev = np.random.randn(5, 5, 3, 2)
    dA = np.random.randn(5, 4, 2, 2)
    assert np.mean(dA) == pytest.approx(0.145713902729, rel=1e-11)
    dA_prev = pool_backward(dA, A_prev, f=2, stride=1, mode="max")
    np.testing.assert_allclose(dA_prev[1, 1], [[0, 0], [5.05844394, -1.68282702], [0, 0]], atol=1e-8)


# --- The document's mistakes that its own examples do not show.


def test_the_gradient_of_a_window_is_not_at_its_corner():
    """The document reads dA at the window's corner (h stride, w stride): beyond dA's end for every stride but 1."""
    dA = np.arange(1.0, 5.0).reshape(1, 2, 2, 1)
    corners = [2 * h for h in range(2)]
    with pytest.raises(IndexError):
        dA[:, corners]
    A_prev = np.arange(16.0).reshape(1, 4, 4, 1)
    right = [[0, 0, 0, 0], [0, 1, 0, 2], [0, 0, 0, 0], [0, 3, 0, 4]]
    assert pool_backward(dA, A_prev, f=2, stride=2, mode="max")[0, :, :, 0].tolist() == right
    shared = pool_backward(4 * dA, A_prev, f=2, stride=2, mode="average")[0, :, :, 0]
    assert shared.tolist() == [[1, 1, 2, 2], [1, 1, 2, 2], [3, 3, 4, 4], [3, 3, 4, 4]]


def test_unpadding_by_nothing_keeps_everything():
    """`pad:-pad` is empty for a pad of 0."""
    rng = np.random.default_rng(0)
    A_prev, W = rng.normal(size=(2, 4, 3, 2)), rng.normal(size=(2, 2, 2, 3))
    assert A_prev[:, 0:-0].size == 0
    dZ = np.ones((2, 3, 2, 3))
    dA_prev, _, _ = conv_backward(dZ, A_prev, W, stride=1, pad=0)
    assert dA_prev.shape == A_prev.shape
    # A pixel that all 2x2 windows around it see gets each weight once per filter.
    np.testing.assert_allclose(dA_prev[0, 1, 1], W.sum((0, 1, 3)))


@pytest.mark.parametrize("num_ties", [1, 2, 3, 4])
def test_ties_do_not_multiply_the_gradient(num_ties):
    window = np.zeros((1, 2, 2, 1))
    window.reshape(-1)[-num_ties:] = 7
    assert (window == window.max()).sum() == num_ties  # the document's mask
    dA_prev = pool_backward(np.full((1, 1, 1, 1), 3.0), window, f=2, stride=2, mode="max")
    assert dA_prev.reshape(-1).tolist() == [3.0 if i == 4 - num_ties else 0.0 for i in range(4)]


def test_a_window_larger_than_the_image_is_refused():
    """int() rounds towards zero: 1 + int((1 - 2) / 2) is 1, and NumPy would broadcast the single pixel over W."""
    assert 1 + int((1 - 2) / 2) == 1
    with pytest.raises(ValueError, match=r"f must be at most 1 \(the padded image\), got 2"):
        conv_forward(np.ones((1, 1, 1, 1)), np.ones((2, 2, 1, 1)), np.zeros((1, 1, 1, 1)), stride=2, pad=0)


# --- Independent oracles, on random shapes.


@st.composite
def convolutions(draw):
    """Images, filters, biases, stride and pad; pad 0 and windows that leave pixels over included."""
    f = draw(st.integers(1, 3))
    pad = draw(st.integers(0, 2))
    stride = draw(st.integers(1, 3))
    smallest = max(1, f - 2 * pad)
    H, W = draw(st.integers(smallest, 5)), draw(st.integers(smallest, 5))
    m, C_prev, C = (draw(st.integers(1, 2)) for _ in range(3))
    rng = np.random.default_rng(draw(st.integers(0, 999)))
    shapes = (m, H, W, C_prev), (f, f, C_prev, C), (1, 1, 1, C)
    return *(rng.normal(size=shape) for shape in shapes), stride, pad, rng


@st.composite
def poolings(draw):
    """Images whose pixels are at least 0.1 apart, so that a finite difference never changes the maximum."""
    f = draw(st.integers(1, 3))
    stride = draw(st.integers(1, 3))
    m, C = draw(st.integers(1, 2)), draw(st.integers(1, 2))
    shape = (m, draw(st.integers(f, 6)), draw(st.integers(f, 6)), C)
    rng = np.random.default_rng(draw(st.integers(0, 999)))
    return 0.1 * rng.permutation(np.prod(shape)).reshape(shape), f, stride, rng


def difference_quotient(function, x, direction, step):
    return (function(x + step * direction) - function(x - step * direction)) / (2 * step)


@settings(max_examples=25)
@given(case=convolutions())
def test_forward_against_scipy(case):
    A_prev, W, b, stride, pad, _ = case
    Z = conv_forward(A_prev, W, b, stride=stride, pad=pad)
    padded = np.pad(A_prev, ((0, 0), (pad, pad), (pad, pad), (0, 0)))
    for i, c in np.ndindex(len(A_prev), W.shape[3]):
        dense = correlate(padded[i], W[..., c], mode="valid", method="direct")[:, :, 0]
        np.testing.assert_allclose(Z[i, :, :, c], dense[::stride, ::stride] + b[0, 0, 0, c], atol=1e-12)


@settings(max_examples=40)
@given(case=convolutions())
def test_convolution_against_finite_differences(case):
    """The output is linear in each argument, so the quotient is exact up to rounding at any step."""
    A_prev, W, b, stride, pad, rng = case
    dZ = rng.normal(size=conv_forward(A_prev, W, b, stride=stride, pad=pad).shape)

    def along(A_prev, W, b):
        return np.sum(dZ * conv_forward(A_prev, W, b, stride=stride, pad=pad))

    arguments = [A_prev, W, b]
    for index, gradient in enumerate(conv_backward(dZ, A_prev, W, stride=stride, pad=pad)):
        assert gradient.shape == arguments[index].shape
        direction = rng.normal(size=gradient.shape)

        def function(x, index=index):
            return along(*arguments[:index], x, *arguments[index + 1 :])

        quotient = difference_quotient(function, arguments[index], direction, step=0.5)
        assert np.sum(gradient * direction) == pytest.approx(quotient, rel=1e-9, abs=1e-9)


@pytest.mark.parametrize("mode", ["max", "average"])
@settings(max_examples=40)
@given(case=poolings())
def test_pooling_against_finite_differences(mode, case):
    A_prev, f, stride, rng = case
    dA = rng.normal(size=pool_forward(A_prev, f=f, stride=stride, mode=mode).shape)
    dA_prev = pool_backward(dA, A_prev, f=f, stride=stride, mode=mode)
    direction = rng.uniform(-1, 1, size=A_prev.shape)

    def along(x):
        return np.sum(dA * pool_forward(x, f=f, stride=stride, mode=mode))

    quotient = difference_quotient(along, A_prev, direction, step=0.01)
    assert np.sum(dA_prev * direction) == pytest.approx(quotient, rel=1e-9, abs=1e-9)


@given(size=st.integers(1, 20), f=st.integers(1, 8), stride=st.integers(1, 5), pad=st.integers(0, 4))
def test_number_of_positions_by_counting(size, f, stride, pad):
    corners = [corner for corner in range(0, size + 2 * pad, stride) if corner + f <= size + 2 * pad]
    if corners:
        assert num_positions(size, f, stride=stride, pad=pad) == len(corners)
    else:
        with pytest.raises(ValueError, match="f must be at most"):
            num_positions(size, f, stride=stride, pad=pad)


def test_what_numpy_would_broadcast_is_refused():
    # Without the checks of shapes that the tests add.
    conv_forward, conv_single_step, conv_backward, pool_forward, pool_backward = (
        runpy.run_path(step_by_step.__file__)[name]
        for name in ("conv_forward", "conv_single_step", "conv_backward", "pool_forward", "pool_backward")
    )
    image, filters, bias = np.ones((1, 4, 4, 1)), np.ones((3, 3, 1, 2)), np.zeros((1, 1, 1, 2))
    with pytest.raises(ValueError, match="the channels of W must be 1, got 3"):
        conv_forward(image, np.ones((3, 3, 3, 2)), bias, stride=1, pad=0)
    with pytest.raises(ValueError, match="the shape of W must be"):
        conv_single_step(np.ones((4, 4, 1)), np.ones((4, 4, 3)), np.zeros((1, 1, 1)))
    with pytest.raises(ValueError, match=r"the shape of dZ must be \(1, 4, 4, 2\), got \(1, 2, 2, 2\)"):
        conv_backward(np.ones((1, 2, 2, 2)), image, filters, stride=1, pad=1)
    with pytest.raises(ValueError, match=r"the shape of dA must be \(1, 2, 2, 1\)"):
        pool_backward(np.ones((1, 1, 1, 1)), image, f=2, stride=2, mode="max")
    for pool in (pool_forward, lambda x, **words: pool_backward(np.ones((1, 2, 2, 1)), x, **words)):
        with pytest.raises(ValueError, match="mode must be max or average, got Max"):
            pool(image, f=2, stride=2, mode="Max")
