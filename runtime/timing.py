"""The clock: how calls are timed, and when a warm-up is over. Raw samples are kept."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import TypeVar

T = TypeVar("T")
Clock = Callable[[], int]
"""Nanoseconds, monotonic."""

_STABLE, _WINDOWS = 1.10, 3


@dataclass(frozen=True)
class Timing:
    """Wall time of `count` calls, and of each of them where they were timed singly."""

    count: int
    elapsed_s: float
    samples_ms: tuple[float, ...] = ()


def time_calls(call: Callable[[], object], seconds: float, min_count: int, clock: Clock = time.perf_counter_ns) -> Timing:
    """Call again and again until both a minimum time and a minimum count are reached, and time each call."""
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
    """Offer `item` until both minima are reached, and time `consume`, which takes items as fast as it can, as a whole."""
    start, count = clock(), 0

    def offer() -> Iterator[T]:
        nonlocal count
        while clock() - start < seconds * 1e9 or count < min_count:
            count += 1
            yield item

    consume(offer())
    return Timing(count, (clock() - start) / 1e9)


def warm_up(
    call: Callable[[], object], window_s: float = 0.2, max_windows: int = 25, clock: Clock = time.perf_counter_ns
) -> bool:
    """Call until the mean times of the last three windows lie within 10 %; false if `max_windows` were not enough."""
    means: list[float] = []
    for _ in range(max_windows):
        window = time_calls(call, window_s, 3, clock)
        means.append(window.elapsed_s / window.count)
        recent = means[-_WINDOWS:]
        if len(recent) == _WINDOWS and max(recent) <= _STABLE * min(recent):
            return True
    return False
