"""Measures what a ViT's operators cost in ONNX Runtime on this machine, for `--target-latency`."""

from __future__ import annotations

import itertools
import logging
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from importlib.metadata import version
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper

from runtime.machine import machine_facts
from runtime.runners.ort import session_options
from vitnla.allocation.latency import LatencyModel, activation_terms, attention_terms, fit_terms, linear_terms
from vitnla.common.cache import cache_key, find_entry, new_entry
from vitnla.common.errors import InputError
from vitnla.model.config import BlockConfig, ViTConfig

ROUNDS, ROUND_S = 12, 0.03
_COPIES = 4
"""Equal operators in one graph, each with its own weights: what one call of a session costs by itself is shared among them."""
_SHARES = (0.25, 0.5, 0.75, 1.0)
_KIND, _FILE, _FORMAT = "latency", "model.json", "1"
_OPSET, _IR = 20, 10
_log = logging.getLogger(__name__)
Progress = Callable[[int, int], None]


@dataclass(frozen=True)
class Operator:
    """Something to measure: a graph with `_COPIES` of it, and the terms that its time is made of."""

    kind: str
    terms: tuple[float, ...]
    graph: onnx.ModelProto


def cached_latency(config: ViTConfig, batch: int, threads: int, on_progress: Progress = lambda done, total: None) -> LatencyModel:
    """What `measure_latency` returns, from the cache where it was measured before on this machine for blocks of this shape."""
    facts = machine_facts()
    shape = repr((config.dim, config.tokens, sorted({block.to_json() for block in config.blocks})))
    key = cache_key(_FORMAT, version("onnxruntime"), str(facts["cpu"]), str(facts["cores_usable"]), shape, f"{batch} {threads}")
    if (folder := find_entry(_KIND, key)) is not None:
        return LatencyModel.read(folder / _FILE)
    model = measure_latency(config, batch, threads, on_progress)
    try:
        with new_entry(_KIND, key) as folder:
            (folder / _FILE).write_text(model.to_json())
    except InputError as error:
        _log.warning("the latency model is not cached: %s", error.message)
    return model


def measure_latency(
    config: ViTConfig, batch: int, threads: int, on_progress: Progress = lambda done, total: None
) -> LatencyModel:
    """Time linears, attentions and activations of the sizes that a decomposition of `config` may have, interleaved, and fit.

    Args:
        config: the dense model.
        batch: images at a time.
        threads: of ONNX Runtime.
        on_progress: called with the rounds done and their total.
    """
    operators = list(_operators(config, batch))
    measured = _time(operators, threads, on_progress)
    prices: dict[str, tuple[float, ...]] = {}
    errors: list[float] = []
    for kind in ("linear", "attention", "activation"):
        at = [index for index, operator in enumerate(operators) if operator.kind == kind]
        terms = np.array([operators[index].terms for index in at], dtype=np.float64)
        prices[kind], left = fit_terms(terms, measured[at])
        errors.extend(left.tolist())
    return LatencyModel(
        runtime=f"onnxruntime {version('onnxruntime')}", processor=str(machine_facts()["cpu"]), threads=threads, batch=batch,
        error=float(np.median(errors)), **prices,
    )  # fmt: skip


def _operators(config: ViTConfig, batch: int) -> Iterator[Operator]:
    rows = batch * config.tokens
    for inputs, outputs in sorted({shape for block in config.blocks for shape in _linear_shapes(block, config.dim)}):
        yield Operator("linear", linear_terms(rows, inputs, outputs), linear_graph(batch, config.tokens, inputs, outputs))
    for block in sorted(set(config.blocks), key=BlockConfig.to_json):
        for qk_dim, v_dim in itertools.product(_sizes(block.qk_dim), _sizes(block.v_dim)):
            terms = attention_terms(batch, block.heads, config.tokens, qk_dim, v_dim)
            yield Operator("attention", terms, attention_graph(batch, config.tokens, block.heads, qk_dim, v_dim))
    for width in sorted({size for block in config.blocks for size in _sizes(block.mlp_dim)}):
        yield Operator("activation", activation_terms(rows * width), activation_graph(batch, config.tokens, width))


def _linear_shapes(block: BlockConfig, dim: int) -> Iterator[tuple[int, int]]:
    """(inputs, outputs) of linears that are dense, narrower, or a part of a pair."""
    for rows, columns in block.linear_shapes(dim).values():
        yield from ((columns, size) for size in _sizes(rows))
        yield from ((size, rows) for size in _sizes(columns))
        yield from ((size, rows) for size in _sizes(min(rows, columns)))


def _sizes(full: int) -> list[int]:
    return sorted({max(1, round(full * share)) for share in _SHARES})


