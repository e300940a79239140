"""A quick bench of tiny bundles."""

from __future__ import annotations

from runtime.bench.plan import BenchPlan, Target
from runtime.bundle.schema import Bundle


def plan(*bundles: Bundle, runtimes: tuple[str, ...] = ("quick",), batches: tuple[int, ...] = (2,)) -> BenchPlan:
    """Three short rounds of each bundle on each runtime, one thread."""
    targets = tuple(Target(name) for name in runtimes)
    return BenchPlan(bundles, targets, batches, threads=1, seconds=0.03, min_count=6, rounds=3, timeout_s=20)
