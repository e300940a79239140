"""Targets of operator timing: a runtime, and the precision of the model on it."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import onnx

from export.precision.runtimes.registry import quantizer
from runtime.runners.base import GraphRunner
from runtime.runners.registry import known_traits, runner
from runtime.runners.runtime_precision import RuntimePrecision
from vitnla.common.errors import unknown_name


def latency_targets() -> tuple[RuntimePrecision, ...]:
    """Return every runtime and precision that operators can be timed on."""
    return tuple(
        RuntimePrecision(name, precision) for name, traits in known_traits().items() for precision in traits.timed_precisions
    )


def parse_latency_target(text: str) -> RuntimePrecision:
    """Parse a target such as `ort`, `ort:int8`, `openvino:bf16`.

    Raises:
        InputError: the target is not one of `latency_targets`; lists them.
    """
    known = {target.label: target for target in latency_targets()}
    if text not in known:
        raise unknown_name("target of latency", text, known)
    return known[text]


def quantizes_scores(target: RuntimePrecision) -> bool:
    """Return whether the target's quantiser quantises Q K^T too; what it leaves in float is timed in float."""
    return target.quantized and quantizer(target.runtime).quantizes_scores


def open_operator(target: RuntimePrecision, graph: onnx.ModelProto, threads: int) -> Callable[[], object]:
    """Return a function that runs `graph` once on random inputs, with the session options of bundles.

    Raises:
        TypeError: the runtime's traits name timed precisions, but its runner opens no graphs.
    """
    made = runner(target.runtime)
    if not isinstance(made, GraphRunner):
        raise TypeError(f"runtime '{target.runtime}' can be timed by its traits, but its runner has no `open_graph`")
    rng = np.random.default_rng(0)
    feed = {
        given.name: rng.standard_normal([side.dim_value for side in given.type.tensor_type.shape.dim], np.float32)
        for given in graph.graph.input
    }
    return made.open_graph(graph.SerializeToString(), feed, target.precision, threads)
