"""Derive the headline, the Pareto frontier and the controls present from the cells of one run: pure functions."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from runtime.report.grouping import display_baseline, is_dense
from runtime.report.text import significant
from runtime.results.schema import Cell, Ratio, TuneAnswer

TOLERATED_DROP = 0.01
"""Largest loss of top-1, a fraction (one point), of the cell that the headline names."""


def plottable(cells: Iterable[Cell]) -> list[Cell]:
    """Return the cells that have both a throughput and a top-1."""
    return [cell for cell in cells if cell.images_per_s is not None and cell.top1 is not None]


def frontier(cells: Iterable[Cell]) -> list[Cell]:
    """Return the Pareto frontier of throughput and top-1, slowest first. Exact ties are all kept."""
    kept: list[Cell] = []
    for cell in sorted(plottable(cells), key=_position, reverse=True):
        if not kept or _position(cell)[1] > _position(kept[-1])[1] or _position(cell) == _position(kept[-1]):
            kept.append(cell)
    return kept[::-1]


def _position(cell: Cell) -> tuple[float, float]:
    return cell.images_per_s or 0.0, cell.top1 or 0.0


def baseline_of(cell: Cell, cells: Iterable[Cell]) -> Cell | None:
    """Return the cell that `cell.ratio` is relative to, or None where it is not among `cells`."""
    return next((other for other in cells if cell.ratio and other.key == cell.ratio.baseline), None)


def is_baseline(cell: Cell, cells: Iterable[Cell]) -> bool:
    """Return True if the ratio of any of `cells` is relative to this one."""
    return any(other.ratio is not None and other.ratio.baseline == cell.key for other in cells)


def drop(cell: Cell, cells: Iterable[Cell]) -> float | None:
    """Return the top-1 lost against the cell's baseline, or where that has none against the dense source as exported; a fraction."""
    if cell.top1 is None:
        return None
    baseline = baseline_of(cell, cells)
    if baseline is not None and baseline.top1 is not None:
        return baseline.top1 - cell.top1
    dense = cell.export_accuracy.dense_top1 if cell.export_accuracy else None
    return None if dense is None else dense - cell.top1


def headline(cells: Sequence[Cell]) -> str:
    """Return one sentence: the choice of a tuning, else the largest speed-up within one point of top-1, or that there is none."""
    if all(cell.error for cell in cells):
        return f"Nothing could be measured: {_count(len(cells), 'cell')} failed."
    for cell in cells:
        if cell.answer is not None:
            return _chosen(cell, cell.answer, cells)
    compared = [cell for cell in cells if cell.ratio is not None and cell.ratio.baseline != cell.key]
    if not compared and (sentence := _highest_rate(cells)) is not None:
        return sentence
    if not compared:
        return "No cell was compared with a baseline in this run, so nothing can be said about speed-up."
    faster = sorted((cell for cell in compared if cell.ratio and cell.ratio.verdict == "faster"), key=_speedup, reverse=True)
    if not faster:
        return f"Nothing was faster than its baseline: of {_count(len(compared), 'compared cell')}, {_verdicts(compared)}."
    best = best_within(cells)
    if best is not None:
        return f"Within one point of its baseline’s top-1, the largest speed-up is {_gain(best, cells)}."
    if all(drop(cell, cells) is None for cell in faster):
        return f"The largest speed-up is {_gain(faster[0], cells)}, so what it costs in accuracy is not known."
    return f"Nothing was faster within one point of its baseline’s top-1; the largest speed-up is {_gain(faster[0], cells)}."


def _verdicts(compared: Sequence[Cell]) -> str:
    """Count the cells of each verdict but `faster`; the inconclusive ones only where there are any."""
    counts = Counter(cell.ratio.verdict for cell in compared if cell.ratio is not None)
    equal, unclear, slower = (counts[verdict] for verdict in ("no difference", "inconclusive", "slower"))
    parts = [f"{equal} showed no difference"]
    parts += [f"{unclear} {'was' if unclear == 1 else 'were'} inconclusive"] if unclear else []
    parts.append(f"{slower} {'was' if slower == 1 else 'were'} slower")
    return f"{', '.join(parts[:-1])} and {parts[-1]}"


