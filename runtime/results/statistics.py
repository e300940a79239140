"""Statistics of measurements: pure functions on arrays of numbers."""

from __future__ import annotations

import math
from collections.abc import Hashable, Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from scipy.special import ndtr, stdtrit
from scipy.stats import binomtest

from runtime.results.schema import Latency

_TAIL_SAMPLES = 10
_LEAST_UNITS = 3
_RESAMPLES = 10_000
_Z95 = 1.959963984540054
MAX_VARIATION, MAX_DRIFT = 0.025, 0.05
"""Limits above which a measurement is called unsteady. That of variation is trtexec's."""


class Interval(NamedTuple):
    """A value and the ends of its confidence interval, 95 % unless said otherwise."""

    value: float
    low: float
    high: float


def percentile(samples: Sequence[float], q: float) -> float | None:
    """Return the q-th percentile (linear interpolation), or None where fewer than ten samples are expected beyond it.

    Ten in the tail is our own rule: p90 needs 100 samples, p99 needs 1,000. MLPerf Inference is stricter (p90: 24,576;
    p99: 270,336, for 99 % confidence), so our figures are "MLPerf-style", never MLPerf's.
    """
    return None if len(samples) < samples_for(q) else float(np.percentile(samples, q))


def samples_for(q: float) -> int:
    """Return the number of samples that support the q-th percentile."""
    return math.ceil(round(100 * _TAIL_SAMPLES / (100 - q), 6))  # rounded: 100 - 99.9 is not exactly 0.1


def latency(samples_ms: Sequence[float]) -> Latency | None:
    """Return median and tails of latencies in milliseconds; None without samples. A median is given for any number of them."""
    if not samples_ms:
        return None
    return Latency(p50=float(np.median(samples_ms)), p90=percentile(samples_ms, 90), p99=percentile(samples_ms, 99))


def paired_ratio(
    ours: Sequence[float], baseline: Sequence[float], seed: int = 0, processes: Sequence[Hashable] = ()
) -> Interval | None:
    """Return the geometric mean of ours / baseline over interleaved rounds, with a bootstrap 95 % interval; None below three rounds.

    Rounds are resampled in pairs, so what slows a whole round (a neighbour, a clock) cancels. What is constant for a process, such
    as the placement of its memory, does not: rounds of the same two processes are therefore one unit, their mean, where there are at
    least three such pairs (Kalibera and Jones 2013, "Rigorous Benchmarking in Reasonable Time", section 4). The interval is the
    expanded percentile one of Hesterberg (2015, "What Teachers Should Know About the Bootstrap", section 4.3), which makes up for
    the narrowness of plain percentiles in samples as small as ten.

    Args:
        ours: throughput of each round, positive.
        baseline: throughput of the baseline in the same rounds.
        seed: of the resampling.
        processes: the pair of processes of each round; empty where all rounds have the same.
    """
    if len(ours) != len(baseline) or (processes and len(processes) != len(ours)):
        raise ValueError(f"expected as many rounds of both, got {len(ours)} and {len(baseline)} in {len(processes)} processes")
    if len(ours) < _LEAST_UNITS:
        return None
    logs = _units(np.log(np.asarray(ours, np.float64) / np.asarray(baseline, np.float64)), processes)
    units = len(logs)
    picks = np.random.default_rng(seed).integers(units, size=(_RESAMPLES, units))
    means = logs[picks].mean(axis=1)
    tail = float(ndtr(math.sqrt(units / (units - 1)) * stdtrit(units - 1, 0.025)))
    low, high = np.quantile(means, [tail, 1 - tail])
    return Interval(math.exp(logs.mean()), math.exp(low), math.exp(high))


def _units(logs: NDArray[np.float64], processes: Sequence[Hashable]) -> NDArray[np.float64]:
    """Return one value per process where there are at least `_LEAST_UNITS` processes, else one per round."""
    own = {process: [log for log, other in zip(logs, processes, strict=True) if other == process] for process in processes}
    return logs if len(own) < _LEAST_UNITS else np.array([np.mean(part) for part in own.values()])


def wilson(successes: int, trials: int) -> Interval:
    """Return a proportion with its 95 % score interval (Wilson 1927), which stays inside [0, 1] and is sound near the ends."""
    if not 0 <= successes <= trials or not trials:
        raise ValueError(f"expected 0 <= successes <= trials and trials > 0, got {successes} of {trials}")
    share, z2 = successes / trials, _Z95**2
    centre = (share + z2 / (2 * trials)) / (1 + z2 / trials)
    half = _Z95 / (1 + z2 / trials) * math.sqrt(share * (1 - share) / trials + z2 / (4 * trials**2))
    return Interval(share, max(0.0, centre - half), min(1.0, centre + half))


def mcnemar(lost: int, gained: int) -> float:
    """Return the p-value of McNemar's exact test (1947; two-sided binomial on the discordant pairs) that both models are equally often right.

    Args:
        lost: images that the one model has right and the other wrong.
        gained: the reverse.
    """
    discordant = lost + gained
    return float(binomtest(lost, discordant, 0.5).pvalue) if discordant else 1.0


def chance_warning(correct: int, images: int, classes: int) -> str | None:
    """Return a warning for a top-1 at chance level (1/classes is not below its interval); `None` otherwise.

    Args:
        correct: images that got their label, of `images`.
        classes: among how many classes each answer was chosen.
    """
    if classes < 2 or not images or wilson(correct, images).low > 1 / classes:
        return None
    return (
        f"top-1 of {correct / images:.2%} on {images:,} images is no better than chance ({1 / classes:.2%} for {classes} classes): "
        "check the order of the classes, the pooling, the preprocessing (mean, deviation, crop) and the image size, "
        "or whether the model is trained at all"
    )


def calibration_error(confidence: NDArray[np.float64], right: NDArray[np.bool_], bins: int = 15) -> float:
    """Return the expected calibration error (Guo et al. 2017, eq. 5): |accuracy - mean confidence| averaged over equal-width bins.

    Args:
        confidence: [N] probability of the predicted class, in [0, 1].
        right: [N], True where that class is the label.
        bins: of equal width.
    """
    place = np.minimum((confidence * bins).astype(np.int64), bins - 1)
    gap = np.bincount(place, right.astype(np.float64) - confidence, minlength=bins)
    return float(np.abs(gap).sum() / len(confidence))


def variation(samples: Sequence[float]) -> float | None:
    """Return the coefficient of variation, sample standard deviation / mean; None below two samples."""
    return float(np.std(samples, ddof=1) / np.mean(samples)) if len(samples) > 1 else None


def drift(samples: Sequence[float]) -> float | None:
    """Return the relative change from the mean of the first third to that of the last; None below three samples."""
    third = len(samples) // 3
    return float(np.mean(samples[-third:]) / np.mean(samples[:third]) - 1) if third else None


class Unsteadiness(NamedTuple):
    """Variation and drift of a measurement that are over their limits; None where within the limit, or not known."""

    variation: float | None
    drift: float | None


def unsteadiness(samples_ms: Sequence[float], rates: Sequence[float]) -> Unsteadiness:
    """Return the variation of latencies (of rates without these) if above `MAX_VARIATION`, and the drift of rates if above `MAX_DRIFT`."""
    varied, drifted = variation(samples_ms or rates), drift(rates)
    return Unsteadiness(
        varied if varied is not None and varied > MAX_VARIATION else None,
        drifted if drifted is not None and abs(drifted) > MAX_DRIFT else None,
    )
