"""Whose prices `auto` decides by: those of the runtime and precision that are the fastest for the dense model."""

from __future__ import annotations

from collections.abc import Sequence

from export.latency.target import LatencyTarget
from export.tune.request import TuneRequest
from runtime.bench import run_bench
from runtime.bundle import Bundle
from runtime.plan import BenchPlan
from runtime.results import Cell
from vitnla.common.errors import VerdictError
from vitnla.common.files import write_atomically
from vitnla.common.schema import Record

_FILE, _ROUNDS = "prices.json", 6


class _Prices(Record):
    target: str


def settled_prices(request: TuneRequest, dense: Sequence[Bundle], only: dict[str, frozenset[str]]) -> LatencyTarget:
    """Those asked for, else those that this tuning began with, else those of the fastest dense bundle, measured now.

    Args:
        request: see `TuneRequest`.
        dense: the dense model in each precision.
        only: name of a bundle -> where it runs.
    """
    path = request.folder / _FILE
    if request.prices is not None:
        return request.prices
    if path.is_file():
        return LatencyTarget.parse(_Prices.read(path).target)
    plan = BenchPlan(
        tuple(dense), request.targets, (request.batch,), request.threads, seconds=request.seconds / 2, rounds=_ROUNDS, only=only
    )  # fmt: skip
    found = prices_of(run_bench(plan, command=request.command))
    write_atomically(path, _Prices(target=found.label).to_json())
    return found


def prices_of(cells: Sequence[Cell]) -> LatencyTarget:
    """Of the cell of the highest throughput.

    Raises:
        VerdictError: no cell was measured; says what became of the first.
    """
    measured = [cell for cell in cells if cell.error is None]
    if not measured:
        raise VerdictError(f"no dense bundle could be timed: {cells[0].error}", "vitdeploy doctor says what runs here")
    fastest = max(measured, key=lambda cell: cell.images_per_s or 0.0)
    if fastest.precision == "int8":  # whatever the arithmetic of the rest
        return LatencyTarget.parse(f"{fastest.runtime.partition(':')[0]}:int8")
    return LatencyTarget.parse(fastest.runtime)
