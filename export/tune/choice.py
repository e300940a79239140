"""Choose the answer among measured cells; pure, without input or output."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from runtime.bench.cells import speed_ratio
from runtime.results.schema import Cell, Ratio, TuneAnswer
from runtime.results.statistics import Interval

DENSE = "none"


@dataclass(frozen=True)
class Choice:
    """The answer and the cells that it was compared with.

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

    def marked(self, question: str) -> Cell:
        """Return the answer's cell with `question` and its gains recorded in it."""
        gains = {self.fp32.key: self.speedup, self.dense.key: self.gain}
        found = tuple(Ratio(baseline=key, **gain._asdict()) for key, gain in gains.items() if gain is not None)
        return self.cell.model_copy(update={"answer": TuneAnswer(question=question, gains=found)})

    @property
    def decomposed(self) -> bool:
        """Whether the answer is a decomposed model."""
        return self.cell.method != DENSE


def choose(cells: Sequence[Cell], fits: Callable[[Cell], bool]) -> Choice:
    """Return the fastest cell within the budget; a decomposed one only if significantly faster than the fastest dense one.

    Args:
        cells: of one interleaved run, the dense fp32 model on the first runtime among them.
        fits: whether a cell's loss is within the budget. Called from the fastest cell down, until one fits.

    Raises:
        ValueError: no dense fp32 cell was measured.
    """
    measured = sorted((cell for cell in cells if cell.error is None), key=_speed, reverse=True)
    fp32 = next((cell for cell in cells if cell.error is None and cell.method == DENSE and cell.precision == "fp32"), None)
    if fp32 is None:
        raise ValueError("expected the dense fp32 model among the cells")
    fastest = next(filter(fits, measured), fp32)
    dense = next(filter(fits, (cell for cell in measured if cell.method == DENSE)), fp32)
    gain = _over(fastest, dense)
    if gain is None or Ratio(baseline=dense.key, **gain._asdict()).verdict != "faster":
        fastest, gain = dense, None
    return Choice(fastest, dense, fp32, gain, _over(fastest, fp32))


def _speed(cell: Cell) -> float:
    return cell.images_per_s or 0.0


def _over(cell: Cell, other: Cell) -> Interval | None:
    return None if cell is other else speed_ratio(cell, other)
