"""Convolution and pooling in NumPy loops, one function per step of the derivation: slow, obvious, the tests' oracle.

The walk through it is docs/convolution.md. Windows are square, images lie as (m, H, W, C); nothing is differentiated
automatically. :mod:`genlab.nn.convolution.functions` computes the same without a loop over pixels.

Dimensions: m images, H height, W width, C channels, f window size; `_prev` is the layer's input.
"""

from typing import Literal, get_args

import numpy as np
from jaxtyping import Bool, Float

Mode = Literal["max", "average"]


def _require_equal(what: str, given: object, expected: object) -> None:
    """Refuse shapes that NumPy would broadcast without a word."""
    if given != expected:
        raise ValueError(f"{what} must be {expected}, got {given}")


def _require_mode(mode: str) -> None:
    if mode not in get_args(Mode):
        raise ValueError(f"mode must be max or average, got {mode}")


def zero_pad(X: Float[np.ndarray, "m H W C"], pad: int) -> Float[np.ndarray, "m H_pad W_pad C"]:
    """Return the images with `pad` rows and columns of zeros on each side."""
    return np.pad(X, ((0, 0), (pad, pad), (pad, pad), (0, 0)))


def num_positions(size: int, f: int, *, stride: int, pad: int = 0) -> int:
    """Return the number of windows of f pixels along a padded side: floor((size + 2 pad - f) / stride) + 1.

    Raises:
        ValueError: It does not fit once.
    """
    if f > size + 2 * pad:
        raise ValueError(f"f must be at most {size + 2 * pad} (the padded image), got {f}")
    return (size + 2 * pad - f) // stride + 1


def window_at(h: int, w: int, *, f: int, stride: int) -> tuple[slice, slice]:
    """Return the rows and columns of the (padded) input on which output pixel (h, w) depends."""
    top, left = h * stride, w * stride
    return slice(top, top + f), slice(left, left + f)


def conv_single_step(
    a_slice_prev: Float[np.ndarray, "f f C_prev"], W: Float[np.ndarray, "f f C_prev"], b: Float[np.ndarray, "1 1 1"]
) -> float:
    """Return one output pixel of one filter: the products are summed, and the bias is added once.

    Raises:
        ValueError: Window and filter differ in shape.
    """
    _require_equal("the shape of W", W.shape, a_slice_prev.shape)
    return float(np.sum(a_slice_prev * W) + b.item())


def conv_forward(
    A_prev: Float[np.ndarray, "m H_prev W_prev C_prev"],
    W: Float[np.ndarray, "f f C_prev C"],
    b: Float[np.ndarray, "1 1 1 C"],
    *,
    stride: int,
    pad: int,
) -> Float[np.ndarray, "m H W C"]:
    """Apply every filter at every position of its window.

    Raises:
        ValueError: The window is larger than the padded image, or the channels of image and filter differ.
    """
    _require_equal("the channels of W", W.shape[2], A_prev.shape[3])
    m, H_prev, W_prev, _ = A_prev.shape
    f, C = W.shape[0], W.shape[3]
    n_H = num_positions(H_prev, f, stride=stride, pad=pad)
    n_W = num_positions(W_prev, f, stride=stride, pad=pad)
    A_prev_pad = zero_pad(A_prev, pad)
    Z = np.zeros((m, n_H, n_W, C))
    for i, h, w, c in np.ndindex(Z.shape):
        rows, columns = window_at(h, w, f=f, stride=stride)
        Z[i, h, w, c] = conv_single_step(A_prev_pad[i, rows, columns], W[..., c], b[..., c])
    return Z


