"""Line charts as SVG that needs no script: thinned, labelled, distinguished by colour, dash and number."""

import math
from collections.abc import Iterator, Sequence
from html import escape
from typing import NamedTuple, TypeVar

Point = TypeVar("Point")
Points = Sequence[tuple[int, float | None]]
Number = int | float

MAX_POINTS = 300
NUM_COLOURS = 8
# Size of the drawing, in units that are pixels on a phone in portrait orientation.
_WIDTH, _HEIGHT = 420, 260
_LEFT, _RIGHT, _TOP, _BOTTOM = 58, 34, 10, 34
_LABEL_WIDTH, _LABEL_HEIGHT = 24, 11
# A quantity that falls by more than this is drawn on a logarithmic axis, or its end would be a flat line.
_LOGARITHMIC_RATIO = 8.0
_NUM_TICKS = 5


class Line(NamedTuple):
    """One run in a chart."""

    number: int
    """Of the run, from 1: its label, colour and dash."""
    points: Points


class _Axis(NamedTuple):
    low: Number
    high: Number
    is_logarithmic: bool

    def fraction(self, value: Number) -> float:
        """Return the position of a value on the axis: 0 at the low end, 1 at the high end."""
        if self.is_logarithmic:
            return math.log(value / self.low) / math.log(self.high / self.low)
        return (value - self.low) / (self.high - self.low)


def chart(tag: str, lines: Sequence[Line]) -> str:
    """Return the chart of one quantity over training steps for several runs; "" if no line has a finite point."""
    lines = [Line(line.number, thinned(line.points)) for line in lines]
    values = [value for line in lines for _, value in line.points if value is not None]
    if not values:
        return ""
    steps = [step for line in lines for step, _ in line.points]
    across, up = _linear(min(0, *steps), max(steps)), _fitted(values)
    parts = [
        f'<svg viewBox="0 0 {_WIDTH} {_HEIGHT}" role="img" aria-label="{escape(_described(tag, lines), quote=True)}">'
    ]
    parts += [_horizontal(tick, up) for tick in _ticks(up)]
    parts += [_vertical(tick, across) for tick in _ticks(across) if tick == int(tick)]
    middle = _LEFT + (_WIDTH - _LEFT - _RIGHT) / 2
    parts.append(f'<text class="axis" x="{middle:.0f}" y="{_HEIGHT - 2}" text-anchor="middle">step</text>')
    parts += [_polylines(line, across, up) for line in lines]
    parts += _end_labels(lines, across, up)
    return "".join([*parts, "</svg>"]) + ('<small class="note">logarithmic axis</small>' if up.is_logarithmic else "")


def swatch(number: int) -> str:
    """Return a short piece of a run's line, for the legend."""
    return (
        f'<svg class="swatch" viewBox="0 0 28 10" aria-hidden="true"><path class="line {_style(number)}" d="M0 5H28"/>'
        "</svg>"
    )


def thinned(points: Sequence[Point]) -> Sequence[Point]:
    """Return at most MAX_POINTS points, evenly spaced by position, including the first and the last."""
    if len(points) <= MAX_POINTS:
        return points
    return [points[round(index * (len(points) - 1) / (MAX_POINTS - 1))] for index in range(MAX_POINTS)]


def _style(number: int) -> str:
    return f"c{(number - 1) % NUM_COLOURS} d{(number - 1) // NUM_COLOURS % 3}"


def _described(tag: str, lines: Sequence[Line]) -> str:
    ends = [f"#{number} ends at {value:.4g} at step {step:,}" for number, step, value in _ends(lines)]
    return f"{tag} over training steps: {'; '.join(ends)}"


def _ends(lines: Sequence[Line]) -> Iterator[tuple[int, int, float]]:
    """Yield the number of each line with its last finite point, if it has one."""
    for line in lines:
        finite = [(step, value) for step, value in line.points if value is not None]
        if finite:
            yield line.number, *finite[-1]


