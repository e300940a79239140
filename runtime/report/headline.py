"""What the cells of one run say: the frontier, the headline, and which controls are there. Pure functions of the cells."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from runtime.report.charts.style import is_dense
from runtime.report.numbers import significant
from runtime.results.schema import Cell, Ratio, TuneAnswer

TOLERATED_DROP = 0.01
"""The headline looks for the fastest cell that loses at most this much top-1 (a fraction: one point)."""


def plottable(cells: Iterable[Cell]) -> list[Cell]:
    """The cells that have both a throughput and a top-1."""
    return [cell for cell in cells if cell.images_per_s is not None and cell.top1 is not None]


def frontier(cells: Iterable[Cell]) -> list[Cell]:
    """The cells that no other beats on throughput or top-1 without losing on the other, slowest first. Exact ties are all kept."""
    kept: list[Cell] = []
    for cell in sorted(plottable(cells), key=_position, reverse=True):
        if not kept or _position(cell)[1] > _position(kept[-1])[1] or _position(cell) == _position(kept[-1]):
            kept.append(cell)
    return kept[::-1]


def _position(cell: Cell) -> tuple[float, float]:
    return cell.images_per_s or 0.0, cell.top1 or 0.0


def baseline_of(cell: Cell, cells: Iterable[Cell]) -> Cell | None:
    """The cell that `cell.ratio` is relative to, if it is among `cells`."""
    return next((other for other in cells if cell.ratio and other.key == cell.ratio.baseline), None)


def is_baseline(cell: Cell, cells: Iterable[Cell]) -> bool:
    """Whether other cells' ratios are relative to this one."""
    return any(other.ratio is not None and other.ratio.baseline == cell.key for other in cells)


def drop(cell: Cell, cells: Iterable[Cell]) -> float | None:
    """Top-1 lost against the cell's baseline, or against the dense source as exported where the baseline has none; a fraction."""
    if cell.top1 is None:
        return None
    baseline = baseline_of(cell, cells)
    if baseline is not None and baseline.top1 is not None:
        return baseline.top1 - cell.top1
    dense = cell.export_accuracy.dense_top1 if cell.export_accuracy else None
    return None if dense is None else dense - cell.top1


def headline(cells: Sequence[Cell]) -> str:
    """One sentence: what a tuning chose, or else what was gained within one point of top-1, or that nothing was."""
    if all(cell.error for cell in cells):
        return f"Nothing could be measured: {_count(len(cells), 'cell')} failed."
    for cell in cells:
        if cell.answer is not None:
            return _chosen(cell, cell.answer)
    compared = [cell for cell in cells if cell.ratio is not None and cell.ratio.baseline != cell.key]
    if not compared and (found := _highest_rate(cells)) is not None:
        return found
    if not compared:
        return "No cell was compared with a baseline in this run, so nothing can be said about speed-up."
    faster = sorted((cell for cell in compared if cell.ratio and cell.ratio.verdict == "faster"), key=_speedup, reverse=True)
    if not faster:
        unclear = sum(cell.ratio is not None and cell.ratio.verdict == "no difference" for cell in compared)
        return (
            f"Nothing was faster than its baseline: of {_count(len(compared), 'compared cell')}, "
            f"{unclear} showed no difference and {len(compared) - unclear} {'was' if len(compared) - unclear == 1 else 'were'} slower."
        )
    best = best_within(cells)
    if best is not None:
        return f"Within one point of its baseline’s top-1, the largest speed-up is {_gain(best, cells)}."
    if all(drop(cell, cells) is None for cell in faster):
        return f"The largest speed-up is {_gain(faster[0], cells)}, so what it costs in accuracy is not known."
    return f"Nothing was faster within one point of its baseline’s top-1; the largest speed-up is {_gain(faster[0], cells)}."


def _chosen(cell: Cell, answer: TuneAnswer) -> str:
    kind = ", which has no decomposition" if is_dense(cell) else ""
    gains = " and ".join(_times(gain) for gain in answer.gains)
    chosen = f"{cell.bundle} on {cell.runtime} at batch {cell.batch}{kind}"
    return f"Asked for {answer.question}, vitdeploy tune chose {chosen}{': ' + gains if gains else ''}."


def _times(ratio: Ratio) -> str:
    return f"{ratio.value:.2f}× (95 % interval {ratio.low:.2f} to {ratio.high:.2f}) of {ratio.baseline}"


