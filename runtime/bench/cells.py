"""From measurements to reported cells: pure functions."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from statistics import fmean, median
from typing import Any

from runtime.bench.journal import Found
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
    """What is known of a case so far. `error` ends its measurement."""

    case: Case
    loads: list[dict[str, Any]] = field(default_factory=list)
    """What each of its processes said when it had loaded."""
    stable: bool = True
    slices: list[Slice] = field(default_factory=list)
    """One per round, from `first_round` on."""
    first_round: int = 0
    """Rounds of this run that were over when it was tried again after a failure."""
    rounds_before: int = 0
    """How many of them an earlier sitting left, before it was interrupted."""
    found: Found | None = None
    cpus: tuple[int, ...] = ()
    peak_mb: float | None = None
    device_mb: float | None = None
    score: Score | None = None
    notes: list[str] = field(default_factory=list)
    """Warnings about steps that failed without spoiling the speed."""
    error: VitDeployError | None = None

    def take(self, found: Found) -> None:
        """Measure at what a search found."""
        self.found, self.case = found, replace(self.case, batch=found.batch)

    @property
    def rates(self) -> tuple[float, ...]:
        """Images per second of each round."""
        return tuple(one.images_per_s for one in self.slices)

    @property
    def samples_ms(self) -> tuple[float, ...]:
        """Latencies of all rounds, in order."""
        return tuple(itertools.chain.from_iterable(one.samples_ms for one in self.slices))


@dataclass(frozen=True)
class Origin:
    """What the cells of one run have in common."""

    run: str
    created: str
    command: str
    plan: BenchPlan
    machine: dict[str, Any]


def make_cells(measured: Sequence[Measured], origin: Origin) -> list[Cell]:
    """One cell per case, with ratios to their baselines (see `choose_baseline`)."""
    baseline = origin.plan.baseline
    cells = [_cell(one, origin) for one in measured]
    usable = [cell for cell in cells if cell.error is None]
    return [cell.model_copy(update={"ratio": _ratio(cell, choose_baseline(cell, usable, baseline))}) for cell in cells]


def choose_baseline(cell: Cell, cells: Sequence[Cell], bundle: str | None) -> Cell | None:
    """What a cell is compared with: `bundle`, or else the first dense bundle, on the same runtime at the same batch size.

    That cell itself is compared with its like on the first runtime. Where no such bundle was measured at this batch size, the
    first cell takes its place. None for the cell that stands at the top.
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
        found, of = speed_ratio(cell, baseline), "throughput"
    elif cell.server.searched or cell.server.overloaded or baseline.server.overloaded:
        return None  # rates that were searched for are not measured by round, and an overloaded queue has no latency of its own
    else:
        found, of = _paired_ratio(baseline, cell, lambda one: one.rounds_latency_ms), "latency"
    return found and Ratio.model_validate({"baseline": baseline.key, **found._asdict(), "of": of})


def speed_ratio(cell: Cell, baseline: Cell) -> Interval | None:
    """Throughput of one cell to that of another of its run, over the rounds that both took part in; None below three."""
    return _paired_ratio(cell, baseline, lambda one: one.rounds_images_per_s)


def _paired_ratio(one: Cell, other: Cell, values: Callable[[Cell], tuple[float, ...]]) -> Interval | None:
    first = max(one.first_round, other.first_round)
    ours, theirs = slice(first - one.first_round, None), slice(first - other.first_round, None)
    processes = tuple(zip(one.rounds_process[ours], other.rounds_process[theirs], strict=True))
    return stats.paired_ratio(values(one)[ours], values(other)[theirs], processes=processes)


def _cell(one: Measured, origin: Origin) -> Cell:
    bundle, manifest = one.case.bundle, one.case.bundle.manifest
    described = Cell(
        run=origin.run, created=origin.created, command=origin.command, machine=origin.machine, scenario=origin.plan.scenario,
        bundle=bundle.name, label=origin.plan.labels.get(bundle.name), bundle_path=str(bundle.folder), method=manifest.method,
        precision=one.case.target.precision_on(bundle), activations=manifest.quantization and manifest.quantization.activations,
        runtime=one.case.target.label, batch=one.case.batch, macs=manifest.macs, parameters=manifest.parameters,
        layers=manifest.layers, export_accuracy=manifest.accuracy, losses=manifest.losses, model_mb=bundle.model_bytes() / _MIB, cpus=one.cpus,
        batch_search=one.found.batch_search if one.found else (),
    )  # fmt: skip
    if one.error is not None:
        hint = f" ({one.error.hint})" if one.error.hint else ""
        return described.model_copy(update={"error": f"{one.error.message}{hint}"})
    score, server = one.score, _server(one, origin.plan)
    measurements = {
        "images_per_s": sum(part.images for part in one.slices) / sum(part.elapsed_s for part in one.slices),
        "latency_ms": stats.latency(one.samples_ms),
        "samples_ms": one.samples_ms,
        "first_round": one.first_round,
        "rounds_images_per_s": one.rates,
        "rounds_process": tuple(part.process for part in one.slices),
        "rounds_latency_ms": tuple(fmean(part.samples_ms) for part in one.slices) if server else (),
        "server": server,
        "warnings": tuple(_warnings(one, server)),
        "peak_rss_mb": one.peak_mb,
        "device_mb": one.device_mb,
        **_started(one.loads),
    }
    if score is not None:
        measurements |= {
            "top1": score.top1.value, "top1_low": score.top1.low, "top1_high": score.top1.high,
            "agreement": score.agreement, "accuracy_images": score.images,
        }  # fmt: skip
    return described.model_copy(update=measurements)


def _started(loads: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """The median start of all processes, and the facts of the last."""
    times = ("load_s", "first_inference_ms")
    return loads[-1] | {name: median(one[name] for one in loads) for name in times}


def _server(one: Measured, plan: BenchPlan) -> Server | None:
    rate = one.found.rate if one.found and one.found.rate else plan.rate
    if rate is None:
        return None
    samples, bound = one.samples_ms, plan.p99_bound_ms
    p99 = stats.percentile(samples, 99)
    return Server(
        rate=rate, searched=plan.rate is None, p99_bound_ms=bound, met=None if p99 is None or bound is None else p99 <= bound,
        utilisation=rate * sum(part.busy_s for part in one.slices) / len(samples),
        unserved=sum(part.unserved for part in one.slices),
    )  # fmt: skip


def _warnings(one: Measured, server: Server | None) -> Iterator[str]:
    yield from one.notes
    if not one.stable:
        yield "the speed was not yet stable after the warm-up"
    if 0 < one.rounds_before < len(one.slices):
        yield f"measured in more than one sitting: interrupted after round {one.rounds_before}"
    if one.first_round:
        yield f"failed before an interruption and was tried again: measured after round {one.first_round}"
    if server is not None:  # the arrivals are meant to vary
        yield from _server_warnings(server)
    else:
        yield from _speed_warnings(one)
    if one.score is not None:
        yield from one.score.warnings


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


def _speed_warnings(one: Measured) -> Iterator[str]:
    found = unsteadiness(one.samples_ms, one.rates)
    if found.variation is not None:
        what = "latency" if one.samples_ms else "throughput"
        yield f"coefficient of variation of the {what} is {found.variation:.1%}, above {MAX_VARIATION:.1%}"
    if found.drift is not None:
        yield f"throughput drifted by {found.drift:+.1%} from the first third of the rounds to the last"
