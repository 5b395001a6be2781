"""Grids of Gaussian filters against the formulas of DRAW (arXiv:1502.04623, section 3.2).

Dimensions: N filters of a bank, L pixels along the axis.
"""

import copy
import math
from collections.abc import Iterable, Sequence
from typing import cast

import torch
from jaxtyping import Float
from torch import Tensor

from genlab.checks.subject import DoesNotApply, Finding, Subject, has, held_if
from genlab.models.capabilities import HasFilterBanks

# The constants of a grid are kept in single precision, also where it computes in double.
_TOLERANCE = 1e-4
_WINDOWS = (
    (0.0, 0.0, 0.0, 0.0, 0.0),
    (0.2, -0.3, -0.5, -0.4, 0.3),
    (-0.5, 0.4, 0.7, -1.0, -0.2),
)
"""(gx~, gy~, log sigma^2, log delta~, log gamma), as the network emits them."""


def paper_bank(center: float, variance: float, stride: float, num_filters: int, length: int) -> Float[Tensor, "N L"]:
    """Return a filter bank by eqs. 19 or 20, 25 and 26, in loops; lengths in pixels."""
    bank = torch.zeros(num_filters, length, dtype=torch.float64)
    for i in range(1, num_filters + 1):
        mean = center + (i - num_filters / 2 - 0.5) * stride
        for a in range(1, length + 1):
            bank[i - 1, a - 1] = math.exp(-((a - mean) ** 2) / (2 * variance))
    return bank / bank.sum(1, keepdim=True)


def rows_sum_to_one(subject: Subject) -> Finding:
    """Check that each filter sums to one over the pixels, even far outside of the image."""
    banks = _banks(subject, [*_WINDOWS, (50.0, -50.0, -5.0, 0.3, 0.0)])
    error = _largest((bank.sum(-1) - 1).abs().max() for bank, *_ in banks)
    return held_if(error < _TOLERANCE, f"largest |sum of a row - 1| {error:.1e} in {len(banks)} filter banks")


def filters_are_centred(subject: Subject) -> Finding:
    """Check that the filters are centred on the window, and equal those of the paper."""
    banks = _banks(subject, _WINDOWS)
    offset = _largest(_distance_from_centre(bank) for bank, window, _ in banks if not any(window))
    error = _largest((bank - expected).abs().max() for bank, _, expected in banks)
    seen = f"centre off by {offset:.1e} pixels, largest difference from eqs. 19 to 26 {error:.1e}"
    return held_if(offset < _TOLERANCE and error < _TOLERANCE, seen)


def _distance_from_centre(bank: Float[Tensor, "N L"]) -> Float[Tensor, ""]:
    """Return the distance of the filters' mean position from the centre of the image, in pixels."""
    length = bank.shape[1]
    position = torch.arange(1, length + 1, dtype=bank.dtype)
    return ((bank @ position).mean() - (length + 1) / 2).abs()


def _largest(numbers: Iterable[Tensor]) -> float:
    """Return the largest number; NaN if there is one, which Python's `max` may pass over."""
    return float(torch.stack(tuple(numbers)).max())


def _banks(subject: Subject, windows: Sequence[tuple[float, ...]]) -> list[tuple[Tensor, tuple[float, ...], Tensor]]:
    """Return every bank of every grid of the model at each window, the window, and the paper's bank."""
    grids = [module for module in subject.fresh().modules() if has(module, HasFilterBanks)]
    if not grids:
        raise DoesNotApply("it has no layer with filter_banks() (HasFilterBanks)")
    banks = []
    for grid in grids:
        precise = cast(HasFilterBanks, copy.deepcopy(grid).double())
        for window in windows:
            filters_y, filters_x = precise.filter_banks(torch.tensor([window], dtype=torch.float64))
            bank_y, bank_x = filters_y[0].detach(), filters_x[0].detach()
            height, width, num_filters = bank_y.shape[1], bank_x.shape[1], len(bank_x)
            for bank, raw, length in ((bank_x, window[0], width), (bank_y, window[1], height)):
                center = (length + 1) / 2 * (raw + 1)  # eqs. 22, 23
                variance = math.exp(window[2])
                stride = (max(height, width) - 1) / max(num_filters - 1, 1) * math.exp(window[3])  # eq. 24
                # Far outside of the image the sum of the paper underflows to zero; there is nothing to compare with.
                expected = paper_bank(center, variance, stride, num_filters, length)
                banks.append((bank, window, expected))
    return banks
