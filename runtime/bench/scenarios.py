"""The searches of `runtime.bench.search` on real workers: the best offline batch, the highest rate within a latency bound."""

from __future__ import annotations

import time
from dataclasses import replace

import numpy as np
import psutil

from runtime.bench.plan import BenchPlan, Case
from runtime.bench.search import best_batch, highest_rate
from runtime.process.client import Worker
from runtime.results.schema import BatchRate
from vitnla.common.errors import InputError, VitDeployError

_LARGEST, _PROBE_S, _SEARCH_S = 512, 1.0, 120.0
_CALLS, _TRIES, _LOWER = 200, 8, 0.9


def find_batch(plan: BenchPlan, case: Case) -> tuple[BatchRate, ...]:
    """Throughput at batch 1, 2, 4, ..., each in a process of its own, until it grows no more.

    It ends as well where a batch cannot be run, where the memory left is less than what the last batch took (the next may take
    twice that), or after two minutes. A graph whose batch is fixed has no other.

    Raises:
        VitDeployError: what batch 1 ran into.
    """
    if case.bundle.fixed_batch is not None:
        return (BatchRate(batch=case.bundle.fixed_batch, images_per_s=_throughput(plan, case, case.bundle.fixed_batch)[0]),)
    start, room, failures = time.monotonic(), True, list[VitDeployError]()

    def measure(batch: int) -> float | None:
        nonlocal room
        if not room or time.monotonic() - start > _SEARCH_S:
            return None
        try:
            rate, room = _throughput(plan, case, batch)
        except VitDeployError as error:
            failures.append(error)
            return None
        return rate

    tried = best_batch(measure, _LARGEST)
    if not tried:
        raise failures[0]
    return tried


def _throughput(plan: BenchPlan, case: Case, batch: int) -> tuple[float, bool]:
    """Images per second, and whether there is memory for as much again."""
    with Worker(plan.timeout_s, plan.cpus) as worker:
        worker.bind()
        worker.load(case.target.runtime, case.bundle, plan.options(replace(case, batch=batch)))
        found = worker.measure("offline", min(_PROBE_S, plan.seconds), 3)
        held = psutil.Process(worker.pid).memory_info().rss
        return found.images_per_s, psutil.virtual_memory().available > held


def find_rate(plan: BenchPlan, worker: Worker) -> float:
    """The highest rate, queries/s, whose p99 stays within the plan's bound: estimated from single calls, then confirmed by runs.

    A rate that a run does not confirm is lowered by a tenth.

    Raises:
        InputError: a single call already takes longer, or no rate was confirmed.
    """
    bound = plan.p99_bound_ms
    if bound is None:
        raise ValueError("a rate is searched for under a bound")
    seconds = max(_PROBE_S, plan.seconds / plan.rounds)
    service = worker.measure("single-stream", seconds, _CALLS).samples_ms
    rate = highest_rate(service, bound)
    if rate is None:
        alone = float(np.percentile(service, 99))
        raise InputError(f"no rate keeps p99 within {bound:g} ms: single calls have {alone:.3g} ms", "raise --p99-bound")
    for seed in range(_TRIES):
        found = worker.measure("server", seconds, _CALLS, rate, seed)
        if not found.unserved and float(np.percentile(found.samples_ms, 99)) <= bound:
            return rate
        rate *= _LOWER
    raise InputError(f"no rate kept p99 within {bound:g} ms in a run: the last was {rate / _LOWER:.3g}/s", "raise --p99-bound")
