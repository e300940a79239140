"""Search for the best offline batch, and for the highest rate under a latency bound, before a cell is measured."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import replace

import numpy as np
import psutil
from numpy.typing import NDArray

from runtime.bench.plan import BenchPlan, Case
from runtime.process.client import Worker
from runtime.results.schema import BatchRate
from vitnla.common.errors import InputError, VitDeployError

_GROWTH, _PATIENCE = 1.03, 2
_QUERIES, _BISECTIONS = 20_000, 30
_LARGEST, _PROBE_S, _SEARCH_S = 512, 1.0, 120.0
_CALLS, _TRIES, _LOWER = 200, 8, 0.9

FloatArray = NDArray[np.float64]


def find_batch(plan: BenchPlan, case: Case) -> tuple[BatchRate, ...]:
    """Return the throughput at batch 1, 2, 4, ..., each in a process of its own, until it grows no more.

    It also ends where a batch cannot be run, where less memory is left than the last batch took (the next may take twice that), or
    after two minutes. A graph with a fixed batch is measured at that one only.

    Raises:
        VitDeployError: batch 1 could not be run.
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
    """Return images per second, and True if as much memory again is available."""
    with Worker(plan.timeout_s, plan.cpus) as worker:
        worker.bind()
        worker.load(case.target.runtime, case.bundle, plan.options(replace(case, batch=batch)))
        part = worker.measure("offline", min(_PROBE_S, plan.seconds), 3)
        held = psutil.Process(worker.pid).memory_info().rss
        return part.images_per_s, psutil.virtual_memory().available > held


def find_rate(plan: BenchPlan, worker: Worker) -> float:
    """Return the highest rate, queries/s, whose p99 stays within the plan's bound: estimated from single calls, confirmed by runs.

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
        part = worker.measure("server", seconds, _CALLS, rate, seed)
        if not part.unserved and float(np.percentile(part.samples_ms, 99)) <= bound:
            return rate
        rate *= _LOWER
    raise InputError(f"no rate kept p99 within {bound:g} ms in a run: the last was {rate / _LOWER:.3g}/s", "raise --p99-bound")


def best_batch(images_per_s: Callable[[int], float | None], largest: int) -> tuple[BatchRate, ...]:
    """Try batch sizes 1, 2, 4, ... until two doublings in a row have not gained 3 % over the best so far.

    Args:
        images_per_s: measures one batch size; None where it cannot be run (memory, time), which ends the search.
        largest: batch size not to go beyond.

    Returns:
        Every size tried with its throughput, in order; empty where not even batch 1 could be run.
    """
    tried: list[BatchRate] = []
    batch, best, idle = 1, 0.0, 0
    while batch <= largest and idle < _PATIENCE:
        rate = images_per_s(batch)
        if rate is None:
            break
        tried.append(BatchRate(batch=batch, images_per_s=rate))
        idle = 0 if rate > best * _GROWTH else idle + 1
        best = max(best, rate)
        batch *= 2
    return tuple(tried)


def queue_latencies(service_ms: Sequence[float], rate: float, seed: int = 0) -> FloatArray:
    """Simulate waiting plus service, in ms, of 20,000 queries that arrive as a Poisson process and are served in turn (Lindley 1952).

    Args:
        service_ms: measured times of single calls; the queue draws from them with replacement.
        rate: queries per second.
        seed: of the draws. One seed gives the same arrivals at every rate but for their scale, so latencies grow with the rate.
    """
    random = np.random.default_rng(seed)
    service = random.choice(np.asarray(service_ms, np.float64), _QUERIES)
    gaps = random.exponential(1000 / rate, _QUERIES - 1)
    walk = np.concatenate([[0.0], np.cumsum(service[:-1] - gaps)])
    return np.asarray(walk - np.minimum.accumulate(walk) + service, np.float64)


def highest_rate(service_ms: Sequence[float], p99_bound_ms: float) -> float | None:
    """Return the highest Poisson rate, queries/s, at which the simulated p99 stays within the bound; None where no rate does.

    It is an estimate, to be confirmed by a run: calls in succession may be quicker than calls after a pause.
    """
    if float(np.percentile(service_ms, 99)) > p99_bound_ms:
        return None
    low, high = 0.0, 1000 / float(np.mean(service_ms))
    for _ in range(_BISECTIONS):
        middle = (low + high) / 2
        within = float(np.percentile(queue_latencies(service_ms, middle), 99)) <= p99_bound_ms
        low, high = (middle, high) if within else (low, middle)
    return low or None
