"""Compute the ranges of axes, for the interactive figure and the static picture alike."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from runtime.results.schema import Cell

WINDOW = 0.12
"""Top-1 this far below the best (a fraction) leaves the axis: a model at chance would flatten all others into one line."""

_NEAR_ZERO = 0.35
"""A throughput axis starts at zero where the slowest cell is below this share of the fastest."""


@dataclass(frozen=True)
class AccuracyAxis:
    """The range of the top-1 axis in per cent, and the cells that lie below it."""

    low: float
    high: float
    below: tuple[Cell, ...]


def accuracy_axis(cells: Sequence[Cell]) -> AccuracyAxis:
    """Return an axis that fits the intervals of the cells within `WINDOW` of the best top-1; the others are drawn at its foot."""
    best = max((cell.top1 or 0.0 for cell in cells), default=0.0)
    shown = [cell for cell in cells if (cell.top1 or 0.0) >= best - WINDOW]
    low = min((100 * (cell.top1_low if cell.top1_low is not None else cell.top1 or 0.0) for cell in shown), default=0.0)
    high = max((100 * (cell.top1_high if cell.top1_high is not None else cell.top1 or 0.0) for cell in shown), default=100.0)
    margin = max(0.12 * (high - low), 0.25)
    below = tuple(cell for cell in cells if (cell.top1 or 0.0) < best - WINDOW)
    return AccuracyAxis(max(0.0, low - margin * (2.2 if below else 1)), min(100.0, high + margin), below)


def rate_range(cells: Sequence[Cell]) -> tuple[float, float]:
    """Return the range of the throughput axis, images/s, with room for labels; from zero where the slowest cell is near it."""
    rates = [cell.images_per_s for cell in cells if cell.images_per_s] or [1.0]
    slowest, fastest = min(rates), max(rates)
    margin = 0.12 * (fastest - slowest) or 0.1 * fastest
    return (0.0 if slowest < _NEAR_ZERO * fastest else slowest - margin), fastest + margin


def ticks(low: float, high: float, about: int = 5) -> list[float]:
    """Return about `about` round numbers (1, 2 or 5 times a power of ten apart) inside [low, high]."""
    rough = (high - low) / about
    power = 10.0 ** math.floor(math.log10(rough))
    step = next(factor * power for factor in (1, 2, 5, 10) if factor * power >= rough * 0.999)
    return [round(index * step, 10) for index in range(math.ceil(low / step - 1e-9), math.floor(high / step + 1e-9) + 1)]


def largest(values: Iterable[float | None]) -> float:
    """Return the largest value; 1 where there is none, so that an axis has a length."""
    return max((value for value in values if value), default=1.0)
