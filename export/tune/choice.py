"""Which measured cell is the answer: pure."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from runtime.results import Cell
from runtime.stats import Interval, paired_ratio

DENSE = "none"


@dataclass(frozen=True)
class Choice:
    """The answer and what it was weighed against.

    Args:
        cell: the fastest within the budget.
        dense: the fastest dense cell within the budget, at any precision; the answer itself where nothing beats it.
        fp32: the dense fp32 cell of the first runtime.
        gain: of the answer over `dense`, and `speedup` over `fp32`, as ratios of throughput with 95 % intervals.
        decomposed: whether the answer is a decomposed model.
    """

    cell: Cell
    dense: Cell
    fp32: Cell
    gain: Interval | None
    speedup: Interval | None

    @property
    def decomposed(self) -> bool:
        """Whether decomposing paid."""
        return self.cell.method != DENSE


def within(cell: Cell, dense_top1: float, max_drop: float) -> bool:
    """Whether a cell was measured and keeps top-1 within `max_drop` points of the dense model's."""
    return cell.error is None and cell.top1 is not None and 100 * (dense_top1 - cell.top1) <= max_drop + 1e-9


def choose(cells: Sequence[Cell], dense_top1: float, max_drop: float) -> Choice:
    """The fastest cell within the budget; a dense one unless a decomposed one is faster by more than chance explains.

    Args:
        cells: of one interleaved run, with accuracy; the dense fp32 model on the first runtime among them.
        dense_top1: fraction, of the dense model in torch on the same images.
        max_drop: points.

    Raises:
        ValueError: no dense fp32 cell was measured.
    """
    measured = [cell for cell in cells if cell.error is None]
    fp32 = next((cell for cell in measured if cell.method == DENSE and cell.precision == "fp32"), None)
    if fp32 is None:
        raise ValueError("expected the dense fp32 model among the cells")
    fit = [cell for cell in measured if within(cell, dense_top1, max_drop)] or [fp32]
    fastest = max(fit, key=_speed)
    dense = max([cell for cell in fit if cell.method == DENSE] or [fp32], key=_speed)
    gain = _over(fastest, dense)
    if fastest is not dense and (gain is None or gain.low <= 1):
        fastest, gain = dense, None
    return Choice(fastest, dense, fp32, gain if fastest is not dense else None, _over(fastest, fp32))


def _speed(cell: Cell) -> float:
    return cell.images_per_s or 0.0


def _over(cell: Cell, other: Cell) -> Interval | None:
    return None if cell is other else paired_ratio(cell.rounds_images_per_s, other.rounds_images_per_s)
