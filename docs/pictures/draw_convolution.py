"""Draws convolution.svg and pooling.svg of docs/convolution.md with the functions that the page explains.

python docs/pictures/draw_convolution.py
"""

from pathlib import Path

import numpy as np

from genlab.nn.convolution.step_by_step import (
    conv_backward,
    conv_forward,
    pool_backward,
    pool_forward,
    window_at,
    zero_pad,
)

CELL = 32
GAP = 54
TOP = 44
GREY, BLUE, ORANGE, GREEN, PINK = "#e9e9e9", "#bcd9f5", "#f9d3a3", "#c4e6c0", "#f2c4d8"


def draw_pictures() -> dict[str, str]:
    """The SVG text of each file."""
    return {"convolution.svg": draw_convolution(), "pooling.svg": draw_pooling()}


def draw_convolution() -> str:
    """Above, one output pixel and the window it sees; below, what two output pixels hand back to the image."""
    image = np.array([[0, 0, 1, 2, 2], [0, 1, 3, 4, 2], [1, 3, 5, 4, 1], [2, 4, 4, 2, 0], [2, 2, 1, 0, 0]])
    kernel = np.array([[1, 0, -1], [2, 0, -2], [1, 0, -1]])
    A_prev, W = image[None, :, :, None].astype(float), kernel[:, :, None, None].astype(float)
    Z = conv_forward(A_prev, W, np.zeros((1, 1, 1, 1)), stride=2, pad=1)
    dZ = np.zeros_like(Z)
    dZ[0, 1, 1, 0], dZ[0, 1, 2, 0] = 1, 2
    dA_prev, _, _ = conv_backward(dZ, A_prev, W, stride=2, pad=1)
    # The same with the padding still around it, which the backward pass cuts off.
    dA_prev_pad, _, _ = conv_backward(dZ, zero_pad(A_prev, 1), W, stride=2, pad=0)

    padding = {cell: GREY for cell in np.ndindex(7, 7) if not all(1 <= side <= 5 for side in cell)}
    first, second = cells(window_at(1, 1, f=3, stride=2)), cells(window_at(1, 2, f=3, stride=2))
    both = {cell: GREEN for cell in first if cell in second}
    forward = [
        ("A_prev, pad 1", zero_pad(A_prev, 1), padding | dict.fromkeys(second, ORANGE), "×"),
        ("W, f = 3", W[None, ..., 0], dict.fromkeys(np.ndindex(3, 3), ORANGE), "→"),
        ("Z, stride 2", Z, {(1, 2): ORANGE}, ""),
    ]
    backward = [
        ("dZ", dZ, {(1, 1): BLUE, (1, 2): ORANGE}, "→"),
        (
            "dZ[h, w] · W in each window",
            dA_prev_pad,
            padding | dict.fromkeys(first, BLUE) | dict.fromkeys(second, ORANGE) | both,
            "→",
        ),
        ("dA_prev: padding cut off", dA_prev, {}, ""),
    ]
    return svg([forward, backward])


def draw_pooling() -> str:
    """Four windows with a tie in the last: where the gradient of each goes, for the maximum and for the mean."""
    image = np.array([[1, 7, 2, 0], [3, 4, 6, 5], [9, 2, 1, 8], [0, 5, 8, 3]])
    A_prev = image[None, :, :, None].astype(float)
    dA = np.array([[4.0, 8.0], [12.0, 16.0]])[None, :, :, None]
    by_window = {
        cell: color
        for (h, w), color in zip(np.ndindex(2, 2), (BLUE, ORANGE, GREEN, PINK), strict=True)
        for cell in cells(window_at(h, w, f=2, stride=2))
    }
    small = dict(zip(np.ndindex(2, 2), (BLUE, ORANGE, GREEN, PINK), strict=True))
    highest, mean = (pool_forward(A_prev, f=2, stride=2, mode=mode) for mode in ("max", "average"))
    to_highest, shared = (pool_backward(dA, A_prev, f=2, stride=2, mode=mode) for mode in ("max", "average"))
    image_grid = ("A_prev, f = stride = 2", A_prev, by_window, "→")
    nonzero = {cell: color for cell, color in by_window.items() if to_highest[0, *cell, 0]}
    return svg(
        [
            [image_grid, ("maximum", highest, small, ""), ("dA", dA, small, "→"), ("dA_prev", to_highest, nonzero, "")],
            [image_grid, ("mean", mean, small, ""), ("dA", dA, small, "→"), ("dA_prev", shared, by_window, "")],
        ]
    )


def cells(window: tuple[slice, slice]) -> list[tuple[int, int]]:
    rows, columns = window
    return [(row, column) for row in range(rows.start, rows.stop) for column in range(columns.start, columns.stop)]


Grid = tuple[str, np.ndarray, dict[tuple[int, int], str], str]
"""Title, numbers (1, H, W, 1), colours of cells and the sign that follows."""


def svg(lines: list[list[Grid]]) -> str:
    """Lines of grids, one below the other."""
    parts: list[str] = []
    top, widest = 0, 0
    for line in lines:
        tallest = max(values.shape[1] for _, values, _, _ in line)
        left = 16
        for title, values, colors, sign in line:
            parts += draw_grid(title, values[0, :, :, 0], colors, left, top + TOP)
            left += CELL * values.shape[2] + GAP
            parts.append(text(left - GAP / 2, top + TOP + CELL * values.shape[1] / 2, sign, size=22))
        widest = max(widest, left - GAP + 70)
        top += TOP + CELL * tallest + 10
    head = (
        f'<svg xmlns="http://www.w3.org/2000/svg" width="{widest}" height="{top}" viewBox="0 0 {widest} {top}" '
        'font-family="DejaVu Sans, Verdana, sans-serif">'
    )
    return "\n".join([head, f'<rect width="{widest}" height="{top}" fill="white"/>', *parts, "</svg>\n"])


def draw_grid(title: str, values: np.ndarray, colors: dict[tuple[int, int], str], left: float, top: float) -> list[str]:
    parts = [text(left, top - 14, title, size=13, anchor="start")]
    for row, column in np.ndindex(values.shape):
        x, y = left + CELL * column, top + CELL * row
        color = colors.get((row, column), "white")
        parts.append(f'<rect x="{x}" y="{y}" width="{CELL}" height="{CELL}" fill="{color}" stroke="#777"/>')
        number = f"{values[row, column]:g}".replace("-", "−")
        parts.append(text(x + CELL / 2, y + CELL / 2, number, size=12))
    return parts


def text(x: float, y: float, content: str, *, size: int, anchor: str = "middle") -> str:
    return f'<text x="{x:g}" y="{y + 0.36 * size:g}" font-size="{size}" text-anchor="{anchor}">{content}</text>'


if __name__ == "__main__":
    for name, content in draw_pictures().items():
        Path(__file__).with_name(name).write_text(content, encoding="utf-8")
