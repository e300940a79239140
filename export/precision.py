"""The fp32 graph at another precision. TensorRT is strongly typed: an engine computes in the types that its graph names."""

from __future__ import annotations

import copy

import onnx

_FP32_OPERATORS = ("LayerNormalization",)
"""Stay in fp32: they square the residual stream, and one outlier channel above 256 overflows fp16. Softmax does not stay: its
inputs are scaled before the product, so they are small, and casts around it would stand in the way of fused attention."""


def to_fp16(model: onnx.ModelProto) -> onnx.ModelProto:
    """A copy of a graph that computes in float16, LayerNormalization aside; its input and output stay float32."""
    from onnxruntime.transformers.float16 import convert_float_to_float16
    from onnxruntime.transformers.onnx_model import OnnxModel

    # Types of intermediate values are inferred anew by whoever reads the file; stale ones would contradict the new casts.
    original = copy.deepcopy(model)
    converted: onnx.ModelProto = convert_float_to_float16(original, keep_io_types=True, op_block_list=list(_FP32_OPERATORS))
    OnnxModel.graph_topological_sort(converted.graph)  # the converter appends its casts at the end
    del converted.graph.value_info[:]
    return converted
