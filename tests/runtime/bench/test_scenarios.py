"""Multi-stream, server and searched offline: on a clockless simulation, and on runners of known time."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from runtime.bench.run import run_bench
from runtime.bench.search import best_batch, highest_rate, queue_latencies
from runtime.bundle.schema import Bundle
from runtime.process.affinity import usable_cpus
from tests.runtime.bench.test_bench import plan
from vitnla.common.errors import InputError


def test_the_search_ends_when_throughput_grows_no_more() -> None:
    tried = best_batch(lambda batch: 100.0 * min(batch, 4), 512)
    assert [(one.batch, one.images_per_s) for one in tried] == [(1, 100), (2, 200), (4, 400), (8, 400), (16, 400)]
    assert len(best_batch(lambda batch: 100.0 * batch, 8)) == 4
    assert [one.batch for one in best_batch(lambda batch: None if batch > 2 else float(batch), 512)] == [1, 2]


@pytest.mark.parametrize("load", [0.3, 0.7])
def test_the_simulated_queue_is_that_of_theory(load: float) -> None:
    """M/D/1: the mean wait is load x service / (2 (1 - load)) (Pollaczek-Khinchine)."""
    latencies = queue_latencies([10.0], load * 100, seed=1)
    assert float(np.mean(latencies)) == pytest.approx(10 + load * 10 / (2 * (1 - load)), rel=0.08)
    assert float(np.min(latencies)) >= 10 - 1e-6


def test_the_highest_rate_keeps_the_bound_and_a_higher_one_does_not() -> None:
    service = [8.0, 9.0, 10.0, 12.0]
    rate = highest_rate(service, 40.0)
    assert rate is not None
    assert 30 < rate < 100
    assert np.percentile(queue_latencies(service, rate), 99) <= 40 < np.percentile(queue_latencies(service, 1.05 * rate), 99)
    assert highest_rate(service, 11.0) is None


def test_multi_stream_times_each_call_of_eight(tiny_bundle: Bundle, fake_runners: list[str]) -> None:
    (found,) = run_bench(replace(plan(tiny_bundle, runtimes=("nap",), batches=(8,)), scenario="multi-stream"))
    assert (found.batch, found.error) == (8, None)
    assert found.latency_ms is not None
    assert found.images_per_s == pytest.approx(8000 * len(found.samples_ms) / sum(found.samples_ms))


def test_offline_finds_a_batch_and_a_batch_too_large_only_ends_the_search(tiny_bundle: Bundle, fake_runners: list[str]) -> None:
    chosen = replace(plan(tiny_bundle, runtimes=("small",)), batches=(), scenario="offline", cpus=usable_cpus()[:1])
    (found,) = run_bench(chosen)
    assert found.error is None
    assert [one.batch for one in found.batch_search] == [1, 2, 4]
    assert found.batch == max(found.batch_search, key=lambda one: one.images_per_s).batch
    assert found.cpus == usable_cpus()[:1]


def test_server_at_a_rate_counts_the_queue(tiny_bundle: Bundle, fake_runners: list[str]) -> None:
    calm, wild = (
        run_bench(replace(plan(tiny_bundle, runtimes=("nap", "quick"), batches=(1,)), scenario="server", rate=rate, seconds=0.3))
        for rate in (50.0, 2000.0)
    )
    slow, quick = calm
    assert slow.server is not None
    assert slow.server.rate == 50
    assert 0.05 < slow.server.utilisation < 0.5
    assert slow.server.met is None
    assert min(slow.samples_ms) >= 2
    assert len(slow.rounds_latency_ms) == 3
    assert quick.ratio is not None
    assert (quick.ratio.of, quick.ratio.baseline) == ("latency", slow.key)
    assert quick.ratio.value > 1
    drowned = wild[0]
    assert drowned.server is not None
    assert drowned.server.utilisation > 1
    assert drowned.server.overloaded
    assert any("the queue grows without bound" in warning for warning in drowned.warnings)
    assert wild[1].ratio is None


def test_server_searches_the_rate_within_a_bound(tiny_bundle: Bundle, fake_runners: list[str]) -> None:
    chosen = replace(
        plan(tiny_bundle, runtimes=("nap",), batches=(1,)), scenario="server", p99_bound_ms=200.0, seconds=0.6, min_count=30
    )
    (found,) = run_bench(chosen)
    assert found.server is not None
    assert found.server.searched
    assert 50 < found.server.rate < 500
    assert len(found.samples_ms) >= 1000
    assert found.server.met is not None
    assert found.ratio is None
    with pytest.raises(InputError, match="no rate keeps p99 within 1 ms: single calls have"):
        run_bench(replace(chosen, p99_bound_ms=1.0))
