"""Test the bench itself: a runner of fixed delay and memory, and pairs of equals, for which it must find no difference."""

from __future__ import annotations

import contextlib
import math
import random
from collections.abc import Callable, Iterable
from datetime import UTC, datetime
from typing import Any

from runtime.bench.cells import Measured
from runtime.bench.plan import BenchPlan, Case, Target
from runtime.bench.run import Bench, run_bench
from runtime.bench.timing import PROCESSES
from runtime.bundle.schema import Bundle
from runtime.machine.facts import machine_facts
from runtime.results import statistics as stats
from runtime.results.schema import Ratio
from runtime.runners.fixed_delay import ALLOCATED_MB, DELAY_MS
from vitnla.common.errors import VitDeployError
from vitnla.common.schema import Record

TOLERANCE, LEAST_EQUAL = 0.03, 0.95
_RENEW = 10
"""Trials with one pool of processes; each trial draws from it the pairs to compare."""


class KnownQuantity(Record):
    """A known quantity and its measurement."""

    quantity: str
    expected: float
    measured: float
    deviation: float
    ok: bool

    @classmethod
    def of(cls, quantity: str, expected: float, measured: float) -> KnownQuantity:
        """Compare with the tolerance of 3 %."""
        deviation = measured / expected - 1
        return cls(quantity=quantity, expected=expected, measured=measured, deviation=deviation, ok=abs(deviation) <= TOLERANCE)


class SelfTest(Record):
    """The outcome on this machine, under its load at that time."""

    created: str
    command: str
    known: tuple[KnownQuantity, ...]
    aa_bundle: str
    aa_runtime: str
    aa_trials: int
    aa_rounds: int
    aa_processes: int
    """Processes of each of the two in a comparison."""
    aa_no_difference: int
    """Trials whose verdict was neither faster nor slower."""
    aa_intervals_with_one: int
    """Trials whose 95 % interval held 1: about 95 of 100 where the rounds are independent."""
    aa_ratios: tuple[Ratio, ...]
    ok: bool
    machine: dict[str, Any]


def self_test(
    bundle: Bundle,
    target: Target,
    *,
    threads: int,
    trials: int = 100,
    rounds: int = 10,
    processes: int = PROCESSES,
    seconds: float = 0.3,
    command: str = "",
    progress: Callable[[int, int, str], None] = lambda done, total, text: None,
) -> SelfTest:
    """Measure the fixed-delay runner and `trials` comparisons of a bundle with itself.

    Args:
        bundle: what is compared with itself; the fixed-delay runner takes its images.
        target: what it runs on.
        threads: CPU threads.
        trials: comparisons.
        rounds: of each comparison.
        processes: of each of the two, as in a bench. All are loaded beforehand and drawn anew for every comparison, so that these
            are as independent as those of as many benches at a tenth of the time.
        seconds: measured time of each of the two in a comparison.
        command: to be recorded.
        progress: trials done, trials in all, and what is being done.

    Raises:
        VitDeployError: the bundle cannot be run on the target.
    """
    progress(0, trials, f"a call of {DELAY_MS:g} ms, {ALLOCATED_MB} MiB")
    known = _measure_fixed_delay(bundle, threads)
    batch = bundle.fixed_batch or 1
    plan = BenchPlan(
        (bundle,), (target,), (batch,), threads, seconds=seconds, min_count=rounds, rounds=rounds, processes=processes
    )  # fmt: skip
    plan.check()
    ratios: list[Ratio] = []
    while len(ratios) < trials:
        with contextlib.ExitStack() as stack:
            pool = Bench(plan, [Case(bundle, target, batch)] * (2 * math.ceil(rounds / plan.rounds_per_process)))
            pool.load(stack)
            _raise_first_error(pool.cells)
            for _ in range(min(_RENEW, trials - len(ratios))):
                progress(len(ratios), trials, f"{bundle.name} on {target.label} against itself")
                ratios.append(_trial(pool, plan, random.Random(len(ratios))))
    equal = sum(not ratio.differs for ratio in ratios)
    return SelfTest(
        created=datetime.now(UTC).isoformat(timespec="seconds"), command=command, known=known, aa_bundle=bundle.name,
        aa_runtime=target.label, aa_trials=trials, aa_rounds=rounds, aa_processes=processes, aa_no_difference=equal,
        aa_intervals_with_one=sum(ratio.low <= 1 <= ratio.high for ratio in ratios), aa_ratios=tuple(ratios),
        ok=all(quantity.ok for quantity in known) and equal >= LEAST_EQUAL * trials, machine=machine_facts(),
    )  # fmt: skip


def _measure_fixed_delay(bundle: Bundle, threads: int) -> tuple[KnownQuantity, ...]:
    plan = BenchPlan((bundle,), (Target("fixed-delay"),), (bundle.fixed_batch or 1,), threads, seconds=3.0, min_count=100)
    (cell,) = run_bench(plan)
    if cell.error is not None or cell.latency_ms is None or cell.images_per_s is None or cell.peak_rss_mb is None:
        raise VitDeployError(
            f"the fixed-delay runner could not be measured: {cell.error or cell.warnings}", "see vitdeploy doctor"
        )
    return (
        KnownQuantity.of("latency_ms", DELAY_MS, cell.latency_ms.p50),
        KnownQuantity.of("calls_per_s", 1000 / DELAY_MS, cell.images_per_s / cell.batch),
        KnownQuantity.of("peak_rss_mb", ALLOCATED_MB, cell.peak_rss_mb),
    )


def _raise_first_error(cells: Iterable[Measured]) -> None:
    for cell in cells:
        if cell.error is not None:
            raise cell.error


def _trial(pool: Bench, plan: BenchPlan, generator: random.Random) -> Ratio:
    """Return one comparison of a bundle with itself, by the rounds and the statistics of a bench."""
    cells = list(enumerate(pool.cells))
    generator.shuffle(cells)
    rates: list[tuple[float, float]] = []
    processes = [number // plan.rounds_per_process for number in range(plan.rounds)]
    for number, process in enumerate(processes):
        pair = cells[2 * process : 2 * process + 2]
        pool.run_round(number, pair, last=plan.rounds)
        _raise_first_error(cell for _, cell in pair)
        rates.append((pair[0][1].rates[-1], pair[1][1].rates[-1]))
    ours, other = zip(*rates, strict=True)
    interval = stats.paired_ratio(ours, other, processes=processes)
    if interval is None:
        raise ValueError("a trial needs at least three rounds")
    return Ratio(baseline=pool.cells[0].case.key, **interval._asdict())
