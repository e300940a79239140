"""Time calls, keeping the raw samples, and decide when a warm-up is over."""

from __future__ import annotations

import random
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import TypeVar

T = TypeVar("T")
Clock = Callable[[], int]
"""Nanoseconds, monotonic."""

PROCESSES = 5
"""Processes of each cell, in succession, wherever a ratio is quoted: two of one program may differ by some percent for life."""
_STABLE, _WINDOWS = 1.10, 3
_SPIN_NS = 1_000_000  # a sleep may overshoot by a tenth of a millisecond: the last one is waited for awake


@dataclass(frozen=True)
class Timing:
    """Wall time of `count` calls, and of each call where they were timed singly."""

    count: int
    elapsed_s: float
    samples_ms: tuple[float, ...] = ()
    busy_s: float = 0.0
    """Seconds spent in calls, of a timed queue."""
    unserved: int = 0
    """Arrivals whose call had not begun at the time limit, of a timed queue."""


def time_calls(call: Callable[[], object], seconds: float, min_count: int, clock: Clock = time.perf_counter_ns) -> Timing:
    """Call until both a minimum time and a minimum count are reached, and time each call."""
    samples: list[int] = []
    start = before = clock()
    while before - start < seconds * 1e9 or len(samples) < min_count:
        call()
        after = clock()
        samples.append(after - before)
        before = after
    return Timing(len(samples), (before - start) / 1e9, tuple(sample / 1e6 for sample in samples))


def time_stream(
    consume: Callable[[Iterator[T]], object], item: T, seconds: float, min_count: int, clock: Clock = time.perf_counter_ns
) -> Timing:
    """Offer `item` to `consume` until both minima are reached, and time the whole; `consume` takes items as fast as it can."""
    start, count = clock(), 0

    def offer() -> Iterator[T]:
        nonlocal count
        while clock() - start < seconds * 1e9 or count < min_count:
            count += 1
            yield item

    consume(offer())
    return Timing(count, (clock() - start) / 1e9)


def sleep_until(deadline: int) -> None:
    """Return at `deadline`, ns of `perf_counter_ns`, or at once where that is past."""
    if (left := deadline - time.perf_counter_ns() - _SPIN_NS) > 0:
        time.sleep(left / 1e9)
    while time.perf_counter_ns() < deadline:
        pass


def time_arrivals(
    call: Callable[[], object],
    arrivals_s: Sequence[float],
    limit_s: float,
    clock: Clock = time.perf_counter_ns,
    wait_until: Callable[[int], None] = sleep_until,
) -> Timing:
    """Serve queries in turn as they arrive. A latency counts from the scheduled arrival, so it includes the time in the queue.

    Args:
        call: serves one query.
        arrivals_s: when each query arrives, seconds from now, ascending.
        limit_s: no call begins later than this: an overloaded queue would take for ever to empty.
        clock: nanoseconds.
        wait_until: waits for a time of `clock`.
    """
    samples: list[int] = []
    start, busy = clock(), 0
    for offset in arrivals_s:
        arrival = start + int(offset * 1e9)
        wait_until(arrival)
        begun = clock()
        if begun - start > limit_s * 1e9:
            break
        call()
        ended = clock()
        busy += ended - begun
        samples.append(ended - arrival)
    latencies = tuple(sample / 1e6 for sample in samples)
    return Timing(len(samples), (clock() - start) / 1e9, latencies, busy / 1e9, len(arrivals_s) - len(samples))


def poisson_arrivals(rate: float, seconds: float, min_count: int, seed: int) -> list[float]:
    """Return times in seconds, ascending, of a Poisson process of `rate` per second: those before `seconds`, and at least `min_count`."""
    generator, times, now = random.Random(seed), list[float](), 0.0
    while True:
        now += generator.expovariate(rate)
        if now >= seconds and len(times) >= min_count:
            return times
        times.append(now)


def warm_up(
    call: Callable[[], object], window_s: float = 0.2, max_windows: int = 25, clock: Clock = time.perf_counter_ns
) -> bool:
    """Call until the mean times of the last three windows lie within 10 %; return False if `max_windows` were not enough."""
    means: list[float] = []
    for _ in range(max_windows):
        window = time_calls(call, window_s, 3, clock)
        means.append(window.elapsed_s / window.count)
        recent = means[-_WINDOWS:]
        if len(recent) == _WINDOWS and max(recent) <= _STABLE * min(recent):
            return True
    return False
