"""The stop rules, on a clock that the tests turn by hand."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import pairwise

import pytest

from runtime.bench.timing import poisson_arrivals, time_arrivals, time_calls, time_stream, warm_up


class FakeClock:
    """Nanoseconds; each call of the work takes the next of `milliseconds`, the last one for ever."""

    def __init__(self, *milliseconds: float) -> None:
        self.now, self.calls, self._costs = 0, 0, milliseconds

    def __call__(self) -> int:
        return self.now

    def wait_until(self, deadline: int) -> None:
        self.now = max(self.now, deadline)

    def work(self) -> None:
        self.now += int(1e6 * self._costs[min(self.calls, len(self._costs) - 1)])
        self.calls += 1


@pytest.mark.parametrize(("seconds", "min_count", "expected"), [(0.1, 3, 10), (0.01, 5, 5), (0.095, 1, 10), (0.0, 1, 1)])
def test_calls_go_on_until_both_minima_are_reached(seconds: float, min_count: int, expected: int) -> None:
    clock = FakeClock(10)
    timing = time_calls(clock.work, seconds, min_count, clock)
    assert (timing.count, timing.samples_ms) == (expected, (10.0,) * expected)
    assert timing.elapsed_s == pytest.approx(0.01 * expected)


def test_each_call_is_timed_by_itself() -> None:
    clock = FakeClock(1, 2, 4)
    assert time_calls(clock.work, 0, 3, clock).samples_ms == (1.0, 2.0, 4.0)


def test_a_stream_is_timed_as_a_whole() -> None:
    clock = FakeClock(10)
    seen = []

    def consume(items: Iterator[str]) -> None:
        for item in items:
            seen.append(item)
            clock.work()

    timing = time_stream(consume, "x", 0.1, 3, clock)
    assert (timing.count, seen) == (10, ["x"] * 10)
    assert timing.elapsed_s == pytest.approx(0.1)
    assert timing.samples_ms == ()


def test_warm_up_ends_when_three_windows_agree() -> None:
    clock = FakeClock(*[90] * 3, *[50] * 3, 10)
    assert warm_up(clock.work, 0.0, 25, clock)
    assert clock.calls == 3 + 3 + 9


def test_warm_up_that_never_settles_is_bounded() -> None:
    clock = FakeClock(*[2.0**step for step in range(30)])
    assert not warm_up(clock.work, 0.0, 4, clock)
    assert clock.calls == 12


def test_latency_runs_from_the_arrival_so_that_queueing_is_seen() -> None:
    clock = FakeClock(10)
    timing = time_arrivals(clock.work, [0.0, 0.002, 0.004, 0.100], 1.0, clock, clock.wait_until)
    assert timing.samples_ms == pytest.approx((10, 18, 26, 10))
    assert timing.busy_s == pytest.approx(0.04)
    assert timing.elapsed_s == pytest.approx(0.110)
    assert (timing.count, timing.unserved) == (4, 0)


def test_a_queue_that_only_grows_is_cut_off_and_counted() -> None:
    clock = FakeClock(10)
    timing = time_arrivals(clock.work, [number / 1000 for number in range(100)], 0.2, clock, clock.wait_until)
    assert (timing.count, timing.unserved) == (21, 79)


def test_arrivals_are_a_poisson_process_with_both_minima() -> None:
    times = poisson_arrivals(50, 100.0, 1, seed=3)
    gaps = [later - earlier for earlier, later in pairwise(times)]
    mean = sum(gaps) / len(gaps)
    assert mean == pytest.approx(1 / 50, rel=0.05)
    assert sum((gap - mean) ** 2 for gap in gaps) / len(gaps) == pytest.approx(mean**2, rel=0.1)
    assert times[-1] < 100
    assert len(poisson_arrivals(50, 0.0, 7, seed=3)) == 7
    assert times == poisson_arrivals(50, 100.0, 1, seed=3) != poisson_arrivals(50, 100.0, 1, seed=4)
