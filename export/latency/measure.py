"""Measurement of the latency of a ViT's operators on a runtime of this machine, for `--target-latency`."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

from export.latency.operators import COPIES, Operator, operators
from export.latency.target import open_operator, quantizes_scores
from runtime.machine.facts import machine_facts
from runtime.runners.runtime_precision import RuntimePrecision
from vitnla.allocation.latency_model import LatencyModel, fit_terms
from vitnla.common.cache import cache_key, find_entry, new_entry
from vitnla.common.errors import InputError
from vitnla.model.config import ViTConfig

ROUNDS, ROUND_S = 12, 0.03
_KIND, _FILE, _FORMAT = "latency", "model.json", "2"
_log = logging.getLogger(__name__)
Progress = Callable[[int, int], None]


def cached_latency(
    config: ViTConfig, target: RuntimePrecision, batch: int, threads: int, on_progress: Progress = lambda done, total: None
) -> LatencyModel:
    """Return `measure_latency`, from the cache if measured before on this machine for blocks of this shape."""
    facts = machine_facts()
    shape = repr((config.dim, config.tokens, config.position.to_json(), sorted({block.to_json() for block in config.blocks})))
    where = f"{target.label} {target.version()} {facts['cpu']} {facts['cores_usable']}"
    key = cache_key(_FORMAT, where, shape, f"{batch} {threads}")
    if (folder := find_entry(_KIND, key)) is not None:
        return LatencyModel.read(folder / _FILE)
    model = measure_latency(config, target, batch, threads, on_progress)
    try:
        with new_entry(_KIND, key) as folder:
            (folder / _FILE).write_text(model.to_json())
    except InputError as error:
        _log.warning("the latency model is not cached: %s", error.message)
    return model


def measure_latency(
    config: ViTConfig, target: RuntimePrecision, batch: int, threads: int, on_progress: Progress = lambda done, total: None
) -> LatencyModel:
    """Fit a latency model to interleaved timings of operators of the sizes that a decomposition of `config` may have.

    Args:
        config: the dense model.
        target: the runtime and precision that are timed.
        batch: images at a time.
        threads: of the runtime.
        on_progress: called with the rounds done and their total.

    Raises:
        MissingDependencyError: the runtime is not installed.
    """
    found = list(operators(config, batch, int8=target.quantized, int8_scores=quantizes_scores(target)))
    measured = _time(found, target, threads, on_progress)
    prices: dict[str, tuple[float, ...]] = {}
    errors: list[float] = []
    for kind in ("linear", "attention", "activation"):
        at = [index for index, operator in enumerate(found) if operator.kind == kind]
        terms = np.array([found[index].terms for index in at], dtype=np.float64)
        prices[kind], left = fit_terms(terms, measured[at])
        errors.extend(left.tolist())
    return LatencyModel(
        runtime=f"{target.label} {target.version()}", processor=str(machine_facts()["cpu"]), threads=threads, batch=batch,
        error=float(np.median(errors)), **prices,
    )  # fmt: skip


def _time(found: list[Operator], target: RuntimePrecision, threads: int, on_progress: Progress) -> NDArray[np.float64]:
    """Return nanoseconds per copy of each operator: median over rounds of a round's mean, so that drift affects all equally."""
    calls = [open_operator(target, operator.graph, threads) for operator in found]
    for call in calls:
        call()
    rounds: list[list[float]] = [[] for _ in found]
    for done in range(ROUNDS):
        for call, times in zip(calls, rounds, strict=True):
            times.append(_mean_ns(call) / COPIES)
        on_progress(done + 1, ROUNDS)
    return np.asarray(np.median(rounds, axis=1), dtype=np.float64)


def _mean_ns(call: Callable[[], object]) -> float:
    count, start = 0, time.perf_counter_ns()
    while (elapsed := time.perf_counter_ns() - start) < ROUND_S * 1e9 or not count:
        call()
        count += 1
    return elapsed / count
