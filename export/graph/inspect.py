"""Inspection of ONNX graphs: operators, low-rank pairs, linears, sizes, element types."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterator
from dataclasses import dataclass

import onnx
from onnx import helper

from vitnla.common.errors import VerdictError

STANDARD_DOMAINS = frozenset({"", "ai.onnx"})
_LINEAR = frozenset({"MatMul", "Gemm"})
_TRANSPARENT = frozenset({"Cast", "Identity", "Reshape"})
"""Operators that may stand between the two GEMMs of a low-rank pair without changing what they compute."""


@dataclass(frozen=True)
class LowRankPair:
    """Two chained linears with constant weights and only reshapes between: their nodes' output names, inner width."""

    first: str
    second: str
    rank: int


def operator_counts(model: onnx.ModelProto) -> dict[str, int]:
    """Return operator -> number of occurrences, in alphabetical order."""
    return dict(sorted(Counter(node.op_type for node in all_nodes(model.graph)).items()))


def require_standard_operators(model: onnx.ModelProto) -> None:
    """Check that all operators are standard ONNX, so that a runtime needs no extensions.

    Raises:
        VerdictError: names the operator and its domain.
    """
    for node in all_nodes(model.graph):
        if node.domain not in STANDARD_DOMAINS:
            raise VerdictError(
                f"the graph holds operator '{node.op_type}' of domain '{node.domain}', expected only standard ONNX operators",
                "export with another --opset, or without the step that put it there",
            )


def low_rank_pairs(model: onnx.ModelProto) -> list[LowRankPair]:
    """Return every pair x -> (x V) U in the graph, in node order.

    A pair whose constant factors a simplifier has multiplied out is one dense linear, and is not found.
    """
    weights = {tensor.name: tuple(tensor.dims) for tensor in model.graph.initializer}
    consumers: dict[str, list[onnx.NodeProto]] = defaultdict(list)
    for node in model.graph.node:
        for name in node.input:
            consumers[name].append(node)
    outputs = {value.name for value in model.graph.output}
    pairs = []
    for node in model.graph.node:
        if (shape := linear_shape(node, weights)) is None:
            continue
        second = _next_linear(node, consumers, outputs)
        if second is None or (following := linear_shape(second, weights)) is None:
            continue
        rank = shape[1]
        if rank == following[0] and rank <= min(shape[0], following[1]):
            pairs.append(LowRankPair(node.output[0], second.output[0], rank))
    return pairs


def initialiser_bytes(model: onnx.ModelProto) -> int:
    """Return the size of all weights in bytes; it decides where they are stored, since protobuf's limit is 2 GiB."""
    return sum(tensor_bytes(tensor) for tensor in model.graph.initializer)


def tensor_bytes(tensor: onnx.TensorProto) -> int:
    """Return the size of a tensor's elements in bytes."""
    count = 1
    for size in tensor.dims:
        count *= size
    return count * onnx.helper.tensor_dtype_to_np_dtype(tensor.data_type).itemsize


def all_nodes(graph: onnx.GraphProto) -> Iterator[onnx.NodeProto]:
    """Yield the nodes of a graph and of the subgraphs in its control flow."""
    for node in graph.node:
        yield node
        for attribute in node.attribute:
            for inner in (attribute.g, *attribute.graphs):
                yield from all_nodes(inner)


def linear_shape(node: onnx.NodeProto, weights: dict[str, tuple[int, ...]]) -> tuple[int, int] | None:
    """Return (in, out) of a MatMul or Gemm of its first input with a constant matrix; `None` for any other node."""
    if node.op_type not in _LINEAR or len(weights.get(node.input[1], ())) != 2:
        return None
    rows, columns = weights[node.input[1]]
    transposed = any(attribute.name == "transB" and attribute.i for attribute in node.attribute)
    return (columns, rows) if transposed else (rows, columns)


def _next_linear(node: onnx.NodeProto, consumers: dict[str, list[onnx.NodeProto]], outputs: set[str]) -> onnx.NodeProto | None:
    """Return the linear that is the only reader of `node`'s output, through reshapes at most; `None` if there is none."""
    while True:
        value = node.output[0]
        readers = [reader for reader in consumers[value] if reader.op_type != "Shape"]
        if value in outputs or len(readers) != 1 or readers[0].input[0] != value:
            return None
        node = readers[0]
        if node.op_type in _LINEAR:
            return node
        if node.op_type not in _TRANSPARENT:
            return None


def value_types(model: onnx.ModelProto) -> dict[str, int]:
    """Return value name -> element type, as far as ONNX can infer it; weights are not read, so model size does not matter."""
    skeleton = onnx.ModelProto(ir_version=model.ir_version, opset_import=model.opset_import)
    skeleton.graph.node.extend(model.graph.node)
    skeleton.graph.name = "types"
    skeleton.graph.input.extend(model.graph.input)
    weights = model.graph.initializer
    skeleton.graph.input.extend(helper.make_tensor_value_info(one.name, one.data_type, one.dims) for one in weights)
    inferred = onnx.shape_inference.infer_shapes(skeleton, data_prop=False).graph
    values = (*inferred.input, *inferred.value_info, *model.graph.output)
    return {value.name: value.type.tensor_type.elem_type for value in values}
