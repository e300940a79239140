"""Choice of the runtime whose operator times `auto` uses, and of the number of CPU threads."""

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


class _StoredChoice(Record):
    target: str
    threads: int | None = None
    """Null in folders written before the thread count was measured."""


class LatencyChoice(NamedTuple):
    """The runtime and precision whose operator times `auto` uses, and the CPU threads of every runtime."""

    prices: RuntimePrecision
    threads: int


def choose_prices_and_threads(request: TuneRequest, dense: Sequence[Bundle], only: dict[str, frozenset[str]]) -> LatencyChoice:
    """Choose prices and threads: those stored in the folder, else measured now; requested prices override both.

    Prices are the operator times of the runtime and precision with the fastest dense model. That cell is then timed with fewer
    threads, which on many cores can be faster for a small model or batch.

    Args:
        request: see `TuneRequest`.
        dense: the dense model in each precision.
        only: name of a bundle -> names of the runtimes that it runs on.

    Raises:
        VerdictError: no dense bundle could be timed.
    """
    path = request.folder / _FILE
    if path.is_file():
        kept = _StoredChoice.read(path)
    elif request.prices is not None and not request.fewer_threads:
        return LatencyChoice(request.prices, request.threads)  # both were asked for: there is nothing to measure
    else:
        plan = BenchPlan(
            tuple(dense), request.targets, (request.batch,), request.threads, seconds=request.seconds / 2, rounds=_ROUNDS, only=only
        )  # fmt: skip
        cells = run_bench(plan, command=request.command)
        fastest = fastest_cell(cells)
        case = next(case for case, cell in zip(plan.cases(), cells, strict=True) if cell is fastest)
        kept = _StoredChoice(target=case.runs_as.label, threads=_measure_threads(request, case))
        write_atomically(path, kept.to_json())
    return LatencyChoice(request.prices or parse_latency_target(kept.target), kept.threads or request.threads)


def fastest_cell(cells: Sequence[Cell]) -> Cell:
    """Return the cell with the highest throughput.

    Raises:
        VerdictError: no cell was measured; quotes the error of the first.
    """
    measured = [cell for cell in cells if cell.error is None]
    if not measured:
        raise VerdictError(f"no dense bundle could be timed: {cells[0].error}", "vitdeploy doctor says what runs here")
    return max(measured, key=lambda cell: cell.images_per_s or 0.0)


def _measure_threads(request: TuneRequest, case: Case) -> int:
    if not request.fewer_threads:
        return request.threads
    counts = (request.threads, *request.fewer_threads)
    targets = tuple(replace(case.target, threads=count) for count in counts)
    plan = BenchPlan(
        (case.bundle,), targets, (request.batch,), request.threads, seconds=request.seconds / 2, rounds=_ROUNDS, processes=_PROCESSES
    )  # fmt: skip
    return choose_threads(counts, run_bench(plan, command=request.command))


def choose_threads(counts: Sequence[int], cells: Sequence[Cell]) -> int:
    """Return the first count, or the fastest of the others that are significantly faster than the first.

    Args:
        counts: numbers of CPU threads.
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