def _time(operators: list[Operator], threads: int, on_progress: Progress) -> NDArray[np.float64]:
    """Nanoseconds of one copy of each: the median over rounds of the mean in a round, so that drift hits all alike."""
    import onnxruntime

    sessions, feeds = [], []
    rng = np.random.default_rng(0)
    for operator in operators:
        session = onnxruntime.InferenceSession(
            operator.graph.SerializeToString(), session_options(threads), providers=["CPUExecutionProvider"]
        )
        sessions.append(session)
        feeds.append({each.name: rng.standard_normal(each.shape, np.float32) for each in session.get_inputs()})
        session.run(None, feeds[-1])
    rounds: list[list[float]] = [[] for _ in operators]
    for done in range(ROUNDS):
        for session, feed, times in zip(sessions, feeds, rounds, strict=True):
            times.append(_mean_ns(session, feed) / _COPIES)
        on_progress(done + 1, ROUNDS)
    return np.asarray(np.median(rounds, axis=1), dtype=np.float64)


def _mean_ns(session: Any, feed: dict[str, Any]) -> float:
    count, start = 0, time.perf_counter_ns()
    while (elapsed := time.perf_counter_ns() - start) < ROUND_S * 1e9 or not count:
        session.run(None, feed)
        count += 1
    return elapsed / count


def linear_graph(batch: int, tokens: int, inputs: int, outputs: int) -> onnx.ModelProto:
    """Y = X W + b, as the exporter writes it."""
    rng = np.random.default_rng(0)
    nodes, weights = [], []
    for copy in range(_COPIES):
        weights.append(numpy_helper.from_array(rng.standard_normal((inputs, outputs), np.float32), f"w{copy}"))
        weights.append(numpy_helper.from_array(rng.standard_normal(outputs, np.float32), f"b{copy}"))
        nodes.append(helper.make_node("MatMul", ["x", f"w{copy}"], [f"xw{copy}"]))
        nodes.append(helper.make_node("Add", [f"xw{copy}", f"b{copy}"], [f"y{copy}"]))
    return _model(nodes, {"x": (batch, tokens, inputs)}, (batch, tokens, outputs), weights)


def attention_graph(batch: int, tokens: int, heads: int, qk_dim: int, v_dim: int) -> onnx.ModelProto:
    """Y = softmax(Q K^T) V by head, from heads side by side to heads side by side."""
    nodes, weights = [], []
    for part, width in {"q": qk_dim, "k": qk_dim, "v": v_dim}.items():
        weights.append(numpy_helper.from_array(np.array([0, 0, heads, width]), f"{part}_shape"))
    weights.append(numpy_helper.from_array(np.array([0, 0, heads * v_dim]), "joined_shape"))
    for copy in range(_COPIES):
        for part, order in {"q": (0, 2, 1, 3), "k": (0, 2, 3, 1), "v": (0, 2, 1, 3)}.items():
            nodes.append(helper.make_node("Reshape", [f"{part}_in{copy}", f"{part}_shape"], [f"{part}_apart{copy}"]))
            nodes.append(helper.make_node("Transpose", [f"{part}_apart{copy}"], [f"{part}{copy}"], perm=order))
        nodes.append(helper.make_node("MatMul", [f"q{copy}", f"k{copy}"], [f"scores{copy}"]))
        nodes.append(helper.make_node("Softmax", [f"scores{copy}"], [f"weights{copy}"], axis=-1))
        nodes.append(helper.make_node("MatMul", [f"weights{copy}", f"v{copy}"], [f"mixed{copy}"]))
        nodes.append(helper.make_node("Transpose", [f"mixed{copy}"], [f"apart{copy}"], perm=(0, 2, 1, 3)))
        nodes.append(helper.make_node("Reshape", [f"apart{copy}", "joined_shape"], [f"y{copy}"]))
    widths = {"q": heads * qk_dim, "k": heads * qk_dim, "v": heads * v_dim}
    # Inputs of its own for every copy, or ONNX Runtime would see that they are the same and compute one.
    shapes = {f"{part}_in{copy}": (batch, tokens, width) for part, width in widths.items() for copy in range(_COPIES)}
    return _model(nodes, shapes, (batch, tokens, heads * v_dim), weights)


def activation_graph(batch: int, tokens: int, width: int) -> onnx.ModelProto:
    """Y = gelu(X)."""
    nodes = [helper.make_node("Gelu", [f"x{copy}"], [f"y{copy}"]) for copy in range(_COPIES)]
    shape = (batch, tokens, width)
    return _model(nodes, {f"x{copy}": shape for copy in range(_COPIES)}, shape, [])


def _model(
    nodes: list[onnx.NodeProto], inputs: Mapping[str, tuple[int, ...]], output: tuple[int, ...], weights: list[onnx.TensorProto]
) -> onnx.ModelProto:
    given = [helper.make_tensor_value_info(name, TensorProto.FLOAT, shape) for name, shape in inputs.items()]
    made = [helper.make_tensor_value_info(f"y{copy}", TensorProto.FLOAT, output) for copy in range(_COPIES)]
    graph = helper.make_graph(nodes, "operator", given, made, weights)
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", _OPSET)], ir_version=_IR)
