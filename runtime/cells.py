"""From measurements to reported cells: pure functions."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

from runtime import stats
from runtime.evaluation import Score
from runtime.plan import Case
from runtime.results import Cell, Ratio, Scenario
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
    images_per_s: list[float] = field(default_factory=list)
    """One per round."""
    samples_ms: list[float] = field(default_factory=list)
    peak_mb: float | None = None
    score: Score | None = None
    error: VitDeployError | None = None


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

    Where that was not measured, the first of all cells; None where there are none.
    """
    alike = [other for other in cells if (other.runtime, other.batch) == (cell.runtime, cell.batch)]
    wanted = [other for other in alike if (other.method == "none" if bundle is None else other.bundle == bundle)]
    return next(iter([*wanted, *cells]), None)


def _ratio(cell: Cell, baseline: Cell | None) -> Ratio | None:
    if cell.error is not None or baseline is None or baseline.key == cell.key:
        return None
    found = stats.paired_ratio(cell.rounds_images_per_s, baseline.rounds_images_per_s)
    return None if found is None else Ratio(baseline=baseline.key, value=found.value, low=found.low, high=found.high)


def _cell(one: Measured, origin: Origin) -> Cell:
    bundle, manifest = one.case.bundle, one.case.bundle.manifest
    described = Cell(
        run=origin.run, created=origin.created, command=origin.command, machine=origin.machine, scenario=origin.scenario,
        bundle=bundle.name, bundle_path=str(bundle.folder), method=manifest.method, precision=manifest.precision,
        runtime=one.case.target.label, batch=one.case.batch, macs=manifest.macs, parameters=manifest.parameters,
        layers=manifest.layers, export_accuracy=manifest.accuracy, model_mb=bundle.model_bytes() / _MIB,
    )  # fmt: skip
    if one.error is not None:
        hint = f" ({one.error.hint})" if one.error.hint else ""
        return described.model_copy(update={"error": f"{one.error.message}{hint}"})
    score = one.score
    measurements = {
        "images_per_s": harmonic_mean(one.images_per_s),
        "latency_ms": stats.latency(one.samples_ms),
        "samples_ms": tuple(one.samples_ms),
        "rounds_images_per_s": tuple(one.images_per_s),
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


def harmonic_mean(rates: Sequence[float]) -> float:
    """Mean of images per second over slices of work of equal size."""
    return len(rates) / sum(1 / rate for rate in rates)


def _warnings(one: Measured) -> Iterator[str]:
    if not one.stable:
        yield "the speed was not yet stable after the warm-up"
    variation = stats.variation(one.samples_ms or one.images_per_s)
    if variation is not None and variation > _MAX_VARIATION:
        what = "latency" if one.samples_ms else "throughput"
        yield f"coefficient of variation of the {what} is {variation:.1%}, above {_MAX_VARIATION:.1%}"
    drift = stats.drift(one.images_per_s)
    if drift is not None and abs(drift) > _MAX_DRIFT:
        yield f"throughput drifted by {drift:+.1%} from the first third of the rounds to the last"
    if one.score is not None:
        yield from one.score.warnings