def _highest_rate(cells: Sequence[Cell]) -> str | None:
    """What was found where rates within a bound were searched for, which no ratio compares; None elsewhere."""
    held = [(cell, cell.server) for cell in cells if not cell.error and cell.server and cell.server.searched and cell.server.met]
    if not held:
        return None
    best, server = max(held, key=lambda one: one[1].rate)
    dense = [found for cell, found in held if is_dense(cell) and cell.runtime == best.runtime and cell is not best]
    beside = f", the dense model {significant(dense[0].rate)}" if dense else ""
    return (
        f"With a p99 of at most {server.p99_bound_ms:g} ms, {best.bundle} on {best.runtime} takes the most queries: "
        f"{significant(server.rate)} a second{beside}. Rates that were searched for have no interval."
    )


def best_within(cells: Sequence[Cell]) -> Cell | None:
    """The cell with the largest speed-up over its baseline that loses at most `TOLERATED_DROP`; null where none was faster."""
    faster = [cell for cell in cells if cell.ratio is not None and not cell.error and cell.ratio.verdict == "faster"]
    within = [cell for cell in faster if (lost := drop(cell, cells)) is not None and lost <= TOLERATED_DROP]
    return max(within, key=_speedup, default=None)


def _speedup(cell: Cell) -> float:
    return cell.ratio.value if cell.ratio else 0.0


def _gain(cell: Cell, cells: Sequence[Cell]) -> str:
    if cell.ratio is None:
        raise ValueError(f"{cell.key} has no ratio")
    kind = ", with no decomposition" if is_dense(cell) else ""
    speed = _times(cell.ratio)
    lost = drop(cell, cells)
    change = (
        "top-1 not measured"
        if lost is None
        else f"{abs(100 * lost):.2f} points {'lower' if lost > 0 else 'higher'} top-1"
        if lost
        else "equal top-1"
    )
    return f"{cell.bundle} on {cell.runtime} at batch {cell.batch}{kind}: {speed}, {change}"


def _count(number: int, noun: str) -> str:
    return f"{number} {noun}{'' if number == 1 else 's'}"


def role(cell: Cell, cells: Sequence[Cell]) -> str | None:
    """The answer of a tuning, or which of the three controls a cell is beside decomposed ones; null for others.

    A dense bundle of fewer MACs than their source is the smaller dense model.
    """
    if cell.answer:
        return "answer"
    decomposed = [other for other in cells if not is_dense(other) and not other.error]
    if not is_dense(cell) or not decomposed:
        return None
    full = max((other.macs.dense for other in decomposed if other.macs), default=0)
    if cell.macs and cell.macs.model < full:
        return "control: smaller"
    if cell.precision.startswith("int8"):
        return "control: int8"
    return "control: dense" if _place(cell) in map(_place, decomposed) else None


def _place(cell: Cell) -> tuple[str, str, int | None]:
    """Runtime, precision and batch size; cells of searched batch sizes are compared each at its own."""
    return cell.runtime, cell.precision, None if cell.batch_search else cell.batch


@dataclass(frozen=True)
class Control:
    """A comparison that a speed claim needs beside it, and whether this run has it."""

    name: str
    present: bool
    detail: str


def controls(cells: Sequence[Cell]) -> tuple[Control, Control, Control]:
    """The three controls: dense at the same precision, dense INT8, and a smaller dense model.

    The first is present when every decomposed cell has a dense one of its runtime, precision and batch.
    The third is a dense bundle with fewer MACs than the dense source of a decomposed one.
    """
    measured = [cell for cell in cells if not cell.error]
    dense = [cell for cell in measured if is_dense(cell)]
    decomposed = [cell for cell in measured if not is_dense(cell)]
    places = {_place(cell) for cell in dense}
    bare = [cell.key for cell in decomposed if _place(cell) not in places]
    int8 = list(dict.fromkeys(cell.bundle for cell in dense if cell.precision.startswith("int8")))
    full = max((cell.macs.dense for cell in decomposed or dense if cell.macs), default=0)
    smaller = list(dict.fromkeys(cell.bundle for cell in dense if cell.macs and cell.macs.model < full))
    return (
        Control(
            "Dense at the same precision",
            bool(dense) and not bare,
            "no dense model was measured"
            if not dense
            else f"absent for {', '.join(bare)}"
            if bare
            else "beside every decomposed cell",
        ),
        Control(
            "Dense INT8", bool(int8), ", ".join(int8) or "no dense INT8 model was measured, so quantisation alone may do as well"
        ),
        Control(
            "A smaller dense model",
            bool(smaller),
            ", ".join(smaller) or "none was measured, so a smaller model trained as usual may do as well",
        ),
    )