def conv_backward(
    dZ: Float[np.ndarray, "m H W C"],
    A_prev: Float[np.ndarray, "m H_prev W_prev C_prev"],
    W: Float[np.ndarray, "f f C_prev C"],
    *,
    stride: int,
    pad: int,
) -> tuple[
    Float[np.ndarray, "m H_prev W_prev C_prev"], Float[np.ndarray, "f f C_prev C"], Float[np.ndarray, "1 1 1 C"]
]:
    """Return the gradients (dA_prev, dW, db) of a scalar whose gradient with respect to the output is dZ.

    Every output pixel is a product of window and filter, so it hands its gradient times the filter to the window, its
    gradient times the window to the filter, and its gradient to the bias; what meets is added.

    Raises:
        ValueError: dZ has not the shape of the output.
    """
    f = W.shape[0]
    H_prev, W_prev = A_prev.shape[1:3]
    n_H, n_W = (num_positions(size, f, stride=stride, pad=pad) for size in (H_prev, W_prev))
    _require_equal("the shape of dZ", dZ.shape, (len(A_prev), n_H, n_W, W.shape[3]))
    A_prev_pad = zero_pad(A_prev, pad)
    dA_prev_pad = np.zeros(A_prev_pad.shape)
    dW = np.zeros(W.shape)
    db = np.zeros((1, 1, 1, W.shape[3]))
    for i, h, w, c in np.ndindex(dZ.shape):
        rows, columns = window_at(h, w, f=f, stride=stride)
        dA_prev_pad[i, rows, columns] += W[..., c] * dZ[i, h, w, c]
        dW[..., c] += A_prev_pad[i, rows, columns] * dZ[i, h, w, c]
        db[..., c] += dZ[i, h, w, c]
    # Cut off by position from the start: `pad:-pad` would be empty for a pad of 0.
    return dA_prev_pad[:, pad : pad + H_prev, pad : pad + W_prev], dW, db


def create_mask_from_window(x: Float[np.ndarray, "f_h f_w"]) -> Bool[np.ndarray, "f_h f_w"]:
    """Return True at the maximum; of several equal ones, at the first in reading order, as in PyTorch.

    `x == x.max()` would be true at all of them and multiply the gradient by their number.
    """
    mask = np.zeros(x.shape, dtype=bool)
    mask[np.unravel_index(np.argmax(x), x.shape)] = True
    return mask


def distribute_value(dz: float, shape: tuple[int, int]) -> Float[np.ndarray, "f_h f_w"]:
    """Return the gradient of a mean: equal shares of dz."""
    return np.full(shape, dz / (shape[0] * shape[1]))


def pool_forward(
    A_prev: Float[np.ndarray, "m H_prev W_prev C"], *, f: int, stride: int, mode: Mode
) -> Float[np.ndarray, "m H W C"]:
    """Return the maximum or the mean of every window, channel by channel, without padding.

    Raises:
        ValueError: The window is larger than the image, or there is no such mode.
    """
    _require_mode(mode)
    m, H_prev, W_prev, C = A_prev.shape
    A = np.zeros((m, num_positions(H_prev, f, stride=stride), num_positions(W_prev, f, stride=stride), C))
    reduce = np.max if mode == "max" else np.mean
    for i, h, w, c in np.ndindex(A.shape):
        rows, columns = window_at(h, w, f=f, stride=stride)
        A[i, h, w, c] = reduce(A_prev[i, rows, columns, c])
    return A


def pool_backward(
    dA: Float[np.ndarray, "m H W C"],
    A_prev: Float[np.ndarray, "m H_prev W_prev C"],
    *,
    f: int,
    stride: int,
    mode: Mode,
) -> Float[np.ndarray, "m H_prev W_prev C"]:
    """Return the gradient dA_prev: each window gets the gradient of its own output pixel (h, w), for any stride.

    Raises:
        ValueError: dA has not the shape of the output, or there is no such mode.
    """
    _require_mode(mode)
    m, H_prev, W_prev, C = A_prev.shape
    n_H, n_W = (num_positions(size, f, stride=stride) for size in (H_prev, W_prev))
    _require_equal("the shape of dA", dA.shape, (m, n_H, n_W, C))
    dA_prev = np.zeros(A_prev.shape)
    for i, h, w, c in np.ndindex(dA.shape):
        rows, columns = window_at(h, w, f=f, stride=stride)
        if mode == "max":
            dA_prev[i, rows, columns, c] += create_mask_from_window(A_prev[i, rows, columns, c]) * dA[i, h, w, c]
        else:
            dA_prev[i, rows, columns, c] += distribute_value(float(dA[i, h, w, c]), (f, f))
    return dA_prev
