"""The harness measured by what is known; the verdict on simulated rounds, where the truth is known exactly."""

from __future__ import annotations

import numpy as np
import pytest
from numpy.typing import NDArray

from runtime.bench.plan import Target
from runtime.bench.self_test import KnownQuantity, self_test
from runtime.bundle.schema import Bundle
from runtime.results import statistics as stats
from runtime.results.schema import Ratio
from runtime.runners.registry import runner_names

TRIALS = 400


def rates(
    random: np.random.Generator, rounds: int, noise: float, factor: float
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Throughputs of two cells: a common drift (random walk and trend), and heavy-tailed noise of each."""
    drift = np.cumsum(random.normal(0, 0.05, rounds)) + np.linspace(0, -0.3, rounds)
    own, other = (drift + noise * random.standard_t(3, rounds) for _ in range(2))
    return factor * np.exp(own), np.exp(other)


def verdicts(rounds: int, noise: float, factor: float, processes: int = 1, between: float = 0.0) -> list[str]:
    """Of trials in which every process has a speed of its own, apart by `between` in the logarithm."""
    found = []
    process = [number * processes // rounds for number in range(rounds)]
    for seed in range(TRIALS):
        random = np.random.default_rng(seed)
        ours, other = rates(random, rounds, noise, factor)
        ours, other = (part * np.exp(random.normal(0, between, processes))[process] for part in (ours, other))
        interval = stats.paired_ratio(ours.tolist(), other.tolist(), seed, process)
        assert interval is not None
        found.append(Ratio(baseline="itself", **interval._asdict()).verdict)
    return found


@pytest.mark.parametrize("rounds", [5, 10, 20])
@pytest.mark.parametrize("noise", [0.001, 0.02, 0.1])
def test_equals_are_no_difference(rounds: int, noise: float) -> None:
    """Well below the 5 % that the printed interval alone would give, so that 100 trials keep to 95 nearly always."""
    found = verdicts(rounds, noise, 1.0)
    assert found.count("faster") + found.count("slower") <= 0.03 * TRIALS
    if noise < 0.1:
        assert found.count("no difference") >= 0.95 * TRIALS


def test_few_noisy_rounds_are_inconclusive_and_more_rounds_mend_it() -> None:
    few, many = (verdicts(rounds, 0.1, 1.0).count("inconclusive") for rounds in (5, 40))
    assert few >= 0.7 * TRIALS
    assert many <= 0.1 * TRIALS


@pytest.mark.parametrize(("factor", "verdict"), [(1.1, "faster"), (1 / 1.1, "slower")])
@pytest.mark.parametrize("processes", [1, 5])
def test_a_real_difference_of_ten_percent_is_found(factor: float, verdict: str, processes: int) -> None:
    assert verdicts(10, 0.02, factor, processes).count(verdict) >= 0.9 * TRIALS


def test_what_a_process_draws_for_life_needs_several_of_them() -> None:
    """Seen on two cores of a shared EPYC: pairs of equal processes apart by 2 to 5 % in every round, trial after trial."""
    assert verdicts(10, 0.005, 1.0, processes=1, between=0.016).count("no difference") < 0.7 * TRIALS
    assert verdicts(10, 0.005, 1.0, processes=5, between=0.016).count("no difference") >= 0.97 * TRIALS


def test_what_is_known_is_held_to_three_percent() -> None:
    assert KnownQuantity.of("latency_ms", 20, 20.5).ok
    assert not KnownQuantity.of("latency_ms", 20, 20.7).ok
    assert not KnownQuantity.of("latency_ms", 20, 19.3).ok


def test_the_self_test_runs_and_its_runner_is_on_no_list(tiny_bundle: Bundle, fake_runners: list[str]) -> None:
    """How it comes out depends on the machine: that is for `vitdeploy bench --self-test` to say. Memory does not."""
    found = self_test(tiny_bundle, Target("quick"), threads=1, trials=2, rounds=3, seconds=0.03)
    assert (found.aa_trials, len(found.aa_ratios), len(found.known)) == (2, 2, 3)
    assert 0 <= found.aa_no_difference <= 2
    assert found.known[0].measured >= 20
    assert found.known[2].ok
    assert "fixed-delay" not in runner_names()
