"""Statistics against brute force and against textbook values."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import binomtest

from runtime.results import statistics as stats


@pytest.mark.parametrize(
    ("count", "p90", "p99"), [(99, False, False), (100, True, False), (999, True, False), (1000, True, True)]
)
def test_no_percentile_that_the_sample_cannot_support(count: int, p90: bool, p99: bool) -> None:
    found = stats.latency(list(range(count)))
    assert found is not None
    assert (found.p90 is not None, found.p99 is not None) == (p90, p99)


def test_no_samples_have_no_latency() -> None:
    assert stats.latency([]) is None


@settings(deadline=None)
@given(st.lists(st.floats(0.01, 1e4), min_size=100, max_size=300))
def test_percentiles_bound_the_right_share(samples: list[float]) -> None:
    found = stats.latency(samples)
    assert found is not None
    assert found.p90 is not None
    ordered = sorted(samples)
    assert ordered[math.floor(0.9 * (len(ordered) - 1))] <= found.p90 <= ordered[math.ceil(0.9 * (len(ordered) - 1))]
    assert min(samples) <= found.p50 <= found.p90


@settings(deadline=None)
@given(st.integers(1, 400), st.data())
def test_wilson_equals_scipy(trials: int, data: st.DataObject) -> None:
    successes = data.draw(st.integers(0, trials))
    ours = stats.wilson(successes, trials)
    theirs = binomtest(successes, trials).proportion_ci(method="wilson")
    assert ours == pytest.approx((successes / trials, theirs.low, theirs.high), abs=1e-12)


def test_wilson_refuses_impossible_counts() -> None:
    for successes, trials in ((1, 0), (3, 2), (-1, 2)):
        with pytest.raises(ValueError, match="successes"):
            stats.wilson(successes, trials)


def test_ratio_of_equal_pairs_is_exact_whatever_the_rounds_do() -> None:
    baseline = [10.0, 50.0, 3.0, 100.0]
    found = stats.paired_ratio([1.5 * rate for rate in baseline], baseline)
    assert found == pytest.approx((1.5, 1.5, 1.5))


def test_ratio_is_reproducible_and_inverts() -> None:
    ours, baseline = [1.0, 1.3, 0.9, 1.2, 1.1], [1.0, 1.1, 1.0, 0.9, 1.2]
    there, back = stats.paired_ratio(ours, baseline), stats.paired_ratio(baseline, ours)
    assert there is not None
    assert back is not None
    assert there == stats.paired_ratio(ours, baseline)
    assert there.low < there.value < there.high
    # The same resamples are drawn both ways, so the ends swap; quantiles are interpolated in the logarithm.
    assert (back.value, back.low, back.high) == pytest.approx((1 / there.value, 1 / there.high, 1 / there.low))


def test_two_rounds_have_no_ratio_and_unequal_ones_are_an_error() -> None:
    assert stats.paired_ratio([1.0, 2.0], [1.0, 2.0]) is None
    with pytest.raises(ValueError, match="as many rounds"):
        stats.paired_ratio([1.0, 2.0, 3.0], [1.0, 2.0])
    with pytest.raises(ValueError, match="as many rounds"):
        stats.paired_ratio([1.0, 2.0, 3.0], [1.0, 2.0, 3.0], processes=(0, 1))


def test_rounds_of_the_same_processes_are_one_unit() -> None:
    """Six rounds in three processes weigh as their three means; two processes are too few to tell how they differ."""
    ours, baseline = [1.0, 1.2, 2.0, 2.2, 3.0, 3.3], [1.0] * 6
    means = [math.sqrt(ours[place] * ours[place + 1]) for place in (0, 2, 4)]
    assert stats.paired_ratio(ours, baseline, processes="aabbcc") == pytest.approx(stats.paired_ratio(means, [1.0] * 3))
    assert stats.paired_ratio(ours, baseline, processes="aaabbb") == stats.paired_ratio(ours, baseline)


def test_the_interval_covers_the_truth_about_95_times_in_100() -> None:
    """With ten rounds of noise, where plain percentiles would cover about 90 %."""
    random = np.random.default_rng(1)
    hits, trials = 0, 300
    for _ in range(trials):
        found = stats.paired_ratio(np.exp(random.normal(0.2, 0.05, 10)).tolist(), [1.0] * 10)
        assert found is not None
        hits += found.low <= math.exp(0.2) <= found.high
    assert 0.92 <= hits / trials <= 0.98


@pytest.mark.parametrize(("q", "count"), [(50, 20), (90, 100), (99, 1000), (99.9, 10000)])
def test_a_percentile_needs_ten_samples_beyond_it(q: float, count: int) -> None:
    assert stats.samples_for(q) == count
    assert stats.percentile([1.0] * (count - 1), q) is None
    assert stats.percentile([1.0] * count, q) == 1


def test_variation_and_drift() -> None:
    assert stats.variation([1.0, 2.0, 3.0]) == pytest.approx(0.5)
    assert stats.variation([1.0]) is None
    assert stats.drift([1.0, 1.0, 5.0, 5.0, 1.2, 1.2]) == pytest.approx(0.2)
    assert stats.drift([1.0, 2.0]) is None


def test_mcnemar_is_the_binomial_on_what_differs() -> None:
    assert stats.mcnemar(0, 0) == 1
    assert stats.mcnemar(5, 5) == 1
    assert stats.mcnemar(0, 5) == pytest.approx(2 * 0.5**5)
    assert stats.mcnemar(30, 10) == stats.mcnemar(10, 30) < 0.01


def test_calibration_error_of_known_bins() -> None:
    sure, right = np.array([0.95] * 4 + [0.55] * 2), np.array([True, True, True, False, True, False])
    # Two bins: 0.95 sure and 0.75 right of four images, 0.55 sure and 0.5 right of two.
    assert stats.calibration_error(sure, right) == pytest.approx((4 * 0.2 + 2 * 0.05) / 6)
    assert stats.calibration_error(np.ones(3), np.ones(3, bool)) == 0
