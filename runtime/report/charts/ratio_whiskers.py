"""A small interval drawing in each row of the table: where the ratio lies, and whether its interval reaches 1."""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass

from runtime.results.schema import Cell

WIDTH = 96.0
_EDGE = 4.0


@dataclass(frozen=True)
class Whisker:
    """Horizontal positions in a drawing `WIDTH` wide: the interval, its middle, and the line of equal speed."""

    low: float
    middle: float
    high: float
    one: float


def whiskers(cells: Iterable[Cell]) -> dict[str, Whisker]:
    """Positions by cell key, on one logarithmic scale for all cells, so that 2× and 0.5× lie equally far from 1."""
    ratios = {cell.key: cell.ratio for cell in cells if cell.ratio and cell.ratio.low > 0}
    if not ratios:
        return {}
    low = math.log(min(1.0, *(ratio.low for ratio in ratios.values())))
    high = math.log(max(1.0, *(ratio.high for ratio in ratios.values())))
    span = (high - low) or 1.0

    def place(value: float) -> float:
        return round(_EDGE + (WIDTH - 2 * _EDGE) * (math.log(value) - low) / span, 2)

    return {key: Whisker(place(ratio.low), place(ratio.value), place(ratio.high), place(1.0)) for key, ratio in ratios.items()}