def _fitted(values: Sequence[float]) -> _Axis:
    low, high = min(values), max(values)
    if low > 0 and high / low > _LOGARITHMIC_RATIO:
        return _Axis(low / 1.05, high * 1.05, True)
    margin = 0.05 * (high - low) or 0.05 * abs(high) or 1.0
    return _linear(low - margin, high + margin)


def _linear(low: Number, high: Number) -> _Axis:
    return _Axis(low, high if high > low else low + 1, False)


def _ticks(axis: _Axis) -> list[Number]:
    """Return the round values within an axis: 1, 2 or 5 times a power of ten."""
    if axis.is_logarithmic:
        decades = range(math.floor(math.log10(axis.low)), math.ceil(math.log10(axis.high)) + 1)
        for factors in ((1,), (1, 3), (1, 2, 5)):
            found = [
                f * 10.0**decade for decade in decades for f in factors if axis.low <= f * 10.0**decade <= axis.high
            ]
            if len(found) >= 3:
                return found[:: math.ceil(len(found) / (_NUM_TICKS + 1))]
        return found
    rough = (axis.high - axis.low) / _NUM_TICKS
    power = 10.0 ** math.floor(math.log10(rough))
    spacing = next(factor * power for factor in (1, 2, 5, 10) if factor * power >= rough)
    first = math.ceil(axis.low / spacing)
    return [index * spacing for index in range(first, math.floor(axis.high / spacing) + 1)]


def _x(step: Number, across: _Axis) -> float:
    return _LEFT + across.fraction(step) * (_WIDTH - _LEFT - _RIGHT)


def _y(value: Number, up: _Axis) -> float:
    return _HEIGHT - _BOTTOM - up.fraction(value) * (_HEIGHT - _TOP - _BOTTOM)


def _horizontal(tick: Number, up: _Axis) -> str:
    height = _y(tick, up)
    return (
        f'<path class="rule" d="M{_LEFT} {height:.1f}H{_WIDTH - _RIGHT}"/>'
        f'<text class="axis" x="{_LEFT - 5}" y="{height + 4:.1f}" text-anchor="end">{_short(tick)}</text>'
    )


def _vertical(tick: Number, across: _Axis) -> str:
    return (
        f'<text class="axis" x="{_x(tick, across):.1f}" y="{_HEIGHT - _BOTTOM + 14}" text-anchor="middle">'
        f"{_short(tick)}</text>"
    )


def _short(number: Number) -> str:
    for size, letter in ((1e6, "M"), (1e3, "k")):
        if abs(number) >= 10 * size or (abs(number) >= size and number % size == 0):
            return f"{number / size:.4g}{letter}"
    return f"{number:.4g}"


def _polylines(line: Line, across: _Axis, up: _Axis) -> str:
    """Return the finite parts of a line, with a gap at each value that is not finite."""
    stretches: list[list[str]] = [[]]
    for step, value in line.points:
        if value is None:
            stretches.append([])
        else:
            stretches[-1].append(f"{_x(step, across):.1f} {_y(value, up):.1f}")
    # h0 makes a dot of a point without neighbours.
    path = "".join(f"M{'L'.join(points)}{'' if len(points) > 1 else 'h0'}" for points in stretches if points)
    return f'<path class="line {_style(line.number)}" d="{path}"/>' if path else ""


def _end_labels(lines: Sequence[Line], across: _Axis, up: _Axis) -> list[str]:
    """Return the number of each run at the end of its line, moved apart where ends are close."""
    ends = [(_y(value, up), _x(step, across), number) for number, step, value in _ends(lines)]
    labels: list[str] = []
    placed: list[tuple[Number, Number]] = []
    for height, right, number in sorted(ends):
        near = [lower for lower, other in placed if abs(right - other) < _LABEL_WIDTH]
        lowest = max([height + 4, *(lower + _LABEL_HEIGHT for lower in near)])
        placed.append((lowest, right))
        labels.append(
            f'<text class="end c{(number - 1) % NUM_COLOURS}" x="{right + 4:.1f}" y="{lowest:.1f}">#{number}</text>'
        )
    return labels