def _chosen(cell: Cell, answer: TuneAnswer, cells: Sequence[Cell]) -> str:
    kind = ", which has no decomposition" if is_dense(cell) else ""
    gains = " and ".join(_times(gain, cells) for gain in answer.gains)
    chosen = f"{cell.display_name} on {cell.runtime} at batch {cell.batch}{kind}"
    return f"Asked for {answer.question}, vitdeploy tune chose {chosen}{': ' + gains if gains else ''}."


def _times(ratio: Ratio, cells: Sequence[Cell]) -> str:
    unclear = ", inconclusive" if ratio.verdict == "inconclusive" else ""
    interval = f"95 % interval {ratio.low:.2f} to {ratio.high:.2f}{unclear}"
    return f"{ratio.value:.2f}× ({interval}) of {display_baseline(ratio, cells)}"


def _highest_rate(cells: Sequence[Cell]) -> str | None:
    """Return a sentence on the highest rate that met its bound, where rates were searched for; None elsewhere."""
    held = [(cell, cell.server) for cell in cells if not cell.error and cell.server and cell.server.searched and cell.server.met]
    if not held:
        return None
    best, server = max(held, key=lambda entry: entry[1].rate)
    dense = [other for cell, other in held if is_dense(cell) and cell.runtime == best.runtime and cell is not best]
    beside = f", the dense model {significant(dense[0].rate)}" if dense else ""
    return (
        f"With a p99 of at most {server.p99_bound_ms:g} ms, {best.display_name} on {best.runtime} takes the most queries: "
        f"{significant(server.rate)} a second{beside}. Rates that were searched for have no interval."
    )


def best_within(cells: Sequence[Cell]) -> Cell | None:
    """Return the cell with the largest speed-up that loses at most `TOLERATED_DROP`; None where none was faster."""
    faster = [cell for cell in cells if cell.ratio is not None and not cell.error and cell.ratio.verdict == "faster"]
    within = [cell for cell in faster if (lost := drop(cell, cells)) is not None and lost <= TOLERATED_DROP]
    return max(within, key=_speedup, default=None)


def _speedup(cell: Cell) -> float:
    return cell.ratio.value if cell.ratio else 0.0


def _gain(cell: Cell, cells: Sequence[Cell]) -> str:
    if cell.ratio is None:
        raise ValueError(f"{cell.key} has no ratio")
    kind = ", with no decomposition" if is_dense(cell) else ""
    speed = _times(cell.ratio, cells)
    lost = drop(cell, cells)
    change = (
        "top-1 not measured"
        if lost is None
        else f"{abs(100 * lost):.2f} points {'lower' if lost > 0 else 'higher'} top-1"
        if lost
        else "equal top-1"
    )
    return f"{cell.display_name} on {cell.runtime} at batch {cell.batch}{kind}: {speed}, {change}"


def _count(number: int, noun: str) -> str:
    return f"{number} {noun}{'' if number == 1 else 's'}"


def role(cell: Cell, cells: Sequence[Cell]) -> str | None:
    """Return `answer` for the choice of a tuning, which of the three controls a dense cell is, or None.

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
    return "control: dense" if _setting(cell) in map(_setting, decomposed) else None


def _setting(cell: Cell) -> tuple[str, str, int | None]:
    """Return runtime, precision and batch size; None for a searched batch size, where cells are compared each at its own."""
    return cell.runtime, cell.precision, None if cell.batch_search else cell.batch


@dataclass(frozen=True)
class Control:
    """A comparison that a speed claim needs beside it, and its presence in this run."""

    name: str
    present: bool
    detail: str


def controls(cells: Sequence[Cell]) -> tuple[Control, Control, Control]:
    """Return the three controls: dense at the same precision, dense INT8, and a smaller dense model.

    The first is present when every decomposed cell has a dense one of its runtime, precision and batch.
    The third is a dense bundle with fewer MACs than the dense source of a decomposed one.
    """
    measured = [cell for cell in cells if not cell.error]
    dense = [cell for cell in measured if is_dense(cell)]
    decomposed = [cell for cell in measured if not is_dense(cell)]
    settings = {_setting(cell) for cell in dense}
    bare = [cell.display_key for cell in decomposed if _setting(cell) not in settings]
    int8 = list(dict.fromkeys(cell.display_name for cell in dense if cell.precision.startswith("int8")))
    full = max((cell.macs.dense for cell in decomposed or dense if cell.macs), default=0)
    smaller = list(dict.fromkeys(cell.display_name for cell in dense if cell.macs and cell.macs.model < full))
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
