"""What a scenario searches for before it measures: the best batch, and the highest rate under a latency bound. No I/O here."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
from numpy.typing import NDArray

from runtime.results.schema import BatchRate

_GROWTH, _PATIENCE = 1.03, 2
_QUERIES, _BISECTIONS = 20_000, 30

FloatArray = NDArray[np.float64]


def best_batch(images_per_s: Callable[[int], float | None], largest: int) -> tuple[BatchRate, ...]:
    """Try batch sizes 1, 2, 4, ... until two doublings in a row have not brought 3 % more than the best so far.

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
    """Waiting plus service, in ms, of 20,000 queries that arrive as a Poisson process and are served one by one (Lindley 1952).

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
    """The highest Poisson rate, queries/s, at which the simulated p99 stays within the bound; None where no rate does.

    It is a first estimate, to be confirmed by a run: calls that follow one another may be quicker than calls after a pause.
    """
    if float(np.percentile(service_ms, 99)) > p99_bound_ms:
        return None
    low, high = 0.0, 1000 / float(np.mean(service_ms))
    for _ in range(_BISECTIONS):
        middle = (low + high) / 2
        within = float(np.percentile(queue_latencies(service_ms, middle), 99)) <= p99_bound_ms
        low, high = (middle, high) if within else (low, middle)
    return low or None
