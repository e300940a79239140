"""Linears of a graph: the encoder's, which are quantised, and the head's, which are small and stay in float.

A patch embedding by a matrix product (`patch_embedding`) is one of the encoder's; one by a convolution is not a linear.
"""

from __future__ import annotations

import onnx

from export.graph.inspect import linear_shape
from export.graph.preprocessing import PREFIX
from vitnla.model.config import LINEARS, ViTConfig


def name_nodes(model: onnx.ModelProto) -> None:
    """Give every nameless node a unique name, in place: quantisation tools address nodes by name."""
    taken = {node.name for node in model.graph.node}
    for index, node in enumerate(model.graph.node):
        if not node.name:
            node.name = next(
                name for name in (f"{node.op_type}_{index}", f"vitdeploy_{node.op_type}_{index}") if name not in taken
            )
            taken.add(node.name)


def encoder_linears(model: onnx.ModelProto, config: ViTConfig) -> list[onnx.NodeProto]:
    """Return the MatMul and Gemm nodes of the encoder's linears, in node order; two for a low-rank one."""
    return _linears(model)[: _count(model, config)]


def head_linears(model: onnx.ModelProto, config: ViTConfig) -> list[onnx.NodeProto]:
    """Return the linears after the encoder's: the head's, and those of attention pooling."""
    return _linears(model)[_count(model, config) :]


def count_int8_linears(model: onnx.ModelProto) -> int:
    """Return the number of products that read their matrix through a DequantizeLinear."""
    weights = {tensor.name for tensor in model.graph.initializer}
    dequantized = {node.output[0] for node in model.graph.node if node.op_type == "DequantizeLinear" and node.input[0] in weights}
    return sum(node.op_type in {"MatMul", "Gemm"} and node.input[1] in dequantized for node in model.graph.node)


def _linears(model: onnx.ModelProto) -> list[onnx.NodeProto]:
    """Return the products with constant matrices, except those of embedded preprocessing."""
    weights = {tensor.name: tuple(tensor.dims) for tensor in model.graph.initializer}
    return [node for node in model.graph.node if linear_shape(node, weights) is not None and not node.name.startswith(PREFIX)]


def _count(model: onnx.ModelProto, config: ViTConfig) -> int:
    convolved = any(node.op_type == "Conv" and not node.name.startswith(PREFIX) for node in model.graph.node)
    return (not convolved) + sum(1 if getattr(block.ranks, name) is None else 2 for block in config.blocks for name in LINEARS)


def linear_macs(model: onnx.ModelProto, node: onnx.NodeProto) -> int:
    """Return the multiply-accumulates of a linear per token."""
    shape = linear_shape(node, {tensor.name: tuple(tensor.dims) for tensor in model.graph.initializer})
    assert shape is not None
    return shape[0] * shape[1]
