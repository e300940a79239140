"""Convert measurements into the cells of a results file: pure functions."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from statistics import fmean, median
from typing import Any

from runtime.bench.journal import SearchResult
from runtime.bench.plan import BenchPlan, Case
from runtime.check.accuracy import Score
from runtime.process.client import Slice
from runtime.results import statistics as stats
from runtime.results.schema import Cell, Ratio, Server
from runtime.results.statistics import MAX_VARIATION, Interval, unsteadiness
from vitnla.common.errors import VitDeployError

_MIB = 1 << 20


@dataclass
class Measured:
    """The state of a case during the bench. `error` ends its measurement."""

    case: Case
    loads: list[dict[str, Any]] = field(default_factory=list)
    """Load time, first inference and facts of each of its processes."""
    stable: bool = True
    slices: list[Slice] = field(default_factory=list)
    """One per round, from `first_round` on."""
    first_round: int = 0
    """Rounds of this run that were complete when it was tried again after a failure."""
    rounds_before: int = 0
    """Number of them that were measured before an interruption."""
    search: SearchResult | None = None
    cpus: tuple[int, ...] = ()
    peak_mb: float | None = None
    device_mb: float | None = None
    score: Score | None = None
    notes: list[str] = field(default_factory=list)
    """Warnings about steps that failed without spoiling the speed."""
    error: VitDeployError | None = None

    def apply_search(self, search: SearchResult) -> None:
        """Set the batch size and the rate to the result of a search."""
        self.search, self.case = search, replace(self.case, batch=search.batch)

    @property
    def rates(self) -> tuple[float, ...]:
        """Images per second of each round."""
        return tuple(part.images_per_s for part in self.slices)

    @property
    def samples_ms(self) -> tuple[float, ...]:
        """Latencies of all rounds, in order."""
        return tuple(itertools.chain.from_iterable(part.samples_ms for part in self.slices))


@dataclass(frozen=True)
class RunInfo:
    """The fields that all cells of one run share."""

    run: str
    created: str
    command: str
    plan: BenchPlan
    machine: dict[str, Any]


def make_cells(measured: Sequence[Measured], info: RunInfo) -> list[Cell]:
    """Return one cell per case, with ratios to their baselines (see `choose_baseline`)."""
    baseline = info.plan.baseline
    cells = [_cell(case, info) for case in measured]
    usable = [cell for cell in cells if cell.error is None]
    return [cell.model_copy(update={"ratio": _ratio(cell, choose_baseline(cell, usable, baseline))}) for cell in cells]


def choose_baseline(cell: Cell, cells: Sequence[Cell], bundle: str | None) -> Cell | None:
    """Return the baseline of a cell: `bundle`, or else the first dense bundle, on the same runtime at the same batch size.

    The baseline of that cell is the same bundle on the first runtime. Where no such bundle was measured at this batch size, the
    first cell is the baseline. None for the cell that is the last baseline itself.
    """
    alike = [other for other in cells if other.batch == cell.batch or (other.batch_search and cell.batch_search)]
    wanted = [other for other in alike if (other.method == "none" if bundle is None else other.bundle == bundle)]
    same_runtime = [other for other in wanted if other.runtime == cell.runtime]
    candidates = [*same_runtime[:1], *wanted[:1]] or [*alike[:1], *cells[:1]]
    return next((other for other in candidates if other.key != cell.key), None)


def _ratio(cell: Cell, baseline: Cell | None) -> Ratio | None:
    if cell.error is not None or baseline is None:
        return None
    if cell.server is None or baseline.server is None:
        interval, of = speed_ratio(cell, baseline), "throughput"
    elif cell.server.searched or cell.server.overloaded or baseline.server.overloaded:
        return None  # rates that were searched for are not measured by round, and an overloaded queue has no latency of its own
    else:
        interval, of = _paired_ratio(baseline, cell, lambda cell: cell.rounds_latency_ms), "latency"
    return interval and Ratio.model_validate({"baseline": baseline.key, **interval._asdict(), "of": of})


def speed_ratio(cell: Cell, baseline: Cell) -> Interval | None:
    """Return the throughput of a cell over that of another cell of its run, over the rounds of both; None below three rounds."""
    return _paired_ratio(cell, baseline, lambda cell: cell.rounds_images_per_s)


def _paired_ratio(cell: Cell, other: Cell, values: Callable[[Cell], tuple[float, ...]]) -> Interval | None:
    first = max(cell.first_round, other.first_round)
    ours, theirs = slice(first - cell.first_round, None), slice(first - other.first_round, None)
    processes = tuple(zip(cell.rounds_process[ours], other.rounds_process[theirs], strict=True))
    return stats.paired_ratio(values(cell)[ours], values(other)[theirs], processes=processes)


def _cell(measured: Measured, info: RunInfo) -> Cell:
    bundle, manifest = measured.case.bundle, measured.case.bundle.manifest
    described = Cell(
        run=info.run, created=info.created, command=info.command, machine=info.machine, scenario=info.plan.scenario,
        bundle=bundle.name, label=info.plan.labels.get(bundle.name), bundle_path=str(bundle.folder), method=manifest.method,
        precision=measured.case.target.precision_on(bundle), activations=manifest.quantization and manifest.quantization.activations,
        runtime=measured.case.target.label, batch=measured.case.batch, macs=manifest.macs, parameters=manifest.parameters,
        layers=manifest.layers, export_accuracy=manifest.accuracy, losses=manifest.losses, model_mb=bundle.model_bytes() / _MIB, cpus=measured.cpus,
        batch_search=measured.search.batch_search if measured.search else (),
    )  # fmt: skip
    if measured.error is not None:
        hint = f" ({measured.error.hint})" if measured.error.hint else ""
        return described.model_copy(update={"error": f"{measured.error.message}{hint}"})
    score, server = measured.score, _server(measured, info.plan)
    measurements = {
        "images_per_s": sum(part.images for part in measured.slices) / sum(part.elapsed_s for part in measured.slices),
        "latency_ms": stats.latency(measured.samples_ms),
        "samples_ms": measured.samples_ms,
        "first_round": measured.first_round,
        "rounds_images_per_s": measured.rates,
        "rounds_process": tuple(part.process for part in measured.slices),
        "rounds_latency_ms": tuple(fmean(part.samples_ms) for part in measured.slices) if server else (),
        "server": server,
        "warnings": tuple(_warnings(measured, server)),
        "peak_rss_mb": measured.peak_mb,
        "device_mb": measured.device_mb,
        **_started(measured.loads),
    }
    if score is not None:
        measurements |= {
            "top1": score.top1.value, "top1_low": score.top1.low, "top1_high": score.top1.high,
            "agreement": score.agreement, "accuracy_images": score.images,
        }  # fmt: skip
    return described.model_copy(update=measurements)


def _started(loads: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """Return the median load and first-inference times of all processes, and the facts of the last."""
    times = ("load_s", "first_inference_ms")
    return loads[-1] | {name: median(load[name] for load in loads) for name in times}


def _server(measured: Measured, plan: BenchPlan) -> Server | None:
    rate = measured.search.rate if measured.search and measured.search.rate else plan.rate
    if rate is None:
        return None
    samples, bound = measured.samples_ms, plan.p99_bound_ms
    p99 = stats.percentile(samples, 99)
    return Server(
        rate=rate, searched=plan.rate is None, p99_bound_ms=bound, met=None if p99 is None or bound is None else p99 <= bound,
        utilisation=rate * sum(part.busy_s for part in measured.slices) / len(samples),
        unserved=sum(part.unserved for part in measured.slices),
    )  # fmt: skip


def _warnings(measured: Measured, server: Server | None) -> Iterator[str]:
    yield from measured.notes
    if not measured.stable:
        yield "the speed was not yet stable after the warm-up"
    if 0 < measured.rounds_before < len(measured.slices):
        yield f"measured across an interruption, which came after round {measured.rounds_before}"
    if measured.first_round:
        yield f"failed before an interruption and was tried again: measured after round {measured.first_round}"
    if server is not None:  # the arrivals are meant to vary
        yield from _server_warnings(server)
    else:
        yield from _speed_warnings(measured)
    if measured.score is not None:
        yield from measured.score.warnings


def _server_warnings(server: Server) -> Iterator[str]:
    if server.overloaded:
        yield (
            f"the queue grows without bound: {server.rate:.4g} queries/s would keep the runtime busy {server.utilisation:.0%} of the "
            f"time, and {server.unserved} were never served; latencies only say how long the run was"
        )
    if server.met is False:
        yield f"p99 is above the bound of {server.p99_bound_ms:g} ms"
    if server.p99_bound_ms is not None and server.met is None:
        yield "too few queries for a p99, so the bound is not judged: give a longer --duration"


def _speed_warnings(measured: Measured) -> Iterator[str]:
    unsteady = unsteadiness(measured.samples_ms, measured.rates)
    if unsteady.variation is not None:
        quantity = "latency" if measured.samples_ms else "throughput"
        yield f"coefficient of variation of the {quantity} is {unsteady.variation:.1%}, above {MAX_VARIATION:.1%}"
    if unsteady.drift is not None:
        yield f"throughput drifted by {unsteady.drift:+.1%} from the first third of the rounds to the last"
