"""What a tuning goes by: whose prices `auto` counts with, and how many threads everything runs on."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import NamedTuple

from export.latency.target import LatencyTarget
from export.tune.request import TuneRequest
from runtime.bench.cells import speed_ratio
from runtime.bench.plan import BenchPlan, Target
from runtime.bench.run import run_bench
from runtime.bundle.schema import Bundle
from runtime.results.schema import Cell, Ratio
from vitnla.common.errors import VerdictError
from vitnla.common.files import write_atomically
from vitnla.common.schema import Record

_FILE, _ROUNDS, _PROCESSES = "prices.json", 6, 3


class _Kept(Record):
    target: str
    threads: int | None = None
    """Null in folders of before it was looked for."""


class Settled(NamedTuple):
    """What `auto` counts an operator's time by, and the CPU threads."""

    prices: LatencyTarget
    threads: int


def settle(request: TuneRequest, dense: Sequence[Bundle], only: dict[str, frozenset[str]]) -> Settled:
    """What this tuning began with, else what is measured now; prices that were asked for go before both.

    The prices are those of the runtime and precision that are the fastest for the dense model; that cell is then timed with
    fewer threads, which on many cores can be faster for a small model or batch.

    Args:
        request: see `TuneRequest`.
        dense: the dense model in each precision.
        only: name of a bundle -> where it runs.

    Raises:
        VerdictError: no dense bundle could be timed.
    """
    path = request.folder / _FILE
    if path.is_file():
        kept = _Kept.read(path)
    elif request.prices is not None and not request.fewer_threads:
        return Settled(request.prices, request.threads)  # both were asked for: there is nothing to measure
    else:
        plan = BenchPlan(
            tuple(dense), request.targets, (request.batch,), request.threads, seconds=request.seconds / 2, rounds=_ROUNDS, only=only
        )  # fmt: skip
        fastest = fastest_of(run_bench(plan, command=request.command))
        bundle = next(one for one in dense if one.name == fastest.bundle)
        kept = _Kept(target=prices_of(fastest).label, threads=_threads(request, bundle, Target.parse(fastest.runtime)))
        write_atomically(path, kept.to_json())
    return Settled(request.prices or LatencyTarget.parse(kept.target), kept.threads or request.threads)


def fastest_of(cells: Sequence[Cell]) -> Cell:
    """The cell of the highest throughput.

    Raises:
        VerdictError: no cell was measured; says what became of the first.
    """
    measured = [cell for cell in cells if cell.error is None]
    if not measured:
        raise VerdictError(f"no dense bundle could be timed: {cells[0].error}", "vitdeploy doctor says what runs here")
    return max(measured, key=lambda cell: cell.images_per_s or 0.0)


def prices_of(cell: Cell) -> LatencyTarget:
    """Of where a cell was measured."""
    target = Target.parse(cell.runtime)
    # An int8 graph is one, whatever the arithmetic of the rest.
    return LatencyTarget(target.runtime, "int8") if cell.precision == "int8" else LatencyTarget.parse(target.label)


def _threads(request: TuneRequest, bundle: Bundle, target: Target) -> int:
    if not request.fewer_threads:
        return request.threads
    targets = tuple(replace(target, threads=count) for count in (request.threads, *request.fewer_threads))
    plan = BenchPlan(
        (bundle,), targets, (request.batch,), request.threads, seconds=request.seconds / 2, rounds=_ROUNDS, processes=_PROCESSES
    )  # fmt: skip
    return threads_of(run_bench(plan, command=request.command))


def threads_of(cells: Sequence[Cell]) -> int:
    """Those of the first cell, unless another one is faster than it by more than chance explains."""
    first, best = cells[0], cells[0]
    for cell in cells[1:]:
        if first.error or cell.error:
            continue
        ratio = speed_ratio(cell, first)
        faster = ratio is not None and Ratio(baseline=first.key, **ratio._asdict()).verdict == "faster"
        best = cell if faster and (cell.images_per_s or 0.0) > (best.images_per_s or 0.0) else best
    count = Target.parse(best.runtime).threads
    if count is None:
        raise ValueError(f"{best.key} names no threads")
    return count
