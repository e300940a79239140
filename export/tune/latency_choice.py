"""What a tuning goes by: whose prices `auto` counts with, and how many threads everything runs on."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import NamedTuple

from export.latency.target import parse_latency_target
from export.tune.request import TuneRequest
from runtime.bench.cells import speed_ratio
from runtime.bench.plan import BenchPlan, Case
from runtime.bench.run import run_bench
from runtime.bundle.schema import Bundle
from runtime.results.schema import Cell, Ratio
from runtime.runners.runtime_precision import RuntimePrecision
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

    prices: RuntimePrecision
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
        cells = run_bench(plan, command=request.command)
        fastest = fastest_of(cells)
        case = next(case for case, cell in zip(plan.cases(), cells, strict=True) if cell is fastest)
        kept = _Kept(target=case.runs_as.label, threads=_threads(request, case))
        write_atomically(path, kept.to_json())
    return Settled(request.prices or parse_latency_target(kept.target), kept.threads or request.threads)


def fastest_of(cells: Sequence[Cell]) -> Cell:
    """The cell of the highest throughput.

    Raises:
        VerdictError: no cell was measured; says what became of the first.
    """
    measured = [cell for cell in cells if cell.error is None]
    if not measured:
        raise VerdictError(f"no dense bundle could be timed: {cells[0].error}", "vitdeploy doctor says what runs here")
    return max(measured, key=lambda cell: cell.images_per_s or 0.0)


def _threads(request: TuneRequest, case: Case) -> int:
    if not request.fewer_threads:
        return request.threads
    counts = (request.threads, *request.fewer_threads)
    targets = tuple(replace(case.target, threads=count) for count in counts)
    plan = BenchPlan(
        (case.bundle,), targets, (request.batch,), request.threads, seconds=request.seconds / 2, rounds=_ROUNDS, processes=_PROCESSES
    )  # fmt: skip
    return threads_of(counts, run_bench(plan, command=request.command))


def threads_of(counts: Sequence[int], cells: Sequence[Cell]) -> int:
    """The first count, unless the cell of another one is faster than the first cell by more than chance explains.

    Args:
        counts: of CPU threads.
        cells: one for each count, of one interleaved run.
    """
    first, best, chosen = cells[0], cells[0], counts[0]
    for count, cell in zip(counts, cells, strict=True):
        if cell is first or first.error or cell.error:
            continue
        ratio = speed_ratio(cell, first)
        faster = ratio is not None and Ratio(baseline=first.key, **ratio._asdict()).verdict == "faster"
        if faster and (cell.images_per_s or 0.0) > (best.images_per_s or 0.0):
            best, chosen = cell, count
    return chosen
