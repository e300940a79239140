"""Operators of a ViT at the sizes that a decomposition may give them, each as an ONNX graph of several copies."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper

from vitnla.allocation.latency_model import activation_terms, attention_terms, linear_terms
from vitnla.common.errors import InputError
from vitnla.common.registry import Registry
from vitnla.model.config import BlockConfig, ViTConfig

COPIES = 4
"""Copies of the operator in one graph, each with its own weights, to amortise the overhead of a session call."""
_SHARES = (0.25, 0.5, 0.75, 1.0)
_OPSET, _IR = 20, 10
_INSTEAD = "choose a target of MACs, which needs no measurement"


@dataclass(frozen=True)
class Operator:
    """An operator to time: a graph with `COPIES` of it, and the terms of its latency model."""

    kind: str
    terms: tuple[float, ...]
    graph: onnx.ModelProto


def operators(config: ViTConfig, batch: int, *, int8: bool = False, int8_scores: bool = False) -> Iterator[Operator]:
    """Yield linears, attentions and activations of the sizes that a decomposition of `config` may have.

    Args:
        config: the dense model.
        batch: images at a time.
        int8: whether linears are those of an INT8 graph.
        int8_scores: whether Q K^T is too.

    Raises:
        InputError: an attention, an MLP or the positions are of a kind that has no operator here.
    """
    _require_operators(config)
    rows, linear = batch * config.tokens, int8_linear_graph if int8 else linear_graph
    for inputs, outputs in sorted({shape for block in config.blocks for shape in _linear_shapes(block, config.dim)}):
        yield Operator("linear", linear_terms(rows, inputs, outputs), linear(batch, config.tokens, inputs, outputs))
    for block in sorted(set(config.blocks), key=BlockConfig.to_json):
        for qk_dim, v_dim in itertools.product(_sizes(block.qk_dim), _sizes(block.v_dim)):
            terms = attention_terms(batch, block.heads, config.tokens, qk_dim, v_dim)
            graph = ATTENTION_GRAPHS[block.attention.kind]
            yield Operator("attention", terms, graph(batch, config.tokens, block.heads, qk_dim, v_dim, int8=int8_scores))
    for kind, width in sorted({(block.mlp.kind, size) for block in config.blocks for size in _sizes(block.mlp_dim)}):
        yield Operator("activation", activation_terms(rows * width), ACTIVATION_GRAPHS[kind](batch, config.tokens, width))


def _require_operators(config: ViTConfig) -> None:
    if config.position.in_attention:
        raise InputError(f"latency: expected positions outside the attention, got {config.position.label}", _INSTEAD)
    for block in config.blocks:
        for part, graphs in ((block.attention, ATTENTION_GRAPHS), (block.mlp, ACTIVATION_GRAPHS)):
            if part.kind not in graphs:
                raise InputError(f"latency: expected {part.family} of kind {' or '.join(graphs)}, got {part.label}", _INSTEAD)


def _linear_shapes(block: BlockConfig, dim: int) -> Iterator[tuple[int, int]]:
    """Yield (inputs, outputs) of linears that are dense, narrower, or a factor of a low-rank pair."""
    for rows, columns in block.linear_shapes(dim).values():
        yield from ((columns, size) for size in _sizes(rows))
        yield from ((size, rows) for size in _sizes(columns))
        yield from ((size, rows) for size in _sizes(min(rows, columns)))


def _sizes(full: int) -> list[int]:
    return sorted({max(1, round(full * share)) for share in _SHARES})


def linear_graph(batch: int, tokens: int, inputs: int, outputs: int) -> onnx.ModelProto:
    """Build Y = X W + b, as the exporter writes it."""
    rng = np.random.default_rng(0)
    nodes, weights = [], []
    for copy in range(COPIES):
        weights.append(numpy_helper.from_array(rng.standard_normal((inputs, outputs), np.float32), f"w{copy}"))
        weights.append(numpy_helper.from_array(rng.standard_normal(outputs, np.float32), f"b{copy}"))
        nodes.append(helper.make_node("MatMul", ["x", f"w{copy}"], [f"xw{copy}"]))
        nodes.append(helper.make_node("Add", [f"xw{copy}", f"b{copy}"], [f"y{copy}"]))
    return _model(nodes, {"x": (batch, tokens, inputs)}, (batch, tokens, outputs), weights)


def int8_linear_graph(batch: int, tokens: int, inputs: int, outputs: int) -> onnx.ModelProto:
    """Build Y = X W + b as the INT8 lowerings write it: Q/DQ around a Gemm, weights per output channel, bias in int32."""
    rng = np.random.default_rng(0)
    nodes: list[onnx.NodeProto] = []
    weights: list[onnx.TensorProto] = []
    for copy in range(COPIES):
        nodes += _rounded("x", copy, weights)
        scales = rng.uniform(0.5, 1.0, outputs).astype(np.float32) / 1000
        stored: dict[str, tuple[NDArray[Any], ...]] = {
            "w": (rng.integers(-127, 128, (inputs, outputs), np.int8), scales, np.zeros(outputs, np.int8)),
            "b": (rng.integers(-999, 999, outputs, np.int32), scales * _scale(copy), np.zeros(outputs, np.int32)),
        }
        for part, arrays in stored.items():
            names = [f"{part}{copy}_{what}" for what in ("stored", "scale", "zero")]
            weights += [numpy_helper.from_array(array, name) for array, name in zip(arrays, names, strict=True)]
            nodes.append(helper.make_node("DequantizeLinear", names, [f"{part}{copy}"], axis=1 if part == "w" else 0))
        nodes.append(helper.make_node("Gemm", [f"x_rounded{copy}", f"w{copy}", f"b{copy}"], [f"y{copy}"]))
    return _model(nodes, {"x": (batch * tokens, inputs)}, (batch * tokens, outputs), weights)


def _scale(copy: int) -> np.float32:
    """Return a scale that differs by copy; otherwise a runtime would merge equal roundings."""
    return np.float32(0.03 * (1 + copy / 100))


def _rounded(name: str, copy: int, weights: list[onnx.TensorProto]) -> list[onnx.NodeProto]:
    """Return the Q/DQ nodes from `name` to `<name>_rounded<copy>`."""
    scale, zero, stored = f"{name}_scale{copy}", f"{name}_zero{copy}", f"{name}_stored{copy}"
    weights += [
        numpy_helper.from_array(np.asarray(_scale(copy)), scale),
        numpy_helper.from_array(np.asarray(128, np.uint8), zero),
    ]
    return [
        helper.make_node("QuantizeLinear", [name, scale, zero], [stored]),
        helper.make_node("DequantizeLinear", [stored, scale, zero], [f"{name}_rounded{copy}"]),
    ]


def attention_graph(batch: int, tokens: int, heads: int, qk_dim: int, v_dim: int, *, int8: bool = False) -> onnx.ModelProto:
    """Build Y = softmax(Q K^T) V per head, with heads concatenated in input and output; with `int8`, Q/DQ before Q K^T."""
    nodes, weights = [], []
    for part, width in {"q": qk_dim, "k": qk_dim, "v": v_dim}.items():
        weights.append(numpy_helper.from_array(np.array([0, 0, heads, width]), f"{part}_shape"))
    weights.append(numpy_helper.from_array(np.array([0, 0, heads * v_dim]), "joined_shape"))
    for copy in range(COPIES):
        for part, order in {"q": (0, 2, 1, 3), "k": (0, 2, 3, 1), "v": (0, 2, 1, 3)}.items():
            nodes.append(helper.make_node("Reshape", [f"{part}_in{copy}", f"{part}_shape"], [f"{part}_apart{copy}"]))
            nodes.append(helper.make_node("Transpose", [f"{part}_apart{copy}"], [f"{part}{copy}"], perm=order))
        factors = [f"q{copy}", f"k{copy}"]
        if int8:
            for part in factors:
                nodes += _rounded(part, copy, weights)
            factors = [f"{part}_rounded{copy}" for part in factors]
        nodes.append(helper.make_node("MatMul", factors, [f"scores{copy}"]))
        nodes.append(helper.make_node("Softmax", [f"scores{copy}"], [f"weights{copy}"], axis=-1))
        nodes.append(helper.make_node("MatMul", [f"weights{copy}", f"v{copy}"], [f"mixed{copy}"]))
        nodes.append(helper.make_node("Transpose", [f"mixed{copy}"], [f"apart{copy}"], perm=(0, 2, 1, 3)))
        nodes.append(helper.make_node("Reshape", [f"apart{copy}", "joined_shape"], [f"y{copy}"]))
    widths = {"q": heads * qk_dim, "k": heads * qk_dim, "v": heads * v_dim}
    # Inputs of its own for every copy, or ONNX Runtime would see that they are the same and compute one.
    shapes = {f"{part}_in{copy}": (batch, tokens, width) for part, width in widths.items() for copy in range(COPIES)}
    return _model(nodes, shapes, (batch, tokens, heads * v_dim), weights)


ATTENTION_GRAPHS: Registry[Callable[..., onnx.ModelProto]] = Registry("attention operator")
"""Kind of attention -> builder, such as `attention_graph`, of the operators between qkv and proj."""
ATTENTION_GRAPHS.add("standard", attention_graph)


def activation_graph(batch: int, tokens: int, width: int) -> onnx.ModelProto:
    """Build Y = gelu(X)."""
    nodes = [helper.make_node("Gelu", [f"x{copy}"], [f"y{copy}"]) for copy in range(COPIES)]
    shape = (batch, tokens, width)
    return _model(nodes, {f"x{copy}": shape for copy in range(COPIES)}, shape, [])


ACTIVATION_GRAPHS: Registry[Callable[[int, int, int], onnx.ModelProto]] = Registry("MLP operator")
"""Kind of MLP -> builder, such as `activation_graph`, of the operators between fc1 and fc2."""
ACTIVATION_GRAPHS.add("plain", activation_graph)


def _model(
    nodes: list[onnx.NodeProto], inputs: Mapping[str, tuple[int, ...]], output: tuple[int, ...], weights: list[onnx.TensorProto]
) -> onnx.ModelProto:
    given = [helper.make_tensor_value_info(name, TensorProto.FLOAT, shape) for name, shape in inputs.items()]
    made = [helper.make_tensor_value_info(f"y{copy}", TensorProto.FLOAT, output) for copy in range(COPIES)]
    graph = helper.make_graph(nodes, "operator", given, made, weights)
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", _OPSET)], ir_version=_IR)
