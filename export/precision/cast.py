"""Casts of the fp32 graph to 16 bits. TensorRT is strongly typed: an engine computes in the types of its graph."""

from __future__ import annotations

from typing import Literal

import onnx

from export.graph.preprocessing import PREFIX
from export.precision.float16 import Format, lower

LowPrecision = Literal["fp16", "bf16"]
FP16 = Format("fp16", onnx.TensorProto.FLOAT16, "tensor(float16)", 65504.0)
BF16 = Format("bf16", onnx.TensorProto.BFLOAT16, "tensor(bfloat16)", 3.3895313892515355e38)
FORMATS: dict[LowPrecision, Format] = {"fp16": FP16, "bf16": BF16}
_FP32_OPERATORS = frozenset({"LayerNormalization", "Loop", "Scan", "If", "Pow", "ReduceSum", "Sqrt", "Clip"})
"""Operators that stay in fp32. Norms square the residual stream: one outlier channel above 256 overflows fp16, and bf16 would take a mean in 8
bits. Loops are the online decompositions, which converge only in fp32, and Pow, ReduceSum, Sqrt, Clip are the matrix norm that
scales what enters them; its guard against zero would itself be zero in fp16. Softmax does not stay: its inputs are scaled before the
product, so they are small, and casts around it would stand in the way of fused attention."""


def to_fp16(model: onnx.ModelProto) -> onnx.ModelProto:
    """Return a copy of a graph that computes in float16 except for its norms; input and output stay float32."""
    return to_precision(model, "fp16")


def to_bf16(model: onnx.ModelProto) -> onnx.ModelProto:
    """Return a copy of a graph that computes in bfloat16 except for its norms; input and output stay float32."""
    return to_precision(model, "bf16")


def to_precision(model: onnx.ModelProto, precision: LowPrecision) -> onnx.ModelProto:
    """Return a copy of a graph at a precision; operators that need fp32, or that ONNX does not define there, stay in fp32.

    Raises:
        VerdictError: the types of the graph's values cannot be inferred.
    """
    nodes = enumerate(model.graph.node)
    # Pixels and the matrices that resize them need more bits than fp16 or bf16 have.
    kept = {index for index, node in nodes if node.op_type in _FP32_OPERATORS or node.name.startswith(PREFIX)}
    return lower(model, FORMATS[precision], kept | _root_mean_squares(model))


def _root_mean_squares(model: onnx.ModelProto) -> set[int]:
    """Return the node indices of every RMSNorm, Reciprocal(Sqrt(ReduceMean(Pow(x, 2)) + eps)), which squares the stream too."""
    producers = {name: index for index, node in enumerate(model.graph.node) for name in node.output}
    places = set()
    for index, node in enumerate(model.graph.node):
        if node.op_type == "Reciprocal":
            places.add(index)
            while node.op_type != "Pow":
                place = producers[node.input[0]]
                places.add(place)
                node = model.graph.node[place]
    return places
