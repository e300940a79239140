"""The harness measures what is known: a runner of known delay and memory, and pairs of equals, which must come out as equal."""

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
"""Trials of one pool of processes; each trial draws from it which are compared with which."""


class Known(Record):
    """A known quantity and what was measured of it."""

    quantity: str
    expected: float
    measured: float
    deviation: float
    ok: bool

    @classmethod
    def of(cls, quantity: str, expected: float, measured: float) -> Known:
        """Held to the tolerance of 3 %."""
        deviation = measured / expected - 1
        return cls(quantity=quantity, expected=expected, measured=measured, deviation=deviation, ok=abs(deviation) <= TOLERANCE)


class SelfTest(Record):
    """The verdict on the harness on this machine, as it was loaded at that time."""

    created: str
    command: str
    known: tuple[Known, ...]
    aa_bundle: str
    aa_runtime: str
    aa_trials: int
    aa_rounds: int
    aa_processes: int
    """Of each of the two in a comparison."""
    aa_no_difference: int
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
    """Measure the known runner and `trials` comparisons of a bundle with itself.

    Args:
        bundle: what is compared with itself; the known runner takes its images.
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
    known = _known(bundle, threads)
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
    equal = sum(ratio.verdict == "no difference" for ratio in ratios)
    return SelfTest(
        created=datetime.now(UTC).isoformat(timespec="seconds"), command=command, known=known, aa_bundle=bundle.name,
        aa_runtime=target.label, aa_trials=trials, aa_rounds=rounds, aa_processes=processes, aa_no_difference=equal,
        aa_intervals_with_one=sum(ratio.low <= 1 <= ratio.high for ratio in ratios), aa_ratios=tuple(ratios),
        ok=all(one.ok for one in known) and equal >= LEAST_EQUAL * trials, machine=machine_facts(),
    )  # fmt: skip


def _known(bundle: Bundle, threads: int) -> tuple[Known, ...]:
    plan = BenchPlan((bundle,), (Target("known"),), (bundle.fixed_batch or 1,), threads, seconds=3.0, min_count=100)
    (cell,) = run_bench(plan)
    if cell.error is not None or cell.latency_ms is None or cell.images_per_s is None or cell.peak_rss_mb is None:
        raise VitDeployError(f"the known runner could not be measured: {cell.error or cell.warnings}", "see vitdeploy doctor")
    return (
        Known.of("latency_ms", DELAY_MS, cell.latency_ms.p50),
        Known.of("calls_per_s", 1000 / DELAY_MS, cell.images_per_s / cell.batch),
        Known.of("peak_rss_mb", ALLOCATED_MB, cell.peak_rss_mb),
    )


def _raise_first_error(cells: Iterable[Measured]) -> None:
    for one in cells:
        if one.error is not None:
            raise one.error


def _trial(pool: Bench, plan: BenchPlan, generator: random.Random) -> Ratio:
    """One comparison of two that are the same, by the very rounds and the very statistics of a bench."""
    cells = list(enumerate(pool.cells))
    generator.shuffle(cells)
    rates: list[tuple[float, float]] = []
    processes = [number // plan.rounds_per_process for number in range(plan.rounds)]
    for number, process in enumerate(processes):
        pair = cells[2 * process : 2 * process + 2]
        pool.run_round(number, pair, last=plan.rounds)
        _raise_first_error(one for _, one in pair)
        rates.append((pair[0][1].rates[-1], pair[1][1].rates[-1]))
    ours, other = zip(*rates, strict=True)
    found = stats.paired_ratio(ours, other, processes=processes)
    if found is None:
        raise ValueError("a trial needs at least three rounds")
    return Ratio(baseline=pool.cells[0].case.key, value=found.value, low=found.low, high=found.high)
