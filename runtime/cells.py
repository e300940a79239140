"""From measurements to reported cells: pure functions."""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

from runtime import stats
from runtime.evaluation import Score
from runtime.plan import Case
from runtime.results import Cell, Ratio, Scenario
from runtime.worker_client import Slice
from vitnla.common.errors import VitDeployError

_MIB = 1 << 20
_MAX_VARIATION, _MAX_DRIFT = 0.025, 0.05
"""The limit of variation is trtexec's."""


@dataclass
class Measured:
    """What is known of a case so far. `error` ends its measurement."""

    case: Case
    loaded: dict[str, Any] = field(default_factory=dict)
    stable: bool = True
    slices: list[Slice] = field(default_factory=list)
    """One per round."""
    peak_mb: float | None = None
    score: Score | None = None
    notes: list[str] = field(default_factory=list)
    """Warnings about steps that failed without spoiling the speed."""
    error: VitDeployError | None = None

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
    scenario: Scenario
    machine: dict[str, Any]


def make_cells(measured: Sequence[Measured], origin: Origin, baseline: str | None) -> list[Cell]:
    """One cell per case, with ratios to their baselines (see `choose_baseline`)."""
    cells = [_cell(one, origin) for one in measured]
    usable = [cell for cell in cells if cell.error is None]
    return [cell.model_copy(update={"ratio": _ratio(cell, choose_baseline(cell, usable, baseline))}) for cell in cells]


def choose_baseline(cell: Cell, cells: Sequence[Cell], bundle: str | None) -> Cell | None:
    """What a cell is compared with: `bundle`, or else the first dense bundle, on the same runtime at the same batch size.

    That cell itself is compared with its like on the first runtime. Where no such bundle was measured at this batch size, the
    first cell takes its place. None for the cell that stands at the top.
    """
    alike = [other for other in cells if other.batch == cell.batch]
    wanted = [other for other in alike if (other.method == "none" if bundle is None else other.bundle == bundle)]
    same_runtime = [other for other in wanted if other.runtime == cell.runtime]
    candidates = [*same_runtime[:1], *wanted[:1]] or [*alike[:1], *cells[:1]]
    return next((other for other in candidates if other.key != cell.key), None)


def _ratio(cell: Cell, baseline: Cell | None) -> Ratio | None:
    if cell.error is not None or baseline is None:
        return None
    found = stats.paired_ratio(cell.rounds_images_per_s, baseline.rounds_images_per_s)
    return None if found is None else Ratio(baseline=baseline.key, value=found.value, low=found.low, high=found.high)


def _cell(one: Measured, origin: Origin) -> Cell:
    bundle, manifest = one.case.bundle, one.case.bundle.manifest
    described = Cell(
        run=origin.run, created=origin.created, command=origin.command, machine=origin.machine, scenario=origin.scenario,
        bundle=bundle.name, bundle_path=str(bundle.folder), method=manifest.method, precision=one.case.target.precision_on(bundle),
        runtime=one.case.target.label, batch=one.case.batch, macs=manifest.macs, parameters=manifest.parameters,
        layers=manifest.layers, export_accuracy=manifest.accuracy, model_mb=bundle.model_bytes() / _MIB,
    )  # fmt: skip
    if one.error is not None:
        hint = f" ({one.error.hint})" if one.error.hint else ""
        return described.model_copy(update={"error": f"{one.error.message}{hint}"})
    score = one.score
    measurements = {
        "images_per_s": sum(part.images for part in one.slices) / sum(part.elapsed_s for part in one.slices),
        "latency_ms": stats.latency(one.samples_ms),
        "samples_ms": one.samples_ms,
        "rounds_images_per_s": one.rates,
        "warnings": tuple(_warnings(one)),
        "peak_rss_mb": one.peak_mb,
        **one.loaded,
    }
    if score is not None:
        measurements |= {
            "top1": score.top1.value, "top1_low": score.top1.low, "top1_high": score.top1.high,
            "agreement": score.agreement, "accuracy_images": score.images,
        }  # fmt: skip
    return described.model_copy(update=measurements)


def _warnings(one: Measured) -> Iterator[str]:
    yield from one.notes
    if not one.stable:
        yield "the speed was not yet stable after the warm-up"
    variation = stats.variation(one.samples_ms or one.rates)
    if variation is not None and variation > _MAX_VARIATION:
        what = "latency" if one.samples_ms else "throughput"
        yield f"coefficient of variation of the {what} is {variation:.1%}, above {_MAX_VARIATION:.1%}"
    drift = stats.drift(one.rates)
    if drift is not None and abs(drift) > _MAX_DRIFT:
        yield f"throughput drifted by {drift:+.1%} from the first third of the rounds to the last"
    if one.score is not None:
        yield from one.score.warnings
